"""Synthetic fundus photographs of right eyes: healthy, with lesions, and with enlarged cups."""

from __future__ import annotations

import numpy as np

from ccd_lightning.data.synthetic.eye import Eye, Oval
from ccd_lightning.data.synthetic.lesions import Lesions
from ccd_lightning.data.synthetic.noise import Scene, finish

CUP_RATIO = {"subtle": (0.56, 0.63), "moderate": (0.66, 0.74), "obvious": (0.80, 0.88)}  # healthy: 0.22 to 0.48


def paint(anomaly_type: str, rng: np.random.Generator, size: int) -> Scene:
    """Paints a photograph. The eye is drawn before its disease, so the same generator gives its healthy twin.

    Args:
        anomaly_type: "good", or "lesion_" or "cup_" and a grade.
        rng: Generator of all random numbers.
        size: Side of the image in pixels.
    """
    eye = Eye(rng, size)
    camera = np.random.default_rng(rng.integers(2**63))
    family, _, grade = anomaly_type.partition("_")
    ground, cup, mask = eye.ground, eye.cup, np.zeros((size, size), bool)
    if family == "cup":
        cup = _enlarged(rng, eye, grade)
        mask = (cup.distance(eye) < 1) & (eye.cup.distance(eye) >= 1) & (eye.field > 0.5)
    elif family == "lesion":
        lesions = Lesions(rng, eye, grade)
        ground, mask = lesions.tinge(ground), lesions.mask
    picture = eye.photograph(eye.paint(ground, cup))
    return Scene(finish(camera, picture, eye.field, camera.uniform(0.005, 0.014)), mask)


def _enlarged(rng: np.random.Generator, eye: Eye, grade: str) -> Oval:
    """Returns a glaucomatous cup: wider, taller, and in half of the eyes with a notch in the lower or upper rim."""
    ratio, disc = rng.uniform(*CUP_RATIO[grade]), eye.disc
    shift = rng.normal(0, 0.03, 2) * disc.radius
    notch = rng.uniform(0.10, 0.22) * (1 - ratio) / 0.3 if rng.random() < 0.5 else 0.0
    angle = rng.choice([1, -1], p=[0.7, 0.3]) * np.pi / 2 + rng.uniform(-0.6, 0.6)
    return Oval(disc.x + shift[0], disc.y + shift[1], disc.radius * ratio, disc.stretch, notch, float(angle))
