"""What both kinds of procedural images are painted with. Lengths are in half sides of the image: x, y in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A painted image (S, S, 3) uint8 and what in it is abnormal, (S, S) bool."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def grid(size: int) -> tuple[Floats, Floats]:
    """X (to the right) and y (down) of the pixels' centres, (S, S) each."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Smooth noise of unit variance or a little less with about `cells` bumps a side, (S, S)."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    step = size / (cells + 3)
    margin = size / cells  # leave out the border, where interpolation has no neighbours
    box = (margin / step, margin / step, cells + 3 - margin / step, cells + 3 - margin / step)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC, box=box))


def fractal(rng: np.random.Generator, size: int, cells: int, octaves: int, gain: float = 0.55) -> Floats:
    """A sum of noises, each twice as fine and `gain` times as strong as the one before, (S, S)."""
    layers = [gain**octave * noise(rng, size, cells * 2**octave) for octave in range(octaves)]
    return np.sum(layers, axis=0, dtype=np.float32)


def blur(picture: Floats, radius: float) -> Floats:
    """Gaussian blur; the radius (standard deviation) in half sides."""
    sigma = radius * picture.shape[0] / 2
    return gaussian_filter(picture, (sigma, sigma) + (0,) * (picture.ndim - 2), truncate=3.0)


def ramp(value: Floats, low: float, high: float) -> Floats:
    """0 below `low`, 1 above `high`, smooth in between; falling when low > high."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


class Strokes:
    """Tapered curves drawn at twice the resolution.

    Args:
        size: Of the picture they are for, in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.image = Image.new("L", (2 * size, 2 * size))
        self.draw = ImageDraw.Draw(self.image)

    def curve(self, points: npt.NDArray[np.float64], start: float, end: float, ink: int = 255) -> None:
        """Draws a curve through points (N, 2), its width going from `start` to `end`, both in half sides."""
        pixels = (points + 1) * self.size
        widths = np.linspace(start, end, len(points)) * self.size
        for one, two, width in zip(pixels[:-1], pixels[1:], widths, strict=False):
            self.draw.line([tuple(one), tuple(two)], fill=ink, width=max(1, round(width)))

    def picture(self) -> Floats:
        """What was drawn, (S, S) in [0, 1]."""
        small = self.image.resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32) / 255


def wander(
    rng: np.random.Generator, start: npt.ArrayLike, heading: float, length: float, bend: float, steps: int = 14
) -> npt.NDArray[np.float64]:
    """A curve that starts at a point into a direction (radians) and bends at random, (steps + 1, 2)."""
    turns = heading + np.cumsum(rng.normal(0, bend / np.sqrt(steps), steps))
    moves = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / steps
    return np.concatenate([[np.asarray(start, float)], np.asarray(start, float) + np.cumsum(moves, axis=0)])


def finish(rng: np.random.Generator, picture: Floats, grain: float) -> npt.NDArray[np.uint8]:
    """Adds the camera's grain and rounds (S, S, 3) in [0, 1] to uint8."""
    picture = picture + rng.normal(0, grain, picture.shape[:2]).astype(np.float32)[..., None]
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
