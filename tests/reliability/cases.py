"""What goes wrong and what has to be said then: the row of a table, and how it is tried through the real command."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ccd_lightning.cli import main

SECONDS = 60.0  # for what takes about one; machines that run tests are busy
MAX_LINES = 14
ADVICE = re.compile(  # what tells the reader what to do, or what may be given instead
    r"\b(must|give|choose|make|remove|fit|put|name|write|test|leave|run|add|ask|resume|start|rename|export|save|unpack|"
    r"use|keep|lists?|did you mean|expected|have to|needs?|copy|convert|set|install|pretrain|predict|move|check)\b"
    r"|--\w",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        words: The command line after `ccd`, quoted as for a shell. It runs in a copy of the trained workspace.
        says: What the message has to name: the option's full key, or the file, and what to do.
        prepare: Makes or damages files in the working directory, if anything is to be.
        code: The exit code, 3 where images are skipped.
        writes: Beginnings of the paths that the command may write all the same.
        rare: Whether nightly runs alone try it, as another value of the same option is tried in each run.
    """

    words: str
    says: tuple[str, ...]
    prepare: Callable[[], object] | None = None
    code: int = 2
    writes: tuple[str, ...] = ()
    name: str = ""
    rare: bool = False

    def __str__(self) -> str:
        """What the row is called in the output of pytest."""
        return re.sub(r"[^\x21-\x7e]+", " ", self.name or self.words)


def check(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs the command of a case, and checks that the error is reported as it should be.

    The exit code is right, the message has at most two sentences, which name the cause and the fix, nothing else
    fills the screen, it takes seconds, and there is nothing new that a later command would read.
    """
    if case.prepare:
        case.prepare()
    before = _files()
    capsys.readouterr()
    begun = time.perf_counter()
    code = run(case.words)
    took = time.perf_counter() - begun
    printed = capsys.readouterr()
    assert code == case.code, f"exit code {code}: {printed.out[-500:]}\n{printed.err[-2000:]}"
    lines = printed.err.strip().splitlines()
    assert "Traceback" not in printed.err
    assert len(lines) <= MAX_LINES, printed.err
    message = "\n".join(lines[_beginning(lines) :])
    for part in case.says:
        assert part in message, f"{part!r} is not in: {message}"
    assert len(sentences(message)) <= 2, message
    assert ADVICE.search(message), f"no advice: {message}"
    assert len(message) < 900, message
    assert took < SECONDS, f"{took:.0f} s"
    new = sorted(path for path in before.items() ^ _files().items() if not path[0].startswith(case.writes or ("\0",)))
    assert not new, f"written or changed: {new}"


def run(words: str) -> object:
    """Runs a command in this process; the exit code, also where the parser itself exits."""
    try:
        return main(shlex.split(words))
    except SystemExit as end:
        return end.code


def sentences(message: str) -> list[str]:
    """The sentences of a message: they end with a full stop or the like before a capital letter, or at the end."""
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z`'\"])", message.removeprefix("ccd: ").strip())
    return [part for part in parts if part]


def _beginning(lines: list[str]) -> int:
    """The line at which the message begins: the last one with the program's name that is no warning."""
    marked = [place for place, line in enumerate(lines) if line.startswith("ccd: ") and "ccd: warning" not in line]
    return marked[-1] if marked else 0


def _files() -> dict[str, tuple[int, int]]:
    """All files below the working directory, with what tells whether they were written to; TensorBoard's aside."""
    found = {}
    for path in Path().rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            if path.is_symlink() or not (path.is_dir() or path.name.startswith("events.out.tfevents.")):
                found[str(path)] = status.st_size, status.st_mtime_ns
    return found
