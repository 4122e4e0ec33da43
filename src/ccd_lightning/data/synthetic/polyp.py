"""Polyps on the wall of the colon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ccd_lightning.data.synthetic.noise import Floats, bump, noise, pits, ramp
from ccd_lightning.data.synthetic.wall import BLOOD, Surface, Wall


@dataclass(frozen=True)
class Grade:
    """How a polyp differs from the wall.

    Attributes:
        cover: Fraction of the vessels and folds below that is hidden, in [0, 1].
        relief: Contrast of its shading, 1 for a matt dome under the wall's lamp.
        pattern: Contrast of its pits.
        red: Range of how much more blood it contains than the wall, relative to a vessel.
        radius: Range of its radius, in half sides.
    """

    cover: float
    relief: float
    pattern: float
    red: tuple[float, float]
    radius: tuple[float, float]


GRADES = {
    "subtle": Grade(0.95, 0.80, 0.34, (0.02, 0.18), (0.16, 0.24)),
    "moderate": Grade(1.0, 0.95, 0.42, (0.06, 0.26), (0.18, 0.28)),
    "obvious": Grade(1.0, 1.10, 0.50, (0.12, 0.36), (0.20, 0.32)),
}
STEEP = {"flat": 0.5, "sessile": 0.8, "pedunculated": 0.9}


class Polyp:
    """A growth with a closed contour, shaded by the wall's lamp, with a surface of its own.

    Attributes:
        mask: Where it is visible, (S, S) bool. Nothing outside changes.
    """

    def __init__(self, rng: np.random.Generator, wall: Wall, grade: Grade) -> None:
        self.grade, self.size = grade, wall.size
        self.form = str(rng.choice(list(STEEP), p=[0.25, 0.5, 0.25]))
        radius = rng.uniform(*grade.radius) * (0.85 if self.form == "pedunculated" else 1.0)
        centre = _place(rng, wall, radius)
        tilt, ratio = rng.uniform(0, np.pi), rng.uniform(0.72, 1.0)
        dx, dy = wall.x - np.float32(centre[0]), wall.y - np.float32(centre[1])
        along = (dx * math.cos(tilt) + dy * math.sin(tilt)) / np.float32(radius)
        across = (dy * math.cos(tilt) - dx * math.sin(tilt)) / np.float32(radius * ratio)
        wobble = 1 + 0.07 * noise(rng, wall.size, 5) + 0.03 * noise(rng, wall.size, 11)
        self.head = np.asarray(np.sqrt(along**2 + across**2) * wobble, dtype=np.float32)
        self.slope = (dx / np.float32(radius), dy / np.float32(radius))
        toward = np.array([wall.lamp[0] - centre[0], wall.lamp[1] - centre[1], 0.9])
        self.light = toward / np.linalg.norm(toward)
        self.side = np.zeros_like(wall.x)
        self.stalk = self._stalk(rng, dx, dy, radius) if self.form == "pedunculated" else np.zeros_like(wall.x)
        self.side = np.clip(self.side, -1, 1)
        self.lobes = self._lobes(rng, radius)
        self.pits = pits(rng, wall.size, round(2 / rng.uniform(0.04, 0.06)))
        self.glint = noise(rng, wall.size, 26)
        self.red = np.float32(rng.uniform(*grade.red))
        self.soft = rng.uniform(0.76, 0.88)
        self.mask = ((self.head < 0.99) | (self.stalk > 0.1)) & (wall.field > 0.5)

    def _lobes(self, rng: np.random.Generator, radius: float) -> tuple[Floats, Floats]:
        """Returns how lobules tilt the surface to the right and down, (S, S) each, less so towards the rim."""
        height = noise(rng, self.size, max(4, round(2 / (rng.uniform(0.5, 0.8) * radius))))
        down, right = np.gradient(height, 2 / self.size)
        depth = np.float32(rng.uniform(0.03, 0.10) * radius) * ramp(self.head, 1.0, 0.6)
        return np.asarray(right * depth, dtype=np.float32), np.asarray(down * depth, dtype=np.float32)

    def _stalk(self, rng: np.random.Generator, dx: Floats, dy: Floats, radius: float) -> Floats:
        """Returns how much of each pixel the stalk covers, (S, S). It starts below the head and fades into the wall."""
        heading, width, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.28, 0.4) * radius, 1.9 * radius
        along = dx * np.float32(math.cos(heading)) + dy * np.float32(math.sin(heading))
        self.side = (dy * math.cos(heading) - dx * math.sin(heading)) / width
        flare = 1 + 0.5 * np.clip(along / length, 0, 1) ** 2
        return ramp(np.abs(self.side) / flare, 1.0, 0.8) * ramp(along, length, 0.4 * length) * (along > 0)

    def grow(self, wall: Wall) -> Surface:
        """Returns the wall with the polyp on it."""
        old, body = wall.surface, self.head < 0.85
        level = np.float32(old.shade[body].mean() if body.any() else 0.5)
        plain = old.albedo[body].mean(0) if body.any() else old.albedo.mean((0, 1))
        head = ramp(self.head, 0.94, self.soft)
        stalk = self.stalk * (1 - head)
        cover = self.grade.cover * np.maximum(head, stalk)
        relief, gloss, shadow = self._shading()
        nodules = np.float32(self.grade.pattern) * self.pits * head
        shade = old.shade + cover * (level - old.shade)
        shade = shade * (1 + head * relief + 0.3 * nodules) * (1 - shadow * (1 - stalk))
        shade = shade * (1 + stalk * np.float32(self.grade.relief) * (0.25 - 0.6 * self.side**2))
        albedo = old.albedo + cover[..., None] * (plain * (1 - self.red * BLOOD) - old.albedo)
        albedo = albedo * (1 + nodules[..., None] * BLOOD)  # pale pits in red tissue
        gloss = old.gloss * (1 - cover) + head * gloss * np.float32(self.grade.relief) * min(1.0, float(level))
        return Surface(np.clip(shade, 0, 1.4), np.clip(albedo, 0.02, 1), gloss)

    def _shading(self) -> tuple[Floats, Floats, Floats]:
        """Returns the head's relative brightness (zero mean), its highlight and its shadow at the foot, (S, S) each."""
        beam = self.light.astype(np.float32)
        length = np.maximum(np.sqrt(self.slope[0] ** 2 + self.slope[1] ** 2), 1e-3)
        scale = np.float32(STEEP[self.form]) * np.minimum(self.head, 0.98) / length
        right, down = self.slope[0] * scale + self.lobes[0], self.slope[1] * scale + self.lobes[1]
        up = np.sqrt(np.clip(1 - right**2 - down**2, 0.02, 1))
        lambert = np.clip(right * beam[0] + down * beam[1] + up * beam[2], 0.05, None)
        inside = self.head < 0.9
        relief = np.clip(lambert / (lambert[inside].mean() if inside.any() else 1) - 1, -0.55, 0.6)
        half = beam + np.array([0, 0, 1], dtype=np.float32)
        half = half / np.linalg.norm(half)
        mirror = right * half[0] + down * half[1] + up * half[2] + 0.010 * self.glint
        averted = np.clip(0.35 - (self.slope[0] * beam[0] + self.slope[1] * beam[1]) / length, 0, 1)
        foot = bump(self.head, 0.91, 0.07) * ramp(self.head, 1.0, 0.95)
        shadow = np.float32(0.6 * self.grade.relief) * foot * averted
        return np.float32(self.grade.relief) * relief, 0.75 * ramp(mirror, 0.990, 1.002), shadow


def _place(rng: np.random.Generator, wall: Wall, radius: float) -> tuple[float, float]:
    """Returns a centre in the visible field, outside the dark lumen."""
    best, score = (0.0, 0.0), -1.0
    for x, y in rng.uniform(-0.85, 0.85, (24, 2)).tolist():
        lit = min(1.0, math.dist((x, y), wall.lumen) / (0.6 * wall.depth + 0.6 * radius))
        reach = [(x + 0.8 * radius * a, y + 0.8 * radius * b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        seen = all(_visible(wall, *point) for point in reach)
        if lit * seen > score:
            best, score = (x, y), lit * seen
        if score >= 1:
            break
    return best


def _visible(wall: Wall, x: float, y: float) -> bool:
    column, row = int((x + 1) / 2 * wall.size), int((y + 1) / 2 * wall.size)
    return 0 <= column < wall.size and 0 <= row < wall.size and bool(wall.field[row, column] > 0.9)
