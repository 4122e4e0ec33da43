"""Execution of commands, with their output in a log and their time and memory measured."""

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
    """Outcome of a command.

    Attributes:
        code: Exit code; 1 for an error that is not a user error.
        message: Error message, "" if the command succeeded.
        seconds: Duration in seconds.
        memory: Peak main memory in bytes, None if it cannot be measured.
        gpu_memory: Peak GPU memory in bytes, None without a GPU.
    """

    code: int
    message: str
    seconds: float
    memory: int | None
    gpu_memory: int | None


class Log(io.TextIOBase):
    """A text stream that keeps only the final state of each line, as a terminal would show it.

    Progress bars rewrite a line many times, which would make a log of many megabytes.

    Args:
        stream: Stream to which finished lines are written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.line, self.last = stream, "", ""

    def write(self, text: str) -> int:
        """Writes text. A carriage return restarts the current line."""
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
        """Flushes finished lines, unless the stream is closed: Python also flushes when the log is discarded."""
        if not self.stream.closed:
            self.stream.flush()

    def finish(self) -> None:
        """Writes the unfinished last line."""
        if self.line.strip():
            self.stream.write(self.line.strip() + "\n")
        self.line = ""
        self.flush()


def run_here(main: Main, argv: list[str], log: Path) -> Outcome:
    """Runs a command in this process.

    Args:
        main: The function that runs a command line.
        argv: The command and its options.
        log: File to which its output is appended.

    Raises:
        KeyboardInterrupt: If it was interrupted.
    """
    begun, message = time.monotonic(), ""
    reset_peak_memory()
    with log.open("a", encoding="utf-8") as file:
        output = Log(file)
        output.write(f"$ {command(*argv)}\n")
        with redirect_stdout(output), redirect_stderr(output):
            try:
                code = main(argv)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except Exception as error:  # an error in one cell must not stop the others
                traceback.print_exc()
                code, message = 1, f"{type(error).__name__}: {' '.join(str(error).split())}"
        output.finish()
    memory, gpu = peak_memory()
    gc.collect()  # trainer and model form reference cycles: otherwise each command would keep a hundred MB or more
    return Outcome(code, message or (_sentence(output.last) if code else ""), time.monotonic() - begun, memory, gpu)


def run_apart(argv: list[str], log: Path) -> Outcome:
    """Runs a command in a separate process, otherwise like `run_here`. Needed for several GPUs."""
    begun = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        output = Log(file)
        output.write(f"$ {command(*argv)}\n")
        program = [sys.executable, "-m", "ccd_lightning", *argv]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Ctrl-C in the terminal reaches both processes, SIGTERM only this one. The command then saves its state.
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
    """Copies the output of a process to the log until the process ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    assert isinstance(process.stdout, io.BufferedReader)
    while data := process.stdout.read1(65536):
        output.write(decoder.decode(data))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Waits for a process, and returns its peak memory in bytes, or None if the system does not report it."""
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
