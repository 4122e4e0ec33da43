"""Running commands: what they print goes to a log, and what they take is measured."""

from __future__ import annotations

import codecs
import gc
import io
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple, TextIO

from ccd_lightning.commands import command
from ccd_lightning.memory import peak_memory, reset_peak_memory

Main = Callable[[list[str]], int]
PREFIX = "ccd: "


class Outcome(NamedTuple):
    """What became of a command.

    Attributes:
        code: Its exit code; 1 for an error that is not the user's.
        message: The sentence with which it failed; "" if it did not.
        seconds: How long it took.
        memory: Peak of the main memory in bytes; None where it cannot be measured.
        gpu_memory: Peak of the GPU's memory in bytes; None without one.
    """

    code: int
    message: str
    seconds: float
    memory: int | None
    gpu_memory: int | None


class Log(io.TextIOBase):
    """A text stream that keeps of each line what a terminal would show in the end.

    Progress bars write a line again and again, which would make a log of many megabytes.

    Args:
        stream: Where finished lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.line, self.last = stream, "", ""

    def write(self, text: str) -> int:
        """Takes text; a carriage return begins the line anew."""
        for part in text.splitlines(keepends=True):
            if self.line.endswith("\r"):
                self.line = "" if part not in ("\n", "\r\n") else self.line[:-1]
            self.line += part
            if self.line.strip():
                self.last = self.line.strip()
            if part.endswith("\n"):
                self.stream.write(self.line.rstrip() + "\n")
                self.line = ""
        return len(text)

    def flush(self) -> None:
        """Writes finished lines to the disk."""
        self.stream.flush()

    def finish(self) -> None:
        """Writes the line that is not finished."""
        if self.line.strip():
            self.stream.write(self.line.strip() + "\n")
        self.line = ""
        self.flush()


def run_here(main: Main, words: list[str], log: Path) -> Outcome:
    """Runs a command in this process.

    Args:
        main: The command line.
        words: The command and its options.
        log: What it prints is appended to this file.

    Raises:
        KeyboardInterrupt: If it was interrupted.
    """
    begun, message = time.monotonic(), ""
    reset_peak_memory()
    with log.open("a", encoding="utf-8") as file:
        output = Log(file)
        output.write(f"$ {command(*words)}\n")
        with redirect_stdout(output), redirect_stderr(output):
            try:
                code = main(words)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except Exception as error:  # of one cell, which is no reason to give up the others
                traceback.print_exc()
                code, message = 1, f"{type(error).__name__}: {' '.join(str(error).split())}"
        output.finish()
    memory, gpu = peak_memory()
    gc.collect()  # trainer and model refer to each other: without, memory grows by a hundred MB or more per command
    return Outcome(code, message or (_sentence(output.last) if code else ""), time.monotonic() - begun, memory, gpu)


def run_apart(words: list[str], log: Path) -> Outcome:
    """Runs a command in a process of its own, as `run_here` does; several GPUs need that."""
    begun = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        output = Log(file)
        output.write(f"$ {command(*words)}\n")
        program = [sys.executable, "-m", "ccd_lightning", *words]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # The terminal's Ctrl-C reaches both processes, SIGTERM this one alone; the command then saves its state.
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        interrupted = False
        try:
            _copy(process, output)
        except KeyboardInterrupt:
            interrupted = True
            _copy(process, output)
        finally:
            memory = _wait(process)
            signal.signal(signal.SIGTERM, before)
        output.finish()
    code = 130 if interrupted else process.returncode
    return Outcome(code, _sentence(output.last) if code else "", time.monotonic() - begun, memory, None)


def _copy(process: subprocess.Popen[bytes], output: Log) -> None:
    """Writes what a process prints to the log as it comes, until it ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    assert isinstance(process.stdout, io.BufferedReader)
    while data := process.stdout.read1(65536):
        output.write(decoder.decode(data))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Waits for a process; returns its peak memory in bytes where the system tells."""
    if process.stdout:
        process.stdout.close()
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _sentence(line: str) -> str:
    return line.removeprefix(PREFIX)
