"""Writing files so that a reader finds all of a file or none of it."""

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
NAME_BYTES = 255  # of a file name, at most, on all usual file systems
PARTIAL_BYTES = 200  # of it, in the name of a file that is not whole yet
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a cell begins that spreadsheets compute


@contextlib.contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A path to write to, which replaces the file once everything is written.

    The path is in the same folder. An error or an interruption leaves the old file, or none, and removes what was
    written so far.

    Args:
        file: The file to make or to replace; its folder exists.
    """
    with scratch(file) as partial:
        yield partial
        put_in_place(partial, file)


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A path beside a file or folder to make, for what is not whole yet; in the end, nothing is left there.

    What earlier processes left there is removed, if they were killed.

    Args:
        place: The file or folder to make.

    Raises:
        OSError: With this name, if something cannot be written.
    """
    partial = beside(place)
    try:
        with naming(place):
            remove_leftovers(place)
            yield partial
    finally:
        _remove(partial)


def open_table(file: Path, mode: Literal["r", "w", "a"] = "w") -> TextIO:
    """Opens a CSV file; names of files in it are bytes that need not be UTF-8, as in archives from other systems."""
    stream: TextIO = file.open(mode, newline="", encoding="utf-8", errors="surrogateescape")
    return stream


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Names a file that cannot be written: streams, and torch and Pillow, which write to them, do not say which it was.

    Raises:
        OSError: With the file's name, in the place of one without a name or with that of a partial file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):  # torch raises another error while it closes a file
            cause = cause.__context__
        if cause is None or not cause.errno or not (cause.filename is None or _is_partial(cause.filename)):
            raise
        raise OSError(cause.errno, os.strerror(cause.errno), str(file)) from error


def _is_partial(name: object) -> bool:
    return any(part.endswith(PARTIAL) for part in Path(str(name)).parts)


def cell(text: str) -> str:
    """A text as a cell of a table that spreadsheets do not take for a formula.

    Names of files, folders and groups are not ours: one that begins with `=` would be computed when the table is
    opened. A space is put before it, which readers of the project's tables strip.
    """
    return f" {text}" if text.startswith(FORMULA) else text


def path_cell(path: str) -> str:
    """The same of a path, which stays one that can be opened: `./=a.png`."""
    return os.path.join(".", path) if path.startswith(FORMULA) else path


def allocate(stream: BinaryIO, size: int) -> None:
    """Makes a file as long as it will be: a mapped one on a disk that fills up would end the process without a word.

    Raises:
        OSError: If the disk has no room for it.
    """
    stream.truncate(size)
    stream.flush()
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of file systems that cannot say
                raise


def is_file_name(text: str) -> bool:
    """Whether a text can be the name of a file or folder, which stays where it is put: no path, not "..", not empty."""
    try:
        length = len(text.encode("utf-8", "surrogateescape"))  # whatever the locale is
    except UnicodeEncodeError:
        return False
    return 0 < length <= NAME_BYTES and text not in (".", "..") and not {"/", "\\", "\0"} & set(text)


def short_name(name: str, most: int = NAME_BYTES) -> str:
    """A name that file systems take: of one that is too long, a digest and the end.

    Args:
        name: Of a file.
        most: Bytes that it may have.
    """
    if len(os.fsencode(name)) <= most:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    end = name[-most:]
    while len(os.fsencode(end)) > most - len(digest) - 1:
        end = end[1:]
    return f"{digest}_{end}"


def short_text(text: object, most: int = 100) -> str:
    """A text of any length and content for a message: one line of printable characters."""
    line = "".join(part if part.isprintable() else " " for part in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[:most]}..."


def put_in_place(partial: Path, file: Path) -> None:
    """Replaces a file by one on the same disk, whose content is there even if the power fails right after."""
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)


def atomic_link(link: Path, target: str) -> None:
    """Makes a symbolic link, or makes an existing one point to another target; other readers never miss it."""
    partial = beside(link)
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def beside(path: Path) -> Path:
    """A hidden path in the same folder that nobody else uses: no other call, process or machine."""
    mark = f"{_machine()}-{os.getpid()}-{next(NUMBERS)}"
    return path.with_name(f".{short_name(path.name, PARTIAL_BYTES)}.{mark}{PARTIAL}")


def remove_leftovers(place: Path) -> None:
    """Removes what killed processes left of a file or folder: those of this machine at once, others after a day."""
    for partial in place.parent.glob(f".{glob.escape(short_name(place.name, PARTIAL_BYTES))}.*{PARTIAL}"):
        machine, _, rest = partial.name.removesuffix(PARTIAL).rpartition(".")[2].partition("-")
        with contextlib.suppress(OSError):  # it is gone already
            if (
                machine == _machine() and _is_over(rest.partition("-")[0])
            ) or time.time() - partial.lstat().st_mtime > DAY:
                _remove(partial)


@functools.cache
def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode(errors='replace')):08x}"


def _is_over(process: str) -> bool:
    """Whether it is known that no process has this number."""
    if os.name != "posix":  # elsewhere, asking would end the process
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # it is another user's, or no number
        return False
    return False


def _remove(partial: Path) -> None:
    """Removes a file or folder, as far as that is possible."""
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):  # of a folder that has gone, or may no longer be written to
        partial.unlink(missing_ok=True)
