"""SimCLR's weak views, computed with albumentations."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

# On import, albumentations checks the network for a newer version, which takes ten seconds without a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from ccd_lightning.transforms.weak_draws import WeakSettings

UInt8Array = npt.NDArray[np.uint8]


class WeakViews:
    """Random resized crop, flip, colour jitter, grey and optionally one hole (SimCLR, Chen et al., ICML 2020).

    Args:
        settings: Distributions of the views.
        first: Names, from `weak_draws.GEOMETRIC`, of the augmentations that `before` applies and a call omits.
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
        """Seeds all following draws.

        Each transform gets its own random stream. `Compose` would give the same one to all of them: every grey view
        would also be flipped, and the crop of the first view would determine its brightness.
        """
        words = np.random.SeedSequence(seed).generate_state(len(self._all))
        for transform, word in zip(self._all, words, strict=True):
            transform.set_random_seed(int(word))

    def before(self, image: UInt8Array) -> UInt8Array:
        """Applies the augmentations that come before the strong augmentation to an image (H, W, 3)."""
        view: UInt8Array = self.first(image=image)["image"]
        return view

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Draws one view (size, size, 3) of an image (H, W, 3), without the augmentations that `before` applies."""
        view: UInt8Array = self.compose(image=image)["image"]
        return view
