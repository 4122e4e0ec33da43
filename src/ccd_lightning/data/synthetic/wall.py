"""The inside of a healthy colon: a lit, folded tube with vessels, highlights and residual fluid."""

from __future__ import annotations

import math

import numpy as np

from ccd_lightning.data.synthetic.noise import (
    Floats,
    blur,
    bump,
    colour,
    fractal,
    grid,
    noise,
    ramp,
)
from ccd_lightning.data.synthetic.strokes import Habit, Strokes, tree

TISSUES = np.array([[0.95, 0.63, 0.56], [0.97, 0.62, 0.42], [0.88, 0.45, 0.38], [0.92, 0.70, 0.52]], dtype=np.float32)
BLOOD = colour(0.16, 0.52, 0.44)  # fractions of red, green and blue that a vessel absorbs


class Surface:
    """A surface: brightness (S, S), colour (S, S, 3) and specular reflection (S, S)."""

    def __init__(self, shade: Floats, albedo: Floats, gloss: Floats) -> None:
        self.shade, self.albedo, self.gloss = shade, albedo, gloss


class Wall:
    """The inside of a healthy colon.

    Attributes:
        field: Where the frame is not black margin, (S, S) in [0, 1].
        distance: Distance from the lumen, (S, S) in half sides.
        depth: Distance at which the wall is fully lit.
        lamp: Position of the lamp in front of the image, (2,).
        surface: Surface of the wall.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self.x, self.y = grid(size)
        self.field = _aperture(rng, self.x, self.y)
        bend, angle = 0.7 * math.sqrt(rng.uniform(0.005, 1)), rng.uniform(0, 2 * np.pi)
        self.lumen = (bend * math.cos(angle), bend * math.sin(angle))
        dx, dy = self.x - np.float32(self.lumen[0]), self.y - np.float32(self.lumen[1])
        self.distance = np.sqrt(dx * dx + dy * dy)
        self.depth = rng.uniform(0.4, 0.85)
        self.lamp = rng.normal(0, 0.25, 2) + 0.15 * np.array(self.lumen)
        self.tint = colour(1.0, rng.uniform(1.2, 1.5), rng.uniform(1.25, 1.6))  # light between folds becomes redder
        self.focus = rng.uniform(0.003, 0.010)
        shade = self._light(rng, np.arctan2(dy, dx))
        self.surface = Surface(shade, self._colour(rng), self._gloss(rng, shade))
        if rng.random() < 0.1:
            self._flood(rng)

    def _light(self, rng: np.random.Generator, angle: Floats) -> Floats:
        folds = self._folds(rng, angle)
        deep = 0.03 + 0.97 * ramp(self.distance * (1 + 0.12 * noise(rng, self.size, 3)), 0.02, self.depth)
        away = (self.x - np.float32(self.lamp[0])) ** 2 + (self.y - np.float32(self.lamp[1])) ** 2
        near = 1 - np.float32(rng.uniform(0.12, 0.3)) * np.minimum(away, 2.2)
        relief = fractal(rng, self.size, int(rng.integers(7, 13)), 3, 0.4) * np.float32(rng.uniform(0.0005, 0.002))
        slope_y, slope_x = np.gradient(relief, 2 / self.size)
        grazing = slope_x * np.float32(math.cos(self.lamp[0] * 9)) + slope_y * np.float32(math.sin(self.lamp[0] * 9))
        gain = np.float32(rng.uniform(0.82, 1.12))
        light = gain * deep * folds * near * np.clip(1 + grazing, 0.5, 1.6)
        return np.asarray(np.clip(light, 0, 1.4), dtype=np.float32)

    def _folds(self, rng: np.random.Generator, angle: Floats) -> Floats:
        """Returns haustral folds (S, S), each a bright crest with a dark area behind it."""
        three, two = rng.uniform(0.0, 0.16), rng.uniform(0.0, 0.14)
        lobes = three * np.cos(3 * angle + np.float32(rng.uniform(0, 7)))
        lobes = lobes + two * np.cos(2 * angle + np.float32(rng.uniform(0, 7)))
        warp = noise(rng, self.size, 3) * np.float32(0.10) + noise(rng, self.size, 6) * np.float32(0.025)
        along = np.log(np.maximum(self.distance * (1 + lobes) + warp * np.minimum(self.distance * 2, 1), 0) + 0.22)
        phase = along * np.float32(rng.uniform(1.4, 3.2)) + np.float32(rng.uniform(0, 1))
        behind = phase - np.floor(phase)  # 0 on a crest, towards 1 in the shadow of the next
        edge = rng.uniform(0.08, 0.2)
        lit = np.maximum((1 - behind) ** np.float32(rng.uniform(0.6, 1.4)), ramp(behind, 1 - edge, 1))
        present = ramp(noise(rng, self.size, 3), -1.0, 0.8)  # folds do not go all the way around
        crest = 0.08 * bump(behind, edge * 0.6, 0.10)
        return np.asarray(1 - present * (np.float32(rng.uniform(0.1, 0.3)) * (1 - lit) - crest), dtype=np.float32)

    def _colour(self, rng: np.random.Generator) -> Floats:
        base = rng.dirichlet(np.full(4, 0.7)).astype(np.float32) @ TISSUES
        base = base * np.float32(rng.uniform(0.9, 1.06)) + rng.normal(0, 0.02, 3).astype(np.float32)
        mottle = np.float32(rng.uniform(0.01, 0.025)) * fractal(rng, self.size, 5, 4, 0.7)
        redness = np.float32(0.05) * noise(rng, self.size, 3)
        albedo = base + mottle[..., None] + redness[..., None] * colour(0.2, -0.8, -0.7)
        vessels = self._vessels(rng) * np.float32(rng.uniform(0.7, 2.0))
        return np.clip(albedo * (1 - vessels[..., None] * BLOOD), 0.02, 1)

    def _vessels(self, rng: np.random.Generator) -> Floats:
        strokes = Strokes(self.size)
        for _ in range(rng.integers(2, 6)):
            position, heading = rng.uniform(-1, 1, 2), rng.uniform(0, 2 * np.pi)
            habit = Habit(rng.uniform(0.5, 1.0), rng.uniform(0.7, 1.3), 0.74, rng.uniform(0.7, 1.0))
            length, width = rng.uniform(0.3, 0.55), rng.uniform(0.024, 0.046)
            tree(rng, strokes, (position[0], position[1]), heading, length, width, 3, habit)
        return blur(strokes.picture(), rng.uniform(0.005, 0.01))

    def _gloss(self, rng: np.random.Generator, shade: Floats) -> Floats:
        """Returns highlights (S, S): small, clustered, where the wall is bright."""
        fine = noise(rng, self.size, int(rng.integers(22, 40))) + 0.9 * noise(rng, self.size, 6)
        wet = rng.uniform(0.45, 1.5)
        inner = ramp(self.x**2 + self.y**2, 0.95, 0.45)  # near the rim, the wall reflects the lamp away from the camera
        drops = ramp(fine, 3.3 - wet, 4.0 - wet)
        return np.asarray(drops * inner * ramp(shade, 0.45, 0.9), dtype=np.float32)

    def _flood(self, rng: np.random.Generator) -> None:
        """Adds a pool of residual fluid, often with bubbles."""
        down, level = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8)
        depth = self.x * np.float32(math.cos(down)) + self.y * np.float32(math.sin(down)) - np.float32(level)
        pool = ramp(depth + 0.15 * noise(rng, self.size, 4), 0.0, 0.05) * np.float32(rng.uniform(0.4, 0.8))
        murk = rng.uniform(0, 1)
        fluid = murk * colour(0.78, 0.66, 0.36) + (1 - murk) * colour(0.72, 0.60, 0.48)
        surface = self.surface
        surface.albedo = surface.albedo + pool[..., None] * (fluid - surface.albedo)
        if rng.random() < 0.6:
            strokes = Strokes(self.size)
            for _ in range(rng.integers(4, 30)):
                x, y = rng.uniform(-1, 1), rng.normal(level + 0.1, 0.12)
                where = (y * math.cos(down) - x * math.sin(down), y * math.sin(down) + x * math.cos(down))
                strokes.ring(*where, abs(rng.normal(0.02, 0.012)) + 0.012, 0.008, rng.uniform(0.3, 0.9))
            surface.gloss = np.maximum(surface.gloss, 0.5 * strokes.picture() * ramp(surface.shade, 0.2, 0.8))

    def photograph(self, surface: Surface) -> Floats:
        """Returns a surface as the camera sees it, (S, S, 3) in [0, 1]."""
        lit = np.maximum(surface.shade, 0.004)[..., None]
        picture = surface.albedo * np.exp(np.log(lit) * self.tint) + 0.7 * surface.gloss[..., None]
        return blur(np.asarray(picture, dtype=np.float32), self.focus) * self.field[..., None]


def _aperture(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Returns the lit field in the black margin: a square with cut corners, as shown by one make of endoscope."""
    side, cut = rng.uniform(0.945, 0.965), rng.uniform(1.50, 1.56)
    dx, dy = np.abs(x - np.float32(rng.normal(0, 0.005))), np.abs(y - np.float32(rng.normal(0, 0.005)))
    outside = np.maximum(np.maximum(dx, dy) - side, (dx + dy - cut) / math.sqrt(2))
    return ramp(np.asarray(outside, dtype=np.float32), 0.012, -0.012)
