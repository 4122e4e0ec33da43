"""Building blocks of both sets: smooth noise, ramps and blur. Lengths are in half sides of the image: x, y in [-1, 1].

Nothing is measured in pixels and no random number depends on the size, so a generator paints the same scene at every
size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

Floats = npt.NDArray[np.floating[Any]]  # float32 if large


@dataclass(frozen=True)
class Scene:
    """A painted image (S, S, 3) uint8 and the mask of its abnormal pixels, (S, S) bool."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def grid(size: int) -> tuple[Floats, Floats]:
    """Returns x (to the right) and y (down) of the pixel centres, (S, S) each."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Returns smooth noise (S, S) of about unit variance with `cells` independent values per side."""
    coarse = rng.standard_normal((cells + 4, cells + 4)).astype(np.float32)
    box = (2.0, 2.0, cells + 2.0, cells + 2.0)  # leave out the border, where interpolation has no neighbours
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(smooth, dtype=np.float32) * np.float32(1.25)  # interpolation removes a fifth of the deviation


def fractal(rng: np.random.Generator, size: int, cells: int, octaves: int, gain: float = 0.55) -> Floats:
    """Sums noises, each twice as fine and `gain` times as strong as the one before, (S, S)."""
    total = noise(rng, size, cells)
    for octave in range(1, octaves):
        total = total + np.float32(gain**octave) * noise(rng, size, cells * 2**octave)
    return total


def pits(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Returns the surface of a growth, round pits or winding tubes, of about zero mean within [-1, 1], (S, S)."""
    surface = noise(rng, size, cells)
    if rng.random() < 0.5:
        return 1.4 * ramp(surface, -0.3, 1.5) - np.float32(0.45)
    return 0.7 - 1.3 * ramp(np.abs(surface), 0.0, 1.3)


def blur(picture: Floats, radius: float) -> Floats:
    """Applies a Gaussian blur to (S, S) or (S, S, 3). The radius (standard deviation) is in half sides."""
    sigma = radius * picture.shape[0] / 2
    if sigma < 0.2:
        return picture
    blurred = gaussian_filter(picture, (sigma, sigma) + (0,) * (picture.ndim - 2), truncate=2.5)
    return np.asarray(blurred, dtype=np.float32)


def ramp(value: Floats, low: float, high: float) -> Floats:
    """Smooth step: 0 below `low`, 1 above `high`; falling if low > high."""
    share = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def bump(value: Floats, centre: float, width: float) -> Floats:
    """Gaussian of a value: 1 at the centre, 0.37 at a distance of one width."""
    offset = (value - np.float32(centre)) * np.float32(1 / width)
    return np.asarray(np.exp(-offset * offset), dtype=np.float32)


def colour(*levels: float) -> Floats:
    """Returns red, green and blue as an array (3,)."""
    return np.array(levels, dtype=np.float32)


def finish(camera: np.random.Generator, picture: Floats, field: Floats, grain: float) -> npt.NDArray[np.uint8]:
    """Adds the camera's grain inside the visible field and rounds (S, S, 3) in [0, 1] to uint8."""
    speckle = camera.standard_normal(picture.shape[:2], dtype=np.float32) * np.float32(grain) * (0.15 + 0.85 * field)
    return np.asarray(np.clip(picture + speckle[..., None], 0, 1) * 255 + 0.5, dtype=np.float32).astype(np.uint8)
