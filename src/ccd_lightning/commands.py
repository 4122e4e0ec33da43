"""Formats commands for messages, quoted for the shell, and expands paths given by users."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def command(*arguments: str | Path) -> str:
    """Returns the command line `ccd ARGUMENTS`, with arguments quoted where the shell needs it."""
    return shlex.join(["ccd", *map(str, arguments)])


def then(advice: str) -> str:
    """Returns the end of a sentence with advice: ", then " and the next action, or a full stop if it is empty."""
    return f", then {advice[0].lower()}{advice[1:]}" if advice else "."


def expand(path: str | Path) -> Path:
    """Replaces `~` in a path by the home folder, which shells do not do within `--option=~/PATH` or a config."""
    return Path(os.path.expanduser(path))
