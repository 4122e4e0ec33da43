"""Lesions of the retina: exudates, haemorrhages and drusen, each in clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ccd_lightning.data.synthetic.eye import Eye
from ccd_lightning.data.synthetic.noise import Floats, colour, noise, ramp


@dataclass(frozen=True)
class Sort:
    """A sort of lesion.

    Attributes:
        target: Colour of the lesion, or a factor of the ground's colour if `relative`.
        count: Range of the number of spots.
        radius: Range of a spot's radius, in half sides.
        spread: Size of the cluster, in half sides.
        rough: Irregularity of the outline.
        soft: Width of the edge, in radii.
        relative: Whether the lesion darkens the ground instead of covering it.
    """

    target: Floats
    count: tuple[int, int]
    radius: tuple[float, float]
    spread: float
    rough: float
    soft: float
    relative: bool = False


SORTS = {
    "exudates": Sort(colour(1.0, 0.88, 0.48), (14, 26), (0.016, 0.038), 0.16, 0.45, 0.3),
    "haemorrhages": Sort(colour(0.50, 0.22, 0.28), (7, 14), (0.028, 0.062), 0.17, 0.35, 0.35, relative=True),
    "drusen": Sort(colour(0.97, 0.74, 0.38), (24, 44), (0.018, 0.034), 0.17, 0.12, 0.7),
}
STRENGTH = {"subtle": 0.36, "moderate": 0.58, "obvious": 0.85}


class Lesions:
    """A cluster of lesions of one sort.

    Attributes:
        cover: Fraction of each pixel that they cover, (S, S) in [0, 1].
        mask: Where they are visible, (S, S) bool.
    """

    def __init__(self, rng: np.random.Generator, eye: Eye, grade: str) -> None:
        self.sort = SORTS[str(rng.choice(list(SORTS)))]
        self.strength = np.float32(STRENGTH[grade])
        centre = _place(rng, eye)
        rough = 1 + np.float32(self.sort.rough) * noise(rng, eye.size, 22)
        ring = rng.random() < 0.35  # a ring around a leak instead of a cluster
        self.cover = np.zeros((eye.size, eye.size), np.float32)
        for _ in range(rng.integers(*self.sort.count)):
            angle = rng.uniform(0, 2 * np.pi)
            far = self.sort.spread * (rng.uniform(0.85, 1.15) if ring else abs(rng.normal(0, 0.9)))
            spot = (centre[0] + far * math.cos(angle), centre[1] + far * math.sin(angle))
            self._add(rng, eye, spot, rough)
        self.cover *= eye.field * ramp(eye.disc.distance(eye), 1.1, 1.25)
        self.mask = self.cover > 0.12

    def _add(self, rng: np.random.Generator, eye: Eye, spot: tuple[float, float], rough: Floats) -> None:
        radius = rng.uniform(*self.sort.radius)
        ratio, turn = rng.uniform(0.55, 1.0), rng.uniform(0, np.pi)
        reach, half = 2.2 * radius, eye.size / 2
        left, top = (max(0, math.floor((coordinate - reach + 1) * half)) for coordinate in spot)
        right, bottom = (max(0, math.ceil((coordinate + reach + 1) * half)) for coordinate in spot)
        window = (slice(top, bottom), slice(left, right))
        dx, dy = eye.x[window] - np.float32(spot[0]), eye.y[window] - np.float32(spot[1])
        along = dx * math.cos(turn) + dy * math.sin(turn)
        across = (dy * math.cos(turn) - dx * math.sin(turn)) / ratio
        distance = np.sqrt(along**2 + across**2) / radius * np.clip(rough[window], 0.5, 1.6)
        drop = ramp(distance, 1 + self.sort.soft / 2, 1 - self.sort.soft / 2)
        self.cover[window] = np.maximum(self.cover[window], rng.uniform(0.65, 1.0) * drop)

    def tinge(self, ground: Floats) -> Floats:
        """Returns the ground with the lesions on it, (S, S, 3)."""
        target = self.sort.target * ground if self.sort.relative else self.sort.target
        return np.asarray(ground + (self.strength * self.cover)[..., None] * (target - ground), dtype=np.float32)


def _place(rng: np.random.Generator, eye: Eye) -> tuple[float, float]:
    """Returns a centre in the photographed field outside the disc, which is the same at every size."""
    for x, y in rng.uniform(-1, 1, (64, 2)).tolist():
        inside = math.hypot(x, y) < eye.reach - 0.2 and abs(y) < eye.cut - 0.15
        if inside and math.hypot(x - eye.disc.x, y - eye.disc.y) > 1.9 * eye.disc.radius:
            return x, y
    return eye.macula
