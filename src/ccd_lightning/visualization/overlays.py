"""Anomaly maps as pictures: coloured, overlaid on the original image, and as 16-bit PNG.

Figures, predictions, TensorBoard and exported files take their colours from here. `examples/score_onnx.py` cannot
import this module and repeats the code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from ccd_lightning.data.placement import Placement

COLOURS = "inferno"
Maps = NDArray[np.float32]
OPACITY = [min(round(0.75 * level**2 / 255), 128) for level in range(256)]  # at most half, to keep lesions visible
SHARE = 0.75  # fraction of the colours that are below the pixel threshold
OUTLINE, FRAME = (0, 255, 255), (160, 160, 160)
LABEL_FROM = 200  # px: minimum length of the shorter side; below it, text would hide the image


def scale_of(limits: tuple[float, float]) -> tuple[float, float]:
    """Returns the map's values at both ends of the colour scale, from the median to a third beyond the threshold.

    Args:
        limits: Median and threshold of the maps of normal images.
    """
    low, threshold = limits
    return low, low + (threshold - low) / SHARE


def palette() -> bytes:
    """Returns the colours of the 256 levels of a map, three bytes each."""
    return (255 * colormaps[COLOURS](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()


def map_levels(anomaly_map: Maps, ends: tuple[float, float]) -> Image.Image:
    """Converts a map (H, W) to 256 grey levels, from the lower to the upper end of the colour scale.

    NaN, as in the map of a training that diverged, gets the lowest level.
    """
    low, high = ends
    share = np.nan_to_num((anomaly_map - low) / (high - low or 1.0), nan=0.0).clip(0, 1)
    return Image.fromarray((255 * share).round().astype(np.uint8))


def colour_levels(levels: Image.Image) -> Image.Image:
    """Applies the colour scale to a map's levels, giving an RGB image."""
    colours = levels.copy()
    colours.putpalette(palette())
    return colours.convert("RGB")


def colour_map(anomaly_map: Maps, ends: tuple[float, float]) -> NDArray[np.uint8]:
    """Applies the colour scale to a map (H, W), giving (H, W, 3) in 0..255; see `map_levels`."""
    return np.asarray(colour_levels(map_levels(anomaly_map, ends)))


def draw_overlay(
    image: Image.Image, anomaly_map: Maps, placement: Placement, limits: tuple[float, float], label: str = ""
) -> Image.Image:
    """Overlays a map on its image, at the size of the image.

    The higher the map, the more opaque are the colours, up to one half. A line surrounds regions above the pixel
    threshold. A thin frame surrounds the part that was used, if it is not the whole image.

    Args:
        image: The original, RGB, of any size.
        anomaly_map: Anomaly map (H, W) of the working image.
        placement: Placement of the image in the working image.
        limits: Median and threshold of the maps of normal images.
        label: Text in the upper left corner, if the image is large enough.
    """
    image = image.copy()
    levels = placed_levels(anomaly_map, placement, limits)
    image.paste(colour_levels(levels), placement.source, levels.point(OPACITY))
    lines = draw_lines(levels, placement)
    image.paste(lines, mask=lines)
    if label and min(image.size) >= LABEL_FROM:
        _write(ImageDraw.Draw(image), label, max(10, min(image.size) // 32))
    return image


def placed_levels(anomaly_map: Maps, placement: Placement, limits: tuple[float, float]) -> Image.Image:
    """Returns the levels of a map (H, W), resized to the used part of the original; see `draw_overlay`."""
    left, top, right, bottom = placement.source
    x, y, x_end, y_end = placement.target
    levels = map_levels(anomaly_map[y:y_end, x:x_end], scale_of(limits))
    return levels.resize((right - left, bottom - top), Image.Resampling.BILINEAR)  # bilinear resizing raises no value


def draw_colours(levels: Image.Image, placement: Placement) -> Image.Image:
    """Returns the colours of `draw_overlay` as an RGBA layer for the original, with twice the opacity."""
    colours = colour_levels(levels)
    colours.putalpha(levels.point([255 * opacity // max(OPACITY) for opacity in OPACITY]))
    layer = Image.new("RGBA", placement.original)
    layer.paste(colours, placement.source)
    return layer


def draw_lines(levels: Image.Image, placement: Placement) -> Image.Image:
    """Returns the lines of `draw_overlay` as an RGBA layer for the original."""
    left, top, right, bottom = box = placement.source
    layer = Image.new("RGBA", placement.original)
    layer.paste(OUTLINE, box, rim(levels.point([255 * (level > 255 * SHARE) for level in range(256)])))
    if box != (0, 0, *placement.original):
        width = max(1, min(placement.original) // 400)
        ImageDraw.Draw(layer).rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=width)
    return layer


def rim(inside: Image.Image) -> Image.Image:
    """Returns the border of nonzero regions as a line that widens with the picture; none at the picture's edge."""
    width = max(1, min(inside.size) // 300)
    core = inside
    for _ in range(width):
        core = core.filter(ImageFilter.MinFilter(3))
    return ImageChops.subtract(inside, core)


def _write(draw: ImageDraw.ImageDraw, label: str, size: int) -> None:
    font: Any = ImageFont.load_default(size)
    corner = (size // 2, size // 2)
    left, top, right, bottom = draw.textbbox(corner, label, font=font)
    pad = size // 4
    draw.rectangle((left - pad, top - pad, right + pad, bottom + pad), fill="black")
    draw.text(corner, label, font=font, fill="white")
