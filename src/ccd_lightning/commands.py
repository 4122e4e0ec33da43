"""Commands that messages print, quoted so that they can be pasted into a shell, and paths that users write."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def command(*words: str | Path) -> str:
    """The command line `ccd WORDS`, each word quoted where the shell needs it."""
    return shlex.join(["ccd", *map(str, words)])


def then(way_out: str) -> str:
    """The end of a sentence that gives advice: what to do afterwards, such as resuming a run, or a full stop."""
    return f", then {way_out[0].lower()}{way_out[1:]}" if way_out else "."


def expand(path: str | Path) -> Path:
    """A path with `~` replaced by the home folder, which shells do not do within `--option=~/PATH` or a config."""
    return Path(os.path.expanduser(path))
