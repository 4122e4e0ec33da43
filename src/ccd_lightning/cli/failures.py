"""Messages for machine failures: full disks, missing folders, memory, and killed processes."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ccd_lightning.commands import then
from ccd_lightning.errors import UserError
from ccd_lightning.writing import short_text

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MEMORY = r"can't allocate memory|out of memory|Unable to allocate|Cannot allocate memory"
KILLED = r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:exited unexpectedly|is killed by signal)"
GONE = r"Connection (?:closed|reset) by peer|Broken pipe \[|Socket closed"  # of gloo, which connects ranks on CPUs
SMALLER = "Give a smaller --data.batch_size or --data.size, or fewer --data.num_workers"


@contextmanager
def naming_failures(path: str | Path | None, resume_hint: Callable[[], str] = str) -> Iterator[None]:
    """Converts machine failures to error messages.

    Args:
        path: Path that is written to, for errors that do not name it.
        resume_hint: Function that returns what to do once the cause is removed.

    Raises:
        UserError: In place of the original error.
    """
    before, threading.excepthook = threading.excepthook, _without_os_errors
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if message := failure(error, resume_hint(), path):
            raise message from error
        raise
    finally:
        threading.excepthook = before


def _without_os_errors(found: threading.ExceptHookArgs) -> None:
    """Ignores write errors in TensorBoard's thread. The main thread also raises them, at the next event."""
    if not isinstance(found.exc_value, OSError):
        threading.__excepthook__(found)


def failure(error: BaseException, resume_hint: str = "", path: str | Path | None = None) -> UserError | None:
    """Returns the error message for a machine failure, or None for any other error.

    Args:
        error: The error that was raised.
        resume_hint: What to do once the cause is removed, such as the command that resumes a run.
        path: Path that is written to, for errors that do not name it.
    """
    afterwards = then(resume_hint)
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else path
        if name is None and error.errno not in FULL:
            return None
        return UserError(f"{f'{_text(name)}: ' if name else ''}{error.strerror or error}{_advice(error)}{afterwards}")
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(MEMORY, text)):
        return UserError(f"There is not enough memory ({short_text(text) or 'none is left'}). {SMALLER}{afterwards}")
    if isinstance(error, RuntimeError) and re.search(GONE, text):
        return UserError(
            "Another process of this training has stopped: its own message gives the cause, or it was killed, probably"
            " because memory ran out."
            f" Give a smaller --data.batch_size or fewer --trainer.devices{afterwards}"
        )
    if isinstance(error, RuntimeError) and re.search(KILLED, text):
        return UserError(
            "A process that loads images was killed, probably because memory ran out."
            f" {SMALLER.replace(' or --data.size', '')}{afterwards}"
        )
    return None


def _text(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def _advice(error: OSError) -> str:
    """Returns what is intact, and how to fix a file or folder that cannot be read or written."""
    if error.errno in FULL:
        return "; files written before are complete. Free some space, or write to another disk"
    return ". Give another path, or check that this one exists and that you may read and write it"
