"""What to say of failures of the machine: full disks, folders that have gone, memory, processes that were killed."""

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
GONE = r"Connection (?:closed|reset) by peer|Broken pipe \[|Socket closed"  # of gloo, with which ranks talk on CPUs
SMALLER = "Give a smaller --data.batch_size or --data.size, or fewer --data.num_workers"


@contextmanager
def naming_failures(place: str | Path | None, go_on: Callable[[], str] = str) -> Iterator[None]:
    """Turns failures of the machine into the sentence for them.

    Args:
        place: What is written to, for errors that do not say it.
        go_on: Says what can be done once the cause is removed.

    Raises:
        UserError: In their place.
    """
    before, threading.excepthook = threading.excepthook, _without_os_errors
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if told := failure(error, go_on(), place):
            raise told from error
        raise
    finally:
        threading.excepthook = before


def _without_os_errors(found: threading.ExceptHookArgs) -> None:
    """Leaves out what TensorBoard's thread cannot write: it is raised in the main one, too, at the next event."""
    if not isinstance(found.exc_value, OSError):
        threading.__excepthook__(found)


def failure(error: BaseException, go_on: str = "", place: str | Path | None = None) -> UserError | None:
    """The sentence for a failure of the machine; None for any other error.

    Args:
        error: What was raised.
        go_on: What can be done once the cause is removed, such as the command that resumes a run.
        place: What is written to, for errors that do not say it.
    """
    afterwards = then(go_on)
    if isinstance(error, OSError):
        name = error.filename if error.filename is not None else place
        if name is None and error.errno not in FULL:
            return None
        return UserError(f"{f'{_text(name)}: ' if name else ''}{error.strerror or error}{_advice(error)}{afterwards}")
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(MEMORY, text)):
        return UserError(f"There is not enough memory ({short_text(text) or 'none is left'}). {SMALLER}{afterwards}")
    if isinstance(error, RuntimeError) and re.search(GONE, text):
        return UserError(
            "Another process of this training has gone: it says why, or was killed, as systems do when memory runs out."
            f" Give a smaller --data.batch_size or fewer --trainer.devices{afterwards}"
        )
    if isinstance(error, RuntimeError) and re.search(KILLED, text):
        return UserError(
            "A process that loads images was killed, as systems do when memory runs out."
            f" {SMALLER.replace(' or --data.size', '')}{afterwards}"
        )
    return None


def _text(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def _advice(error: OSError) -> str:
    """What is safe, and what to do about a file or folder that cannot be read or written."""
    if error.errno in FULL:
        return "; what was written before is whole. Make room, or write to another disk"
    return ". Give another place, or see that this one is there and you may read and write it"
