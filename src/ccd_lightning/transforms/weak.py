"""SimCLR's weak views, drawn by albumentations."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

# albumentations asks the network for a newer version when it is imported, ten seconds where there is none.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from ccd_lightning.transforms.weak_draws import WeakSettings

UInt8Array = npt.NDArray[np.uint8]


class WeakViews:
    """Random resized crop, flip, colour jitter, grey and, on request, one hole (SimCLR, Chen et al., ICML 2020).

    Args:
        settings: Their distributions.
        first: The names of those that `before` draws and a call leaves out, of `weak_draws.GEOMETRIC`.
    """

    def __init__(self, settings: WeakSettings, first: Collection[str] = ()) -> None:
        size, strength = settings.size, settings.strength
        transforms: dict[str, A.BasicTransform] = {
            "crop": A.RandomResizedCrop(size=(size, size), scale=settings.scale, ratio=settings.ratio),
            "flip": A.HorizontalFlip(p=settings.flip),
            "colour": A.ColorJitter(strength, strength, strength, settings.hue, p=settings.jitter),
            "grey": A.ToGray(p=settings.grey),
        }
        if settings.cutout_size:
            side = (1, min(settings.cutout_size, size))
            transforms["hole"] = A.CoarseDropout(
                num_holes_range=(1, 1), hole_height_range=side, hole_width_range=side, p=1
            )
        self._all = list(transforms.values())
        self.first = A.Compose([made for name, made in transforms.items() if name in first], seed=0)
        self.compose = A.Compose([made for name, made in transforms.items() if name not in first], seed=0)

    def seed(self, seed: int) -> None:
        """Makes what follows a function of this number.

        Each transform gets a stream of its own: `Compose` would give all of them the same one, so that every grey
        view would be flipped too and a first view's brightness be told by the shape of its crop.
        """
        words = np.random.SeedSequence(seed).generate_state(len(self._all))
        for transform, word in zip(self._all, words, strict=True):
            transform.set_random_seed(int(word))

    def before(self, image: UInt8Array) -> UInt8Array:
        """Draws the part of one view of an image (H, W, 3) that comes before the strong augmentation."""
        view: UInt8Array = self.first(image=image)["image"]
        return view

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Draws one view (size, size, 3) of an image (H, W, 3), or what is left to draw of it."""
        view: UInt8Array = self.compose(image=image)["image"]
        return view
