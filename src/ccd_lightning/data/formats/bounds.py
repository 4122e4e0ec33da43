"""Limits on the size of a file's contents, checked from its header before memory is allocated."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ccd_lightning.errors import UserError
from ccd_lightning.memory import available_memory, require
from ccd_lightning.reading import check_regular

MAX_BYTES = 1 << 31  # maximum unpacked size of one file
ADVICE = "Export it at a smaller size, or divide it into several files."


def max_pixels() -> int:
    """Returns the maximum number of pixels per image: Pillow's own limit, twice `Image.MAX_IMAGE_PIXELS`."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)


def require_pixels(path: Path, width: int, height: int) -> None:
    """Checks that an image has at least one and at most `max_pixels` pixels.

    Raises:
        UserError: If it does not.
    """
    if width < 1 or height < 1:
        raise UserError(f"{path}: {width} x {height} pixels in its header. Replace or remove this file.")
    if width * height > max_pixels():
        raise UserError(
            f"{path}: {width} x {height} pixels, but no more than {max_pixels():,} are decoded at once. {ADVICE}"
        )


def require_bytes(path: Path, needed: int, packed: int | None = None) -> None:
    """Checks that unpacked pixels take at most `MAX_BYTES`, and no more than the available memory.

    Args:
        path: Path of the file, used in error messages.
        needed: Number of bytes of the pixels according to the header.
        packed: Maximum number of bytes that the file can hold. None if its size does not limit it.

    Raises:
        UserError: If they take more, or if the file is too small to contain them.
    """
    if packed is not None and needed > packed:
        raise UserError(
            f"{path}: its header states {needed:,} bytes of pixels, more than the file can hold. The file is truncated"
            " or damaged; replace it."
        )
    if needed > MAX_BYTES:
        raise UserError(f"{path}: {needed:,} bytes of pixels, but no more than {MAX_BYTES:,} are read. {ADVICE}")
    require(needed, available_memory(), f"{path}: its pixels in memory", ADVICE)


def require_regular(path: Path) -> None:
    """Checks that a path is a regular file, not a pipe, a device or a folder, before it is opened.

    Raises:
        UserError: If it is not a regular file, or does not exist.
    """
    try:
        check_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Replace or remove it.") from error
