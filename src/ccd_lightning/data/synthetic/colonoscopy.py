"""Frames that look like colonoscopy: a lit, folded tube with vessels and highlights, and polyps on its wall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccd_lightning.data.synthetic.canvas import (
    Floats,
    Scene,
    Strokes,
    blur,
    finish,
    fractal,
    grid,
    noise,
    ramp,
    wander,
)

KINDS = ("polyp_subtle", "polyp_moderate", "polyp_obvious")


@dataclass(frozen=True)
class Grade:
    """How a polyp departs from the mucosa around it: dome height, pit pattern, colour, and radius."""

    height: float
    pits: float
    tint: float
    radius: tuple[float, float]


GRADES = {
    "polyp_subtle": Grade(0.45, 0.35, 0.25, (0.12, 0.20)),
    "polyp_moderate": Grade(0.75, 0.65, 0.5, (0.15, 0.26)),
    "polyp_obvious": Grade(1.1, 1.0, 0.8, (0.19, 0.32)),
}


def paint(kind: str, rng: np.random.Generator, size: int) -> Scene:
    """Paints a frame.

    What is normal in it is drawn before the polyp, so that the same generator gives the same frame without it.

    Args:
        kind: "good" or one of KINDS.
        rng: Source of all randomness.
        size: Side in pixels.
    """
    wall = _Wall(rng, size)
    camera = np.random.default_rng(rng.integers(2**63))
    polyp = _Polyp(rng, wall, GRADES[kind]) if kind != "good" else None
    height, albedo = wall.height, wall.albedo
    if polyp is not None:
        height, albedo = polyp.grow(height, albedo)
    picture = wall.light(height, albedo)
    image = finish(camera, picture * wall.field[..., None], grain=camera.uniform(0.004, 0.014))
    mask = polyp.mask if polyp is not None else np.zeros((size, size), bool)
    return Scene(image, mask)


class _Wall:
    """The inside of a healthy colon, as a height over the image plane and a colour."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self.x, self.y = grid(size)
        self.field = _aperture(rng, self.x, self.y)
        bend, angle = rng.uniform(0.0, 0.95), rng.uniform(0, 2 * np.pi)
        self.lumen = np.array([bend * np.cos(angle), bend * np.sin(angle)])
        self.warp = 0.16 * noise(rng, size, 3)
        dx, dy = self.x - self.lumen[0], self.y - self.lumen[1]
        self.distance = np.sqrt(dx * dx + dy * dy).astype(np.float32)
        self.height = self._folds(rng, np.arctan2(dy, dx)) + rng.uniform(0.01, 0.02) * fractal(rng, size, 10, 3)
        self.albedo = self._colour(rng)
        self.lamp = self.lumen * rng.uniform(-0.2, 0.3) + rng.normal(0, 0.15, 2)
        self.depth = rng.uniform(0.35, 0.8)
        self.gain = rng.uniform(1.05, 1.45)
        self.gloss = ramp(noise(rng, size, rng.integers(14, 26)) + 0.6 * noise(rng, size, 6), 1.3, 2.0)
        self.wet = rng.uniform(0.25, 1.0)
        self.focus = rng.uniform(0.002, 0.012)

    def _folds(self, rng: np.random.Generator, angle: Floats) -> Floats:
        lobes = rng.uniform(0.05, 0.16) * np.cos(3 * angle + rng.uniform(0, 2 * np.pi))
        phase = np.log(self.distance * (1 + lobes) + 0.12 + np.maximum(self.warp, -0.1))
        phase = phase * rng.uniform(1.1, 2.0) + rng.uniform(0, 1) + 0.10 * noise(rng, self.size, 4)
        crest = np.abs(np.mod(phase, 1.0) - 0.5) * 2  # 0 on the ridge of a fold, 1 between two folds
        ridge = np.exp(-((crest / rng.uniform(0.25, 0.5)) ** 2))
        present = ramp(noise(rng, self.size, 3), -1.1, 0.2)  # folds do not go all the way round
        folds: Floats = rng.uniform(0.07, 0.16) * ridge * present * ramp(self.distance, 0.05, 0.4)
        return folds

    def _colour(self, rng: np.random.Generator) -> Floats:
        base = np.array([0.88, 0.53, 0.42]) * rng.uniform(0.88, 1.12) + rng.normal(0, 0.035, 3)
        mottle = 0.05 * fractal(rng, self.size, 4, 3)
        redness = 0.06 * noise(rng, self.size, 3)
        albedo = base + mottle[..., None] + redness[..., None] * np.array([0.6, -0.7, -0.6])
        vessels = self._vessels(rng) * rng.uniform(0.4, 1.1)
        albedo *= 1 - vessels[..., None] * np.array([0.22, 0.55, 0.45])
        return np.asarray(np.clip(albedo, 0.02, 1.0), dtype=np.float32)

    def _vessels(self, rng: np.random.Generator) -> Floats:
        strokes = Strokes(self.size)
        for _ in range(rng.integers(4, 9)):
            heading = rng.uniform(0, 2 * np.pi)
            trunk = wander(rng, rng.uniform(-1.1, 1.1, 2), heading, rng.uniform(0.6, 1.5), 1.0)
            width = rng.uniform(0.014, 0.032)
            strokes.curve(trunk, width, 0.4 * width)
            for place in rng.integers(2, len(trunk) - 1, rng.integers(2, 5)):
                turn = heading + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
                strokes.curve(wander(rng, trunk[place], turn, rng.uniform(0.2, 0.6), 1.0, 8), 0.6 * width, 0.2 * width)
        return blur(strokes.picture(), 0.008)

    def light(self, height: Floats, albedo: Floats) -> Floats:
        """Shades a height and a colour by the lamp beside the camera: (S, S, 3) in [0, 1]."""
        slope_y, slope_x = np.gradient(height, 2 / self.size)
        toward_x, toward_y = self.lamp[0] - self.x, self.lamp[1] - self.y
        normal = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
        lamp = 1 / np.sqrt(toward_x**2 + toward_y**2 + 0.8)
        facing = np.clip((0.9 - slope_x * toward_x - slope_y * toward_y) * normal * lamp, 0, None)
        falling = 0.06 + 0.94 * ramp(self.distance + 0.5 * self.warp, 0.0, self.depth)  # dark where the tube goes on
        vignette = 1 - 0.38 * np.clip(self.x**2 + self.y**2, 0, 1.6)
        shade = self.gain * (0.25 + 0.75 * facing) * falling * vignette
        sparkle = self.wet * self.gloss * ramp(facing * falling, 0.55, 0.95)
        picture = albedo * shade[..., None] + 0.75 * sparkle[..., None]
        return blur(picture.astype(np.float32), self.focus)


class _Polyp:
    """A dome on the wall, its pit pattern and its colour."""

    def __init__(self, rng: np.random.Generator, wall: _Wall, grade: Grade) -> None:
        self.grade = grade
        centre = _place(rng, wall, grade)
        radius = rng.uniform(*grade.radius)
        ratio, angle = rng.uniform(0.7, 1.0), rng.uniform(0, np.pi)
        dx, dy = wall.x - centre[0], wall.y - centre[1]
        along, across = dx * np.cos(angle) + dy * np.sin(angle), (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
        wobble = 1 + 0.07 * noise(rng, wall.size, 6)
        self.distance = np.sqrt(along**2 + across**2) / radius * wobble
        self.mask = (self.distance < 1) & (wall.field > 0.5)
        self.radius = radius
        self.flatness = rng.uniform(0.7, 1.3)
        fine = round(2 / radius * rng.uniform(2.2, 3.2))
        self.pits = np.abs(noise(rng, wall.size, max(fine, 12))) - 0.6
        self.hue = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0)

    def grow(self, height: Floats, albedo: Floats) -> tuple[Floats, Floats]:
        """Adds the polyp to a height and a colour; nothing changes outside the mask's rim."""
        inside = ramp(self.distance, 1.06, 0.88)
        dome = np.sqrt(np.clip(1 - (self.distance / 1.05) ** 2, 0, 1)) ** self.flatness
        height = height * (1 - 0.6 * inside * self.grade.height) + self.grade.height * 0.75 * self.radius * dome
        crease = self.grade.height * np.exp(-(((self.distance - 0.97) / 0.07) ** 2))
        tint = 1 + self.grade.tint * self.hue * np.array([0.02, 0.10, 0.12])
        smooth = np.array([0.88, 0.53, 0.42]) * albedo.mean() / 0.61
        own = albedo + (smooth - albedo) * (0.45 * self.grade.pits * inside)[..., None]  # vessels fade on a polyp
        own = own * (1 + (tint - 1) * inside[..., None])
        own *= (1 + 0.22 * self.grade.pits * self.pits * inside)[..., None]
        own *= (1 - 0.2 * np.clip(crease, 0, 1))[..., None]
        return height.astype(np.float32), np.clip(own, 0.02, 1).astype(np.float32)


def _place(rng: np.random.Generator, wall: _Wall, grade: Grade) -> tuple[float, float]:
    """A place on the visible wall, away from the dark of the lumen."""
    weight = ((blur(wall.field, 0.1) > 0.97) & (wall.distance > 0.55 * wall.depth + 0.5 * grade.radius[1])).ravel()
    index = rng.choice(np.flatnonzero(weight) if weight.any() else np.arange(weight.size))
    return float(wall.x.flat[index]), float(wall.y.flat[index])


def _aperture(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """The lit field in the black margin: a square with cut corners, or a rounded one."""
    side, cut = rng.uniform(0.90, 0.98), rng.uniform(1.30, 1.62)
    dx, dy = np.abs(x - rng.normal(0, 0.01)), np.abs(y - rng.normal(0, 0.01))
    if rng.random() < 0.6:
        outside = np.maximum(np.maximum(dx, dy) - side, (dx + dy - cut) / np.sqrt(2))
    else:
        power = rng.uniform(4, 9)
        outside = (dx**power + dy**power) ** (1 / power) - side
    return ramp(outside.astype(np.float32), 0.012, -0.012)
