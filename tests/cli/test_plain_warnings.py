"""Warnings on the terminal."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ccd_lightning.cli.plain_warnings import PACKAGE, plain_warnings

OWN = str(PACKAGE / "runs.py")


def test_own_warnings_are_messages_and_others_are_pythons(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.formatwarning
    with plain_warnings():
        assert warnings.formatwarning(UserWarning("a\x1b[1m\nb"), UserWarning, OWN, 3) == "ccd: warning: a\\x1b[1m\nb\n"
        for category, file in ((DeprecationWarning, OWN), (UserWarning, "other.py")):
            assert warnings.formatwarning("text", category, file, 3).startswith(f"{file}:3: ")
    assert warnings.formatwarning is before


@pytest.mark.process
def test_lightning_does_not_bring_its_own_format_back(tmp_path: Path) -> None:
    script = (
        "from ccd_lightning.cli import main; from lightning.pytorch.utilities import rank_zero_warn; import warnings\n"
        "import ccd_lightning.cli.training as training; training._quieten()\n"
        f"warnings.warn_explicit('text', UserWarning, {OWN!r}, 3)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stderr == "ccd: warning: text\n"
