"""Trying a command on hostile files or failing machines: it ends in time, with one message."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ccd_lightning.cli import main

SECONDS = 120  # a hang takes forever; machines that run tests are busy
SHOWN = 15  # lines on stderr, fewer than these


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Fails instead of waiting forever, as for the other end of a pipe."""

    def stop(*_: Any) -> None:
        pytest.fail(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(words: str | list[str], capsys: pytest.CaptureFixture[str], codes: tuple[int, ...] = (2,)) -> str:
    """Runs a command, and sees that it ends as it should.

    Args:
        words: The command line after `ccd`.
        capsys: pytest's.
        codes: The exit codes that are right.

    Returns:
        What was printed, stdout first.
    """
    capsys.readouterr()
    with in_time():
        code = main(shlex.split(words) if isinstance(words, str) else words)
    printed = capsys.readouterr()
    assert code in codes, printed.err[-2000:]
    assert "Traceback" not in printed.err
    assert len(printed.err.strip().splitlines()) < SHOWN, printed.err
    assert "\x1b" not in printed.err
    if code == 2:
        errors = [line for line in printed.err.splitlines() if line.startswith("ccd: ") and "ccd: warning" not in line]
        assert len(errors) == 1, printed.err
        assert len(re.findall(r"[.?!](?: (?=[A-Z])|$)", errors[0])) <= 3, errors[0]  # `ccd data check` has three
    return f"{printed.out}\n{printed.err}"
