"""Disks and folders that refuse: a sentence with the path, exit code 2 (`tests/reliability` has the mistakes)."""

from __future__ import annotations

import errno

import pytest

from ccd_lightning.cli import main


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, "Free some space"), (errno.EACCES, "Give another path"), (errno.EROFS, "another")],
)
def test_a_disk_that_refuses_is_reported_in_a_sentence(
    code: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "told by the system", "some/file")

    monkeypatch.setattr("ccd_lightning.cli.data.run_data", refuse)
    assert main(["data", "check"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("ccd: some/file: told by the system")
    assert expected in message
