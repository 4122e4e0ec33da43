"""Vessels: tapered curves, and trees of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ccd_lightning.data.synthetic.noise import Floats

Points = npt.NDArray[np.float64]


class Strokes:
    """A canvas for curves, at twice the resolution.

    Args:
        size: Side of the final picture in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.image = Image.new("L", (2 * size, 2 * size))
        self.draw = ImageDraw.Draw(self.image)

    def curve(self, points: Points, start: float, end: float, ink: float = 1.0) -> None:
        """Draws a curve through points (N, 2). Its width changes from `start` to `end`, both in half sides.

        Lines thinner than the pen are drawn paler instead, so that a small picture looks like a large one.
        """
        pixels = ((points + 1) * self.size).tolist()
        count = len(pixels) - 1
        for index in range(count):
            width = (start + (end - start) * index / count) * self.size
            pen = max(1, round(width))
            shade = round(255 * ink * min(1.0, width / pen))
            self.draw.line(pixels[index] + pixels[index + 1], fill=shade, width=pen)

    def ring(self, x: float, y: float, radius: float, width: float, ink: float = 1.0) -> None:
        """Draws the outline of a circle."""
        left, top, right, bottom = (
            (value + 1) * self.size for value in (x - radius, y - radius, x + radius, y + radius)
        )
        pen = max(1, round(width * self.size))
        self.draw.ellipse((left, top, right, bottom), outline=round(255 * ink), width=pen)

    def picture(self) -> Floats:
        """Returns the drawing, (S, S) in [0, 1]."""
        small = self.image.resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32) / 255


def wander(
    rng: np.random.Generator, start: tuple[float, float], heading: float, length: float, bend: float, steps: int = 7
) -> Points:
    """Returns a curve from a point in a direction (radians) that bends at random, (steps + 1, 2)."""
    x, y = start
    points = [(x, y)]
    for turn in rng.normal(0, bend / math.sqrt(steps), steps).tolist():
        heading += turn
        x += math.cos(heading) * length / steps
        y += math.sin(heading) * length / steps
        points.append((x, y))
    return np.array(points)


@dataclass(frozen=True)
class Habit:
    """How a tree of vessels grows.

    Attributes:
        bend: Bend of each segment, in radians over its length.
        spread: Angle between the two branches of a fork, in radians.
        shrink: Width and length of a branch relative to its parent.
        ink: Darkness, in [0, 1].
    """

    bend: float = 0.6
    spread: float = 0.8
    shrink: float = 0.72
    ink: float = 1.0


def tree(
    rng: np.random.Generator,
    strokes: Strokes,
    start: tuple[float, float],
    heading: float,
    length: float,
    width: float,
    forks: int,
    habit: Habit,
) -> None:
    """Draws a vessel from a point in a direction (radians), which forks `forks` times."""
    points = wander(rng, start, heading, length, habit.bend)
    strokes.curve(points, width, habit.shrink * width, habit.ink)
    if forks == 0:
        return
    last = points[-1] - points[-2]
    ahead = math.atan2(last[1], last[0])
    share = rng.uniform(0.3, 0.7)
    for turn in (share * habit.spread, (share - 1) * habit.spread):
        reach = length * habit.shrink * rng.uniform(0.7, 1.2)
        tree(rng, strokes, tuple(points[-1]), ahead + turn, reach, habit.shrink * width, forks - 1, habit)
