"""Commands in processes of their own, where these are what is tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.runs import ROOT

RANKS = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def command(*words: str) -> list[str]:
    """The command line, with a small encoder, as a process."""
    return [sys.executable, "-m", "tests.tiny", *words]


def run(*words: str, place: Path | None = None, code: int = 0) -> str:
    """Runs a command to its end.

    Args:
        words: The command, after `ccd`.
        place: Its working directory.
        code: The exit code that is expected.

    Returns:
        What it printed to stdout.
    """
    done = subprocess.run(
        command(*words), cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
