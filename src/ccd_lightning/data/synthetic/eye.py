"""A healthy right eye's fundus: disc and cup, vessel arcades, macula, choroid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ccd_lightning.data.synthetic.noise import Floats, blur, colour, fractal, grid, noise, ramp
from ccd_lightning.data.synthetic.strokes import Habit, Points, Strokes, tree

GROUNDS = np.array([[0.86, 0.42, 0.21], [0.62, 0.33, 0.19], [0.84, 0.40, 0.30], [0.80, 0.50, 0.24]], dtype=np.float32)
VEIN, ARTERY = colour(0.42, 0.66, 0.56), colour(0.16, 0.50, 0.52)  # fractions of red, green and blue that they absorb
RIM, HOLLOW = colour(0.98, 0.66, 0.38), colour(1.0, 0.91, 0.68)


@dataclass(frozen=True)
class Oval:
    """An upright ellipse with a notch.

    Attributes:
        x: Centre, to the right.
        y: Centre, down.
        radius: Horizontal radius.
        stretch: Ratio of the vertical to the horizontal radius.
        notch: How far it bulges at `notch_angle`, in radii.
        notch_angle: Direction of the notch in radians.
    """

    x: float
    y: float
    radius: float
    stretch: float
    notch: float = 0.0
    notch_angle: float = 0.0

    def distance(self, eye: Eye) -> Floats:
        """Returns the distance from the centre in radii, (S, S)."""
        dx, dy = eye.x - np.float32(self.x), (eye.y - np.float32(self.y)) / np.float32(self.stretch)
        distance = np.sqrt(dx * dx + dy * dy) / np.float32(self.radius)
        if self.notch:
            facing = (dx * math.cos(self.notch_angle) + dy * math.sin(self.notch_angle)) / np.float32(self.radius)
            distance = distance / (1 + self.notch * ramp(facing / np.maximum(distance, 1e-3), 0.6, 1.0))
        return np.asarray(distance, dtype=np.float32)


class Eye:
    """A healthy right eye, with the disc to the right of the macula.

    Attributes:
        reach: Radius of the photographed circle. `cut` limits it above and below.
        field: Where the picture is not black, (S, S) in [0, 1].
        ground: Colour of the retina without vessels, (S, S, 3).
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self.x, self.y = grid(size)
        self.reach = rng.uniform(0.90, 0.98)
        self.cut = rng.uniform(0.78, 0.92) if rng.random() < 0.35 else 1.1
        outside = np.maximum(np.sqrt(self.x**2 + self.y**2) - self.reach, np.abs(self.y) - self.cut)
        self.field = ramp(outside, 0.012, -0.012)
        x, y = 0.42 + rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)
        self.disc = Oval(x, y, rng.uniform(0.155, 0.195), rng.uniform(1.03, 1.16))
        ratio = rng.uniform(0.22, 0.48)
        shift = rng.normal(0, 0.05, 2) * self.disc.radius * (1 - ratio)
        stretch = self.disc.stretch * rng.uniform(0.92, 1.04)
        self.cup = Oval(x + shift[0], y + shift[1], self.disc.radius * ratio, stretch)
        self.macula = (x - rng.uniform(0.60, 0.72), y + rng.uniform(0.02, 0.12))
        self.focus = rng.uniform(0.002, 0.008)
        self.light = self._light(rng)
        self.tint = colour(0.8, rng.uniform(1.0, 1.3), rng.uniform(1.0, 1.5))
        self.ground = self._ground(rng)
        self.veins, self.arteries = self._vessels(rng)
        self.pallor = np.float32(rng.uniform(0.86, 1.04))
        self.temporal = rng.uniform(0, 0.35)
        self.depth = rng.uniform(0.5, 0.85)

    def _light(self, rng: np.random.Generator) -> Floats:
        tilt, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
        light = 1 + slope * (self.x * math.cos(tilt) + self.y * math.sin(tilt))
        light = light - rng.uniform(0.1, 0.42) * (self.x**2 + self.y**2) + 0.05 * noise(rng, self.size, 3)
        haze = rng.uniform(0, 0.25) * ramp(np.sqrt(self.x**2 + self.y**2), self.reach - 0.25, self.reach)
        light = rng.uniform(0.85, 1.1) * (light + haze * ramp(self.x * math.cos(tilt) - self.y, 0, 0.8))
        return np.asarray(np.clip(light, 0.08, 1.3), dtype=np.float32)

    def _ground(self, rng: np.random.Generator) -> Floats:
        base = rng.dirichlet(np.full(4, 0.8)).astype(np.float32) @ GROUNDS
        base = base * np.float32(rng.uniform(0.9, 1.06)) + rng.normal(0, 0.015, 3).astype(np.float32)
        choroid = 1 - 1.6 * ramp(np.abs(noise(rng, self.size, int(rng.integers(9, 14)))), 0.1, 0.9)  # its vessels
        choroid = rng.uniform(0, 1) ** 2 * 0.05 * choroid * ramp(noise(rng, self.size, 3), -0.8, 0.8)
        grain = rng.uniform(0.012, 0.03) * fractal(rng, self.size, 14, 3, 0.8)
        pigment = rng.uniform(0.01, 0.045) * noise(rng, self.size, 4)
        texture = colour(0.5, 1.0, 0.7) * (choroid + grain)[..., None] + colour(0.4, 1.0, 0.8) * pigment[..., None]
        away = (self.x - np.float32(self.macula[0])) ** 2 + (self.y - np.float32(self.macula[1])) ** 2
        wide, narrow = rng.uniform(0.16, 0.27), rng.uniform(0.05, 0.09)
        dark = rng.uniform(0.18, 0.42) * np.exp(-away / wide**2) + rng.uniform(0.06, 0.2) * np.exp(-away / narrow**2)
        reflex = max(0.0, rng.uniform(-0.15, 0.25)) * np.exp(-away / 0.018**2)
        macular = 1 - dark[..., None] * colour(0.55, 0.9, 0.9) + reflex[..., None]
        edge = self.disc.distance(self)
        crescent = rng.uniform(-0.12, 0.12) * ramp(edge, 1.45, 1.0) * ramp(self.disc.x - self.x, -0.1, 0.15)
        sheen = rng.uniform(0, 0.10) * ramp(edge, 3.2, 1.0) * np.abs(self.y - np.float32(self.disc.y)) * 2
        return np.asarray((base + texture) * macular * (1 + crescent + sheen)[..., None], dtype=np.float32)

    def _vessels(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Returns how much of each pixel the veins and the arteries cover, (S, S) each."""
        sheets = []
        for width, ink in ((rng.uniform(0.030, 0.042), 0.9), (rng.uniform(0.022, 0.030), 0.85)):
            strokes = Strokes(self.size)
            habit = Habit(bend=rng.uniform(0.3, 0.6), spread=rng.uniform(0.5, 0.9), shrink=0.72, ink=ink)
            for side in (-1, 1):
                self._arcade(rng, strokes, side, width, habit)
                heading = side * rng.uniform(0.4, 1.2)
                tree(rng, strokes, self._hilum(rng, side), heading, rng.uniform(0.25, 0.4), 0.6 * width, 1, habit)
            for _ in range(rng.integers(1, 3)):  # small vessels towards the macula
                heading = np.pi + rng.uniform(-0.5, 0.5)
                tree(rng, strokes, self._hilum(rng, 0), heading, rng.uniform(0.2, 0.35), 0.4 * width, 1, habit)
            sheets.append(blur(strokes.picture(), 0.004))
        return sheets[0], sheets[1]

    def _hilum(self, rng: np.random.Generator, side: int) -> tuple[float, float]:
        """Returns where vessels leave the disc: slightly nasal of its centre."""
        spot = rng.normal(0, 0.06, 2) * self.disc.radius
        return self.disc.x + 0.12 * self.disc.radius + spot[0], self.disc.y + side * 0.2 * self.disc.radius + spot[1]

    def _arcade(self, rng: np.random.Generator, strokes: Strokes, side: int, width: float, habit: Habit) -> None:
        """Draws a main vessel that leaves the disc upwards (side -1) or downwards and bends around the macula."""
        points = self._path(rng, side)
        strokes.curve(points, width, 0.3 * width, habit.ink)
        for index in range(int(rng.integers(3, 6)), len(points) - 2, int(rng.integers(3, 6))):
            along = points[index + 1] - points[index]
            ahead = math.atan2(along[1], along[0])
            outward = rng.random() < 0.6
            turn = side * rng.uniform(0.5, 1.0) * (1 if outward else -1)
            heading = ahead + (turn if math.sin(ahead + turn) * side * (1 if outward else -1) > 0 else -turn)
            thin = width * (0.6 - 0.3 * index / len(points))
            start = (float(points[index, 0]), float(points[index, 1]))
            tree(rng, strokes, start, heading, rng.uniform(0.2, 0.34), thin, 2 if rng.random() < 0.35 else 1, habit)

    def _path(self, rng: np.random.Generator, side: int) -> Points:
        share = np.linspace(0, 1, 18)
        length, bow, turn = rng.uniform(1.1, 1.5), rng.uniform(0.46, 0.64), rng.uniform(0.5, 0.72)
        start = self._hilum(rng, side)
        x = start[0] + 0.08 * np.sin(np.pi * np.minimum(2.2 * share, 1)) - length * share**1.5
        y = start[1] + side * bow * np.sin(np.pi * share * turn)
        wiggle = np.cumsum(rng.normal(0, 0.009, (18, 2)), axis=0)
        wiggle[0] = 0
        return np.stack([x, y], axis=1) + wiggle

    def paint(self, ground: Floats, cup: Oval) -> Floats:
        """Paints disc, cup and vessels on the ground, (S, S, 3), evenly lit."""
        inside = ramp(self.disc.distance(self), 1.06, 0.92)[..., None]
        hollow = ramp(cup.distance(self), 1.06, 0.88)[..., None]
        pale = self.temporal * ramp(self.disc.x - self.x, -0.1, 0.1)[..., None]
        rim = 0.3 * ground + 0.72 * self.pallor * (RIM + pale * (HOLLOW - RIM))
        picture = ground + inside * (rim - ground)
        picture = picture + self.depth * hollow * (HOLLOW * self.pallor - picture)
        seen = 1 - 0.4 * hollow
        picture = picture * (1 - (self.arteries[..., None] * seen) * ARTERY)
        return np.asarray(picture * (1 - (self.veins[..., None] * seen) * VEIN), dtype=np.float32)

    def photograph(self, picture: Floats) -> Floats:
        """Returns the picture as the camera sees it, (S, S, 3) in [0, 1]."""
        lit = np.exp(np.log(self.light)[..., None] * self.tint) * self.field[..., None]
        return np.asarray(blur(picture, self.focus) * lit, dtype=np.float32)
