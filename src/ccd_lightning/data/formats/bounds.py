"""How much one file may ask for: checked from its header, before memory is taken."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ccd_lightning.errors import UserError
from ccd_lightning.memory import available_memory, require
from ccd_lightning.reading import check_regular

MAX_BYTES = 1 << 31  # of what one file is unpacked to
WAY_OUT = "Export it at a smaller size, or divide it into several files."


def max_pixels() -> int:
    """The most pixels that one image may have: Pillow's own limit, twice `Image.MAX_IMAGE_PIXELS`."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)


def require_pixels(path: Path, width: int, height: int) -> None:
    """Refuses an image of more pixels than `max_pixels`, or of none.

    Raises:
        UserError: If it has.
    """
    if width < 1 or height < 1:
        raise UserError(f"{path}: {width} x {height} pixels in its header. Replace or remove this file.")
    if width * height > max_pixels():
        raise UserError(
            f"{path}: {width} x {height} pixels, but no more than {max_pixels():,} are decoded at once. {WAY_OUT}"
        )


def require_bytes(path: Path, needed: int, packed: int | None = None) -> None:
    """Refuses what would be unpacked to more than `MAX_BYTES`, or to more than the memory that is there.

    Args:
        path: The file, for messages.
        needed: Bytes of its pixels, as its header states them.
        packed: Size of the file, where that says how many bytes there can be; None where it does not.

    Raises:
        UserError: If it would, or if its file is too small to hold as many.
    """
    if packed is not None and needed > packed:
        raise UserError(
            f"{path}: its header states {needed:,} bytes of pixels, more than the file can hold. The file is truncated"
            " or damaged; replace it."
        )
    if needed > MAX_BYTES:
        raise UserError(f"{path}: {needed:,} bytes of pixels, but no more than {MAX_BYTES:,} are read. {WAY_OUT}")
    require(needed, available_memory(), f"{path}: its pixels in memory", WAY_OUT)


def require_regular(path: Path) -> None:
    """Refuses what is no regular file, such as a pipe, a device or a folder, before it is opened.

    Raises:
        UserError: If it is none, or is not there.
    """
    try:
        check_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Replace or remove it.") from error
