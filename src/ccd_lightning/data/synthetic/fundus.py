"""Photographs that look like fundi of right eyes: disc, cup, vessel arcades and macula; lesions and enlarged cups."""

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

KINDS = ("lesion_subtle", "lesion_moderate", "lesion_obvious", "cup_subtle", "cup_moderate", "cup_obvious")
YELLOW, DARK_RED = np.array([0.22, 0.20, 0.06]), np.array([-0.30, -0.22, -0.10])
LESION_CONTRAST = {"subtle": 0.55, "moderate": 0.9, "obvious": 1.3}
LESION_SPOTS = {"subtle": (5, 8), "moderate": (8, 14), "obvious": (14, 24)}
CUP_RATIO = {"subtle": (0.60, 0.68), "moderate": (0.70, 0.78), "obvious": (0.80, 0.90)}


def paint(kind: str, rng: np.random.Generator, size: int) -> Scene:
    """Paints a photograph.

    What is normal in it is drawn before what is not, so that the same generator gives the same eye without it.

    Args:
        kind: "good" or one of KINDS.
        rng: Source of all randomness.
        size: Side in pixels.
    """
    eye = _Eye(rng, size)
    camera = np.random.default_rng(rng.integers(2**63))
    family, _, grade = kind.partition("_")
    cup, mask = eye.cup, np.zeros((size, size), bool)
    if family == "cup":
        ratio = rng.uniform(*CUP_RATIO[grade])
        cup = _Ellipse(eye.disc.x, eye.disc.y, eye.disc.radius * ratio, eye.disc.stretch * rng.uniform(1.0, 1.08))
        mask = (cup.distance(eye) < 1) & (eye.cup.distance(eye) >= 1)
    picture = eye.paint(cup)
    if family == "lesion":
        change, mask = _lesions(rng, eye, grade)
        picture = picture + change
    picture = blur(np.asarray(picture, dtype=np.float32), eye.focus)
    picture = picture * (eye.light * eye.field)[..., None]
    return Scene(finish(camera, picture, grain=camera.uniform(0.004, 0.012)), mask)


@dataclass(frozen=True)
class _Ellipse:
    """An upright ellipse: centre, horizontal radius, and how much taller than wide it is."""

    x: float
    y: float
    radius: float
    stretch: float

    def distance(self, eye: _Eye) -> Floats:
        """Distance from the centre in radii, (S, S)."""
        dx, dy = eye.x - self.x, (eye.y - self.y) / self.stretch
        return (np.sqrt(dx**2 + dy**2) / self.radius).astype(np.float32)


class _Eye:
    """A healthy right eye: the disc is to the right of the macula."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self.x, self.y = grid(size)
        radius = rng.uniform(0.90, 0.97)
        self.field = ramp(np.sqrt(self.x**2 + self.y**2), radius + 0.012, radius - 0.012)
        centre = np.array([0.46, -0.02]) + rng.uniform(-0.1, 0.1, 2)
        self.disc = _Ellipse(*centre, rng.uniform(0.135, 0.175), rng.uniform(1.02, 1.18))
        shift = rng.normal(0, 0.008, 2)
        ratio = rng.uniform(0.22, 0.5)
        self.cup = _Ellipse(*(centre + shift), self.disc.radius * ratio, self.disc.stretch * rng.uniform(0.95, 1.05))
        self.macula = centre + np.array([-rng.uniform(0.58, 0.68), rng.uniform(0.02, 0.12)])
        tilt = rng.uniform(0, 2 * np.pi)
        slope = rng.uniform(0, 0.22) * (self.x * np.cos(tilt) + self.y * np.sin(tilt))
        edge = rng.uniform(0.1, 0.4) * (self.x**2 + self.y**2)
        self.light = (rng.uniform(0.85, 1.15) * (1 + slope - edge + 0.05 * noise(rng, size, 3))).astype(np.float32)
        self.focus = rng.uniform(0.003, 0.011)
        self.ground = self._ground(rng)
        self.vessels = self._vessels(rng)
        self.rim = rng.uniform(0.8, 1.1)

    def _ground(self, rng: np.random.Generator) -> Floats:
        base = np.array([0.72, 0.34, 0.16]) * rng.uniform(0.85, 1.12) + rng.normal(0, 0.03, 3)
        choroid = rng.uniform(0.015, 0.05) * fractal(rng, self.size, 7, 3)
        pigment = 0.03 * noise(rng, self.size, 3)
        far = (self.x - self.macula[0]) ** 2 + (self.y - self.macula[1]) ** 2
        wide, narrow = rng.uniform(0.16, 0.26), rng.uniform(0.05, 0.09)
        macula = 0.30 * rng.uniform(0.5, 1.1) * np.exp(-far / wide**2) + 0.14 * np.exp(-far / narrow**2)
        ground = base + choroid[..., None] + pigment[..., None] * np.array([0.3, 1.0, 0.8])
        return np.asarray(ground * (1 - macula[..., None] * np.array([0.6, 0.9, 0.9])), dtype=np.float32)

    def _vessels(self, rng: np.random.Generator) -> Floats:
        """How much is absorbed, (S, S): veins more than arteries, both thinner away from the disc."""
        strokes = Strokes(self.size)
        for side in (-1, 1):
            for width, ink in ((rng.uniform(0.030, 0.040), 230), (rng.uniform(0.020, 0.028), 150)):
                self._arcade(rng, strokes, side, width, ink)
                nasal = rng.uniform(-0.25, 0.25) + side * rng.uniform(0.5, 1.0)
                strokes.curve(
                    wander(rng, self._on_disc(side), nasal, rng.uniform(0.35, 0.6), 0.5), 0.7 * width, 0.01, ink
                )
        for _ in range(rng.integers(2, 5)):  # small ones towards the macula
            heading = np.pi + rng.uniform(-0.5, 0.5)
            strokes.curve(wander(rng, self._on_disc(0), heading, rng.uniform(0.25, 0.45), 0.4), 0.014, 0.006, 120)
        return blur(strokes.picture(), 0.006)

    def _on_disc(self, side: int) -> tuple[float, float]:
        return self.disc.x, self.disc.y + side * 0.3 * self.disc.radius

    def _arcade(self, rng: np.random.Generator, strokes: Strokes, side: int, width: float, ink: int) -> None:
        """A main vessel that leaves the disc upwards (side -1) or downwards and bends round the macula."""
        share = np.linspace(0, 1, 24)
        reach, bow = rng.uniform(1.05, 1.45), rng.uniform(0.42, 0.62)
        x = self.disc.x + 0.06 * np.sin(np.pi * share) - reach * share**1.5
        y = self.disc.y + side * bow * np.sin(np.pi * np.minimum(share * rng.uniform(0.55, 0.72), 1))
        wiggle = np.cumsum(rng.normal(0, 0.006, (24, 2)), axis=0)
        points = np.stack([x, y], axis=1) + wiggle
        strokes.curve(points, width, 0.35 * width, ink)
        for place in range(4, 22, int(rng.integers(3, 5))):
            outward = np.arctan2(side, -0.8) + rng.normal(0, 0.35)
            heading = outward if rng.random() < 0.65 else -outward * 0.9
            branch = wander(rng, points[place], heading, rng.uniform(0.2, 0.5), 0.8, 10)
            strokes.curve(branch, 0.5 * width * (1 - place / 40), 0.15 * width, ink)

    def paint(self, cup: _Ellipse) -> Floats:
        """The photograph before light and camera, (S, S, 3)."""
        inside = ramp(self.disc.distance(self), 1.06, 0.92)[..., None]
        hollow = ramp(cup.distance(self), 1.08, 0.86)[..., None]
        rim = self.ground * 0.35 + self.rim * np.array([0.62, 0.43, 0.24]) * 0.85
        picture = self.ground + (rim - self.ground) * inside
        picture = picture + (np.array([0.98, 0.88, 0.66]) * self.rim - picture) * hollow * 0.8
        seen = (self.vessels * (1 - 0.35 * hollow[..., 0]))[..., None]
        return np.asarray(picture * (1 - seen * np.array([0.35, 0.62, 0.55])), dtype=np.float32)


def _lesions(rng: np.random.Generator, eye: _Eye, grade: str) -> tuple[Floats, np.ndarray]:
    """A cluster of exudates, haemorrhages or drusen: what it adds to the picture, and its mask."""
    sort = rng.choice(["exudates", "haemorrhages", "drusen"])
    allowed = (blur(eye.field, 0.12) > 0.97) & (eye.disc.distance(eye) > 2.2)
    place = rng.choice(np.flatnonzero(allowed))
    centre = np.array([eye.x.flat[place], eye.y.flat[place]])
    spread = {"exudates": 0.085, "haemorrhages": 0.07, "drusen": 0.10}[sort]
    radius = {"exudates": (0.014, 0.034), "haemorrhages": (0.022, 0.055), "drusen": (0.016, 0.03)}[sort]
    cover = np.zeros((eye.size, eye.size), np.float32)
    for _ in range(rng.integers(*LESION_SPOTS[grade])):
        x, y = centre + rng.normal(0, spread, 2)
        size, stretch, turn = rng.uniform(*radius), rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
        dx, dy = eye.x - x, eye.y - y
        along, across = dx * np.cos(turn) + dy * np.sin(turn), (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
        cover = np.maximum(cover, ramp(np.sqrt(along**2 + across**2) / size, 1.15, 0.75))
    cover = cover * (eye.field > 0.5)
    colour = DARK_RED if sort == "haemorrhages" else YELLOW * (0.7 if sort == "drusen" else 1.1)
    change = LESION_CONTRAST[grade] * cover[..., None] * colour
    return change.astype(np.float32), cover > 0.25
