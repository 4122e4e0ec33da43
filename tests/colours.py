"""How readers see colours: contrast, and distances under colour blindness."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

Colour = str | Sequence[float]
Floats = NDArray[np.float64]
# What is left of linear RGB: Machado, Oliveira and Fernandes, 2009, severity 1.0.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = "#ffffff"


def linear(colour: Colour) -> Floats:
    """Linear RGB of a colour, (3,) in [0, 1]."""
    rgb: Any = colour
    share = np.array(to_rgb(rgb), dtype=np.float64)
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(colour: Colour, vision: str = "normal") -> Floats:
    """CIELAB of a colour as it is seen, (3,)."""
    seen = (VISIONS[vision] @ linear(colour)).clip(0, 1)
    share = XYZ @ seen / XYZ.sum(1)
    x, y, z = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: Colour, other: Colour, vision: str = "normal") -> float:
    """CIE76 distance of two colours as they are seen; 2.3 can just be noticed."""
    return float(np.linalg.norm(lab(one, vision) - lab(other, vision)))


def contrast(one: Colour, other: Colour) -> float:
    """WCAG's ratio of contrast, in 1..21."""
    low, high = sorted(float(linear(colour) @ XYZ[1]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def variables(css: str) -> dict[str, str]:
    """The colours that a style sheet defines, by name."""
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", css))
