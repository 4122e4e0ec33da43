"""Synthetic colonoscopy frames, with and without a polyp."""

from __future__ import annotations

import numpy as np

from ccd_lightning.data.synthetic.noise import Scene, finish
from ccd_lightning.data.synthetic.polyp import GRADES, Polyp
from ccd_lightning.data.synthetic.wall import Wall


def paint(anomaly_type: str, rng: np.random.Generator, size: int) -> Scene:
    """Paints a frame. The wall is drawn before the polyp, so the same generator gives the same wall without it.

    Args:
        anomaly_type: "good", or "polyp_" and a grade.
        rng: Generator of all random numbers.
        size: Side of the image in pixels.
    """
    wall = Wall(rng, size)
    camera = np.random.default_rng(rng.integers(2**63))
    surface = wall.surface
    mask = np.zeros((size, size), bool)
    if anomaly_type != "good":
        polyp = Polyp(rng, wall, GRADES[anomaly_type.removeprefix("polyp_")])
        surface, mask = polyp.grow(wall), polyp.mask
    return Scene(finish(camera, wall.photograph(surface), wall.field, camera.uniform(0.006, 0.018)), mask)
