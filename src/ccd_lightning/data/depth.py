"""Conversion of grey values of more than 8 bits to 8 bits, using a window."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.formats.picture import Picture, Range, Window
from ccd_lightning.data.formats.pillow import SIXTEEN
from ccd_lightning.errors import UserError

WindowOption = Range | str | None  # two values, or a text that `parse_window` accepts; None for the percentiles DEFAULT
DEEP = (*SIXTEEN, "I", "F")
DEFAULT = (0.01, 99.99)  # percentiles of the training images' pixels
NARROW = 1 / 16  # fraction of a depth's range; an image that spans less has at most 15 grey levels in 8 bits
SPAN = 1 << 16  # maximum range of integers that are converted by a lookup table
FULL, STORED, PERCENTILE = "full", "stored", "percentile"
_PAIR = re.compile(r"(?:(percentile)\s*)?[\[(]\s*([^,\s]+)\s*[,\s]\s*([^,\s]+)\s*[\])]")
_FORMS = "'[LOW, HIGH]', 'percentile [0.5, 99.5]', full, stored, stored:NAME or null"


def parse_window(option: WindowOption) -> WindowOption:
    """Validates a window option and normalises its form.

    Args:
        option: Two values in the unit of the files, low < high; "percentile [LOW, HIGH]" for percentiles of the
            training images; "full" for the whole range of the file's bit depth; "stored" for the first window stored in
            a DICOM file, "stored:NAME" for the one with this name; None for the percentiles DEFAULT.

    Returns:
        The option, with two values given as text converted to a pair of numbers.

    Raises:
        UserError: If the option has none of these forms.
    """
    if option is None:
        return None
    if not isinstance(option, str):
        return _ordered(option, option, -math.inf, math.inf, "two finite numbers")
    text = option.strip()
    if text in ("null", "None"):
        return None
    if text in (FULL, STORED) or (text.startswith(f"{STORED}:") and text.partition(":")[2]):
        return text
    if not (found := _PAIR.fullmatch(text)):
        raise UserError(f"data.window is {option!r}, but must be one of {_FORMS}.")
    kind, *ends = found.groups()
    try:
        low, high = map(float, ends)
    except ValueError:
        raise UserError(f"data.window is {option!r}, but must be one of {_FORMS}.") from None
    if not kind:
        return _ordered((low, high), option, -math.inf, math.inf, "two finite numbers")
    _ordered((low, high), option, -1e-9, 100 + 1e-9, "two percentages from 0 to 100")
    return f"{PERCENTILE} [{low!r}, {high!r}]"


def _ordered(pair: Range, option: WindowOption, least: float, most: float, what: str) -> Range:
    low, high = pair
    if not least < low < high < most:
        shown = option if isinstance(option, str) else list(pair)
        raise UserError(f"data.window is {shown}, but must be {what}, low < high.")
    return float(low), float(high)


def percentiles(option: WindowOption) -> Range | None:
    """Returns which percentiles of the training images define the window, or None if it does not depend on them."""
    if option is None:
        return DEFAULT
    if isinstance(option, str) and (found := _PAIR.fullmatch(option)):
        return float(found[2]), float(found[3])
    return None


def describe_window(option: WindowOption) -> str:
    """Describes which grey values become black and white. Empty if the window is not known."""
    if isinstance(option, tuple):
        return f"grey values from {option[0]:g} to {option[1]:g} become 0 to 255"
    if option == FULL:
        return "all grey values that a file's depth can hold become 0 to 255"
    if isinstance(option, str) and option.startswith(STORED):
        name = option.partition(":")[2]
        return f"grey values are shown by the window that each file names{f' {name!r}' if name else ' first'}"
    return ""


def eight_bits(picture: Picture, path: Path, option: WindowOption = None) -> Image.Image:
    """Converts an image to 8 bits, using a window if it has more.

    8-bit images are not changed, except for DICOM images with padding, with bright low values, or for which the stored
    window is requested.

    Args:
        picture: The image.
        path: Path of the image, used in error messages.
        option: Window as in `parse_window`. None, or percentiles that were not measured, use the whole range of the
            bit depth.

    Raises:
        UserError: If the window is not known, or the image uses only a small part of the range of its bit depth.
    """
    image = picture.image
    if image.mode not in DEEP:
        window = _stored(picture, path, option) if image.mode == "L" and picture.windows else None
        if not picture.inverted and window is None and picture.missing is None:
            return image
        return shade(picture, window or Window(0, 255))
    return shade(picture, _window(picture, path, option))


def shade(picture: Picture, window: Window) -> Image.Image:
    """Maps grey values to 8 bits using a window. NaN and missing values become black, even in inverted images."""
    values = np.asarray(picture.image.convert("L") if picture.image.mode == "1" else picture.image)
    low, high = (int(values.min()), int(values.max())) if np.issubdtype(values.dtype, np.integer) else (0, SPAN)
    if high - low < SPAN:  # convert each distinct value once, which is faster
        shown = _levels(np.arange(low, high + 1), window, picture.inverted)[values - low]
    else:
        shown = _levels(values, window, picture.inverted)
    if picture.missing is not None:
        shown[picture.missing] = 0
    return Image.fromarray(shown)


def _levels(values: NDArray[np.generic], window: Window, inverted: bool) -> NDArray[np.uint8]:
    """Returns the grey levels, 0 to 255, of values of any shape."""
    shares = window.shares(values)
    if inverted:
        shares = 1 - shares
    if np.issubdtype(values.dtype, np.floating):
        shares[np.isnan(values)] = 0
    return np.rint(255 * shares).astype(np.uint8)


def own_window(picture: Picture) -> Window:
    """Returns the window from the smallest to the largest finite value of an image."""
    values = finite_values(picture)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    return Window(low, high if high > low else low + 1)


def finite_values(picture: Picture, box: tuple[int, int, int, int] | None = None) -> NDArray[np.generic]:
    """Returns the grey values (N,) of an image or of a box in it, without NaN, infinity and missing values."""
    values = np.asarray(picture.image)
    left, top, right, bottom = box or (0, 0, *picture.image.size)
    values = values[top:bottom, left:right]
    if picture.missing is not None:
        values = values[~picture.missing[top:bottom, left:right]]
    values = values.ravel()
    return values[np.isfinite(values)] if np.issubdtype(values.dtype, np.floating) else values


def _window(picture: Picture, path: Path, option: WindowOption) -> Window:
    """Returns the window for an image of more than 8 bits."""
    if isinstance(option, tuple):
        _refuse_other_scale(picture, path, option)
        return Window(*option)
    if stored := _stored(picture, path, option):
        return stored
    ways_out = f"Give a window with --data.window, as {_FORMS.rpartition(', full')[0]}"
    if picture.full is None:
        what = "integers of more than 16 bits, or with a sign" if picture.image.mode == "I" else "floating point"
        raise UserError(
            f"{path}: pixels of {what}, whose range is not known. {ways_out}, or export the image with 8 or 16 bits."
        )
    if option != FULL:
        _refuse_narrow(picture, path, picture.full, ways_out)
    return Window(*picture.full)


def _stored(picture: Picture, path: Path, option: WindowOption) -> Window | None:
    """Returns the file's window that the option selects, or None if the option does not ask for a stored window."""
    if not isinstance(option, str) or not option.startswith(STORED):
        return None
    name = option.partition(":")[2]
    for window in picture.windows:
        if not name or window.name.strip().casefold() == name.strip().casefold():
            return window
    what = f"no window {name!r}, of {len(picture.windows)}," if name else "no window"
    raise UserError(f"{path}: the file names {what} to show it by. Give values with --data.window '[LOW, HIGH]'.")


def _refuse_other_scale(picture: Picture, path: Path, limits: Range) -> None:
    """Raises an error if the file does not state the unit of its values and none of them lies within the window."""
    low, high = limits
    if picture.full is not None or picture.windows:
        return
    values = finite_values(picture).astype(np.float64)
    if not ((values >= low) & (values <= high)).any():
        raise UserError(
            f"{path}: no pixel has a value within data.window, {low:g} to {high:g}. Store the image at the scale of"
            " the training images."
        )


def _refuse_narrow(picture: Picture, path: Path, full: Range, ways_out: str) -> None:
    """Raises an error if an image of unknown window uses too little of the range of its bit depth."""
    values = finite_values(picture)
    low, high = (float(values.min()), float(values.max())) if values.size else (full[0], full[0])
    least = NARROW * (full[1] - full[0])
    if 0 < high - low < least or 0 < high - full[0] < least:
        raise UserError(
            f"{path}: {_depth(picture)}few values are used ({low:g} to {high:g}), and the window of the training images"
            f" is not known. {ways_out}, or full for all that the depth can hold, or export the image with 8 bits."
        )


def _depth(picture: Picture) -> str:
    return "16 bits of which " if picture.image.mode in SIXTEEN else "of all that the depth can hold, "
