"""Random parameters of SimCLR's weak views, without pixels.

`weak.py` computes the views of one image with albumentations, in the workers of the loader. `weak_batched.py` computes
those of a whole batch on any device, from the parameters drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ccd_lightning.ranges import ascending, at_least

Records = np.ndarray[Any, np.dtype[np.void]]
Pairs = npt.NDArray[np.float64]

ATTEMPTS = 10  # attempts to draw a crop that fits into the image, as in torchvision and albumentations
# Geometric weak augmentations in order of application. A strong family may require that they come before it.
GEOMETRIC = ("crop", "flip")
# Weak augmentations that a family may omit, with the setting that turns each off.
OPTIONAL: dict[str, dict[str, Any]] = {
    "flip": {"flip": 0.0},
    "colour": {"jitter": 0.0},
    "grey": {"grey": 0.0},
    "hole": {"cutout_size": 0},
}
UNCHANGED = 4  # "no operation" in an order of colour operations, which have the numbers 0 to 3
VIEW = np.dtype(
    [
        ("box", "f4", 4),  # top, left, height, width of the crop in pixels of the image
        ("flip", "?"),
        ("order", "u1", 4),  # numbers of the colour operations in order of application
        ("factors", "f4", 4),  # factors of brightness, contrast and saturation, and change of the hue in turns
        ("grey", "?"),
        ("hole", "f4", 4),  # top, left, height, width in pixels of the view; no hole if height is 0
    ]
)


@dataclass(frozen=True)
class WeakSettings:
    """Distributions of the weak views (SimCLR, Chen et al., ICML 2020).

    Attributes:
        size: Side of a view in pixels.
        scale: Smallest and largest share of the image's area that a crop covers, in (0, 1].
        cutout_size: Largest side of the cutout hole in pixels; 0 for none.
        ratio: Smallest and largest aspect ratio (width / height) of a crop, drawn log-uniformly.
        flip: Share of the views that are flipped horizontally.
        jitter: Share of the views whose colours are jittered.
        strength: Smallest and largest factor of brightness, contrast and saturation.
        hue: Smallest and largest change of the hue, in turns.
        grey: Share of the views that are made grey.

    Raises:
        ValueError: If the size, the scale or the cutout size is out of range.
    """

    size: int
    scale: tuple[float, float]
    cutout_size: int = 0
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    strength: tuple[float, float] = (0.6, 1.4)
    hue: tuple[float, float] = (-0.1, 0.1)
    grey: float = 0.2

    def __post_init__(self) -> None:
        at_least("data.views.size", self.size, 1)
        at_least("data.views.cutout_size", self.cutout_size, 0)
        ascending("data.views.scale", self.scale, 0, 1)

    def without(self, names: Collection[str]) -> WeakSettings:
        """Returns the settings with some weak augmentations turned off, given by their names in OPTIONAL."""
        return replace(self, **{key: value for name in names for key, value in OPTIONAL[name].items()})


def draw_views(rng: np.random.Generator, count: int, height: int, width: int, settings: WeakSettings) -> Records:
    """Draws the parameters of views, (count,) of VIEW, for an image of the given height and width in pixels."""
    views = np.zeros(count, VIEW)
    views["box"] = _draw_boxes(rng, count, height, width, settings)
    views["flip"] = rng.random(count) < settings.flip
    jittered = rng.random(count) < settings.jitter
    views["order"] = np.where(jittered[:, None], rng.random((count, 4)).argsort(axis=1), UNCHANGED)
    views["factors"][:, :3] = rng.uniform(*settings.strength, (count, 3))
    views["factors"][:, 3] = rng.uniform(*settings.hue, count)
    views["grey"] = rng.random(count) < settings.grey
    if settings.cutout_size:
        sides = rng.integers(1, min(settings.cutout_size, settings.size), (count, 2), endpoint=True)
        views["hole"] = np.hstack([_place(rng, np.full(2, settings.size), sides), sides])
    return views


def _draw_boxes(rng: np.random.Generator, count: int, height: int, width: int, settings: WeakSettings) -> Pairs:
    """Draws top, left, height and width (count, 4): the first attempt that fits, or the largest allowed centre crop."""
    area = height * width * rng.uniform(*settings.scale, (count, ATTEMPTS))
    narrow, wide = (math.log(ratio) for ratio in settings.ratio)
    ratio = np.exp(rng.uniform(narrow, wide, (count, ATTEMPTS)))
    attempts = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=-1)))  # (count, ATTEMPTS, 2)
    outer = np.array([height, width])
    fits = np.logical_and(attempts >= 1, attempts <= outer).all(axis=-1)
    middle = np.rint([min(height, width / settings.ratio[0]), min(width, height * settings.ratio[1])])
    found = np.any(fits, axis=1, keepdims=True)
    sides = np.where(found, attempts[np.arange(count), fits.argmax(axis=1)], middle)
    corners = np.where(found, _place(rng, outer, sides), (outer - middle) // 2)
    return np.hstack([corners, sides])


def _place(rng: np.random.Generator, outer: npt.NDArray[np.int64], sides: npt.NDArray[Any]) -> Pairs:
    """Draws upper left corners (N, 2) of boxes with the given sides (N, 2) within an area with outer sides (2,)."""
    begin: Pairs = np.floor(rng.random(sides.shape) * (outer - sides + 1))
    return begin


def pack(seed: int, corner: tuple[int, int], views: Records) -> str:
    """Encodes the random parameters of one image as text.

    Text stays on the host in collation, pinning and transfer, like the path. The host needs the order of operations,
    and reading it back from the device would require synchronisation.

    Args:
        seed: Seed of the strong family, in [0, 2^63).
        corner: Row and column of the tile's upper left pixel.
        views: Parameters of the image's V views, (V,) of VIEW.

    Returns:
        Text with one character per byte.
    """
    return np.array((seed, corner, views), _image(len(views))).tobytes().decode("latin-1")


def unpack(texts: Sequence[str], count: int) -> Records:
    """Decodes the random parameters of the B images of a batch.

    Args:
        texts: Results of `pack` for B images.
        count: Number V of views per image.

    Returns:
        Records (B,) of `seed`, `corner` (2,), and `views` (V,) of VIEW.
    """
    return np.frombuffer("".join(texts).encode("latin-1"), _image(count))


def _image(count: int) -> np.dtype[np.void]:
    return np.dtype([("seed", "i8"), ("corner", "i8", 2), ("views", VIEW, (count,))])
