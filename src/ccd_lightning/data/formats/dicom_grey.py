"""Grey values of DICOM images: their unit, their bit depth, and the windows stored in the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.data.formats.picture import Range, Window

MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


class Grey(NamedTuple):
    """How grey values are stored.

    Attributes:
        mode: Pillow mode of the values in their unit.
        full: Lowest and highest value that can be stored, in the unit. None for floating point.
        rescaled: Whether stored values are converted to the unit by slope and intercept or by a table.
    """

    mode: str
    full: Range | None
    rescaled: bool


def take_frame_tags(tags: Any, page: int) -> None:
    """Copies tags of one frame from the functional groups of a multi-frame file to where single images have them."""
    shared, own = tags.get("SharedFunctionalGroupsSequence"), tags.get("PerFrameFunctionalGroupsSequence")
    groups = [*(shared or [])[:1], *(own or [])[page : page + 1]]
    for macro in (group.get(name) for group in groups for name in MACROS):
        if macro:
            tags.update(macro[0])


def grey_of(tags: Any, pixels: str) -> Grey:
    """Determines the mode and the depth of grey values from the tags alone.

    Args:
        tags: Tags of the file, including those of the frame.
        pixels: Name of the element that contains the pixels.

    Raises:
        ValueError: If slope and intercept are not finite numbers.
    """
    if pixels != "PixelData":
        return Grey("F", None, _rescale(tags) is not None)
    if tags.BitsAllocated == 1:
        return Grey("1", (0, 1), False)
    if tags.get("ModalityLUTSequence"):
        return Grey("I;16", (0, 2.0 ** tags.ModalityLUTSequence[0].LUTDescriptor[2] - 1), True)
    low, high = stored_range(tags)
    rescale = _rescale(tags)
    if rescale is None:
        if (low, high) == (0, 255):
            return Grey("L", (low, high), False)
        return Grey("I;16" if low == 0 and high <= 0xFFFF else _mode(low, high), (low, high), False)
    slope, intercept = rescale
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    whole = slope.is_integer() and intercept.is_integer()
    return Grey(_mode(low, high) if whole else "F", (low, high), True)


def stored_range(tags: Any) -> Range:
    """Returns the lowest and the highest value that a stored pixel can have."""
    bits = int(tags.BitsStored)
    if not 0 < bits <= tags.BitsAllocated <= 64:
        raise ValueError("bits")
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if tags.PixelRepresentation else (0.0, 2.0**bits - 1)


def _mode(low: float, high: float) -> str:
    return "I" if low >= -(2**31) and high < 2**31 else "F"


def _rescale(tags: Any) -> tuple[float, float] | None:
    """Returns slope and intercept, or None if they change nothing."""
    if tags.get("RescaleSlope") is None or tags.get("RescaleIntercept") is None:
        return None
    slope, intercept = float(tags.RescaleSlope), float(tags.RescaleIntercept)
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError("rescale")
    return None if slope == 0 or (slope, intercept) == (1, 0) else (slope, intercept)


def padding(tags: Any, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Returns which stored pixels (height, width) are padding; None if there are none or the file defines none."""
    ends = [tags.get("PixelPaddingValue"), tags.get("PixelPaddingRangeLimit")]
    if not isinstance(ends[0], int):
        return None
    turn, (low, high) = 1 << int(tags.BitsAllocated), stored_range(tags)
    values = [end - turn if end > high else end + turn if end < low else end for end in ends if isinstance(end, int)]
    found: NDArray[np.bool_] = (stored >= min(values)) & (stored <= max(values))
    return found if found.any() else None


def windows_of(tags: Any) -> tuple[Window, ...]:
    """Returns the windows of a file: tables first, as in pydicom and in viewers, then centres and widths, in order."""
    found: list[Window] = []
    for source in (_tables, _linear):
        with suppress(ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # skips invalid windows
            found.extend(source(tags))
    return tuple(found)


def _linear(tags: Any) -> Iterator[Window]:
    """Reads windows by PS3.3 C.11.2.1.2 and .3. The width of LINEAR counts pixels, so both ends move in by a half."""
    centres, widths, names = (_several(tags.get(f"WindowCenter{what}" if what != "Width" else "WindowWidth"))
                              for what in ("", "Width", "WidthExplanation"))  # fmt: skip
    function = str(tags.get("VOILUTFunction") or "LINEAR").upper()
    for index, (centre, width) in enumerate(zip(map(float, centres), map(float, widths), strict=False)):
        name = str(names[index]) if index < len(names) else ""
        if function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        if math.isfinite(centre) and math.isfinite(width) and width >= 0:
            yield Window(centre - width / 2, centre + width / 2, name, function == "SIGMOID")


def _tables(tags: Any) -> Iterator[Window]:
    for item in tags.get("VOILUTSequence") or []:
        count, first, bits = item.LUTDescriptor
        count = count or 1 << 16
        data = item.LUTData
        if isinstance(data, bytes):
            kind = "u1" if len(data) == count else "<u2" if tags.original_encoding[1] else ">u2"
            data = np.frombuffer(data, kind)
        table = np.asarray(data, np.float64)[:count] / (2.0**bits - 1)
        if len(table) != count:
            raise ValueError("table")
        yield Window(first, first + count - 1, str(item.get("LUTExplanation") or ""), table=table.clip(0, 1))


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
