"""Running commands with a log."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from ccd_lightning.studies.execution import Log, run_apart, run_here


def test_a_log_keeps_what_a_terminal_would_show() -> None:
    stream = io.StringIO()
    log = Log(stream)
    for text in ("begin\nstep 1", "\rstep 2", "\rst", "ep 3\nend\r\n", "\r", "bar 1\r", "bar 2", "\r\n", "open"):
        log.write(text)
    assert stream.getvalue() == "begin\nstep 3\nend\nbar 2\n"
    log.finish()
    log.finish()
    assert stream.getvalue().splitlines()[-1] == "open"
    assert log.last == "open"


def test_commands_run_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    done = run_here(main, ["--version"], log)
    assert (done.code, done.message) == (0, "")
    assert done.seconds < 5
    assert done.memory is None or done.memory > 10**7
    refused = run_here(main, ["tst", "a b"], log)
    assert (refused.code, refused.message) == (2, "There is no command 'tst'; did you mean test?")

    def broken(words: list[str]) -> int:
        raise RuntimeError(f"no memory for\n{words[0]}")

    failed = run_here(broken, ["fit"], log)
    assert (failed.code, failed.message) == (1, "RuntimeError: no memory for fit")
    text = log.read_text()
    assert text.startswith("$ ccd --version\nccd-lightning ")
    assert "$ ccd tst 'a b'\nccd: There is no command" in text
    assert "Traceback" in text
    assert capsys.readouterr() == ("", "")
    ended = run_here(lambda _: sys.exit("bye"), ["fit"], log)
    assert ended.code == 1


@pytest.mark.process
def test_commands_run_in_processes_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = run_apart(["--version"], log)
    assert (done.code, done.message) == (0, "")
    assert done.memory is None or 10**7 < done.memory < 10**10
    refused = run_apart(["tst"], log)
    assert (refused.code, refused.message) == (2, "There is no command 'tst'; did you mean test?")
    assert log.read_text().startswith("$ ccd --version\nccd-lightning ")
