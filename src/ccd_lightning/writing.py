"""Writes files atomically: readers find either the complete file or none."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import itertools
import os
import platform
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, TextIO

PARTIAL = ".partial"
DAY = 86400.0  # seconds
NUMBERS = itertools.count()
NAME_BYTES = 255  # maximum length of a file name on all common file systems
PARTIAL_BYTES = 200  # maximum length of the original name within the name of a partial file
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets evaluate cells that start with these characters


@contextlib.contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces the file at the end of the context.

    The path is in the same folder. After an error or an interruption, the old file, if any, is kept and the temporary
    file is removed.

    Args:
        file: File to create or replace; its folder must exist.
    """
    with scratch(file) as partial:
        yield partial
        put_in_place(partial, file)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to a file or folder, which is removed at the end of the context.

    Temporary files of earlier processes that were killed are removed too.

    Args:
        path: File or folder to create.

    Raises:
        OSError: If something cannot be written. The error contains the name of `path`.
    """
    partial = beside(path)
    try:
        with naming(path):
            remove_leftovers(path)
            yield partial
    finally:
        _remove(partial)


def open_table(file: Path, mode: Literal["r", "w", "a"] = "w") -> TextIO:
    """Opens a CSV file; file names in it need not be valid UTF-8, for example if they come from other systems."""
    stream: TextIO = file.open(mode, newline="", encoding="utf-8", errors="surrogateescape")
    return stream


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Adds the file's name to write errors, because streams, torch and Pillow do not include it.

    Raises:
        OSError: With the file's name, instead of an error without a name or with the name of a partial file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):  # torch raises another error on closing a file
            cause = cause.__context__
        if cause is None or not cause.errno or not (cause.filename is None or _is_partial(cause.filename)):
            raise
        raise OSError(cause.errno, os.strerror(cause.errno), str(file)) from error


def _is_partial(name: object) -> bool:
    return any(part.endswith(PARTIAL) for part in Path(str(name)).parts)


def cell(text: str) -> str:
    """Returns a text as a table cell that spreadsheets do not evaluate as a formula.

    Names of files, folders and groups are untrusted: spreadsheets would evaluate one that starts with `=`. A space is
    put before it, which this package's readers of tables strip.
    """
    return f" {text}" if text.startswith(FORMULA) else text


def path_cell(path: str) -> str:
    """Returns a path as such a cell; it can still be opened, for example `./=a.png`."""
    return os.path.join(".", path) if path.startswith(FORMULA) else path


def allocate(stream: BinaryIO, size: int) -> None:
    """Reserves the disk space of a file: a memory-mapped file would crash the process when the disk is full.

    Raises:
        OSError: If the disk has too little space.
    """
    stream.truncate(size)
    stream.flush()
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems without support
                raise


def is_file_name(text: str) -> bool:
    """Returns whether a text is a valid name of a file or folder: not a path, not "..", not empty, not too long."""
    try:
        length = len(text.encode("utf-8", "surrogateescape"))  # for any locale
    except UnicodeEncodeError:
        return False
    return 0 < length <= NAME_BYTES and text not in (".", "..") and not {"/", "\\", "\0"} & set(text)


def short_name(name: str, most: int = NAME_BYTES) -> str:
    """Shortens names that are too long for file systems to a digest and their end.

    Args:
        name: Name of a file.
        most: Maximum length in bytes.
    """
    if len(os.fsencode(name)) <= most:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    end = name[-most:]
    while len(os.fsencode(end)) > most - len(digest) - 1:
        end = end[1:]
    return f"{digest}_{end}"


def short_text(text: object, most: int = 100) -> str:
    """Converts any text to one short line of printable characters, for messages."""
    line = "".join(part if part.isprintable() else " " for part in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[:most]}..."


def put_in_place(partial: Path, file: Path) -> None:
    """Replaces a file by a partial file on the same disk, after syncing its content to survive a power failure."""
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)


def atomic_link(link: Path, target: str) -> None:
    """Creates a symbolic link, or atomically changes the target of an existing one."""
    partial = beside(link)
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def beside(path: Path) -> Path:
    """Returns a hidden path in the same folder that is unique among calls, processes and machines."""
    mark = f"{_machine()}-{os.getpid()}-{next(NUMBERS)}"
    return path.with_name(f".{short_name(path.name, PARTIAL_BYTES)}.{mark}{PARTIAL}")


def remove_leftovers(path: Path) -> None:
    """Removes partial files of killed processes: those of this machine at once, others after a day."""
    for partial in path.parent.glob(f".{glob.escape(short_name(path.name, PARTIAL_BYTES))}.*{PARTIAL}"):
        machine, _, rest = partial.name.removesuffix(PARTIAL).rpartition(".")[2].partition("-")
        with contextlib.suppress(OSError):  # already removed
            if (
                machine == _machine() and _is_over(rest.partition("-")[0])
            ) or time.time() - partial.lstat().st_mtime > DAY:
                _remove(partial)


@functools.cache
def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode(errors='replace')):08x}"


def _is_over(process: str) -> bool:
    """Returns whether it is certain that no process has this ID."""
    if os.name != "posix":  # on other systems, `os.kill` would end the process
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # a process of another user, or not a number
        return False
    return False


def _remove(partial: Path) -> None:
    """Removes a file or folder as far as possible."""
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):  # the folder is gone or no longer writable
        partial.unlink(missing_ok=True)
