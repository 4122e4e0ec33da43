"""SimCLR's weak views, drawn by albumentations."""

from __future__ import annotations

import os

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
    """

    def __init__(self, settings: WeakSettings) -> None:
        size, strength = settings.size, settings.strength
        transforms = [
            A.RandomResizedCrop(size=(size, size), scale=settings.scale, ratio=settings.ratio),
            A.HorizontalFlip(p=settings.flip),
            A.ColorJitter(strength, strength, strength, settings.hue, p=settings.jitter),
            A.ToGray(p=settings.grey),
        ]
        if settings.hole:
            side = (1, min(settings.hole, size))
            transforms.append(
                A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=side, hole_width_range=side, p=1)
            )
        self.compose = A.Compose(transforms, seed=0)

    def seed(self, seed: int) -> None:
        """Makes what follows a function of this number.

        Each transform gets a stream of its own: `Compose` would give all of them the same one, so that every grey
        view would be flipped too and a first view's brightness be told by the shape of its crop.
        """
        words = np.random.SeedSequence(seed).generate_state(len(self.compose.transforms))
        for transform, word in zip(self.compose.transforms, words, strict=True):
            transform.set_random_seed(int(word))

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Draws one view (size, size, 3) of an image (H, W, 3)."""
        view: UInt8Array = self.compose(image=image)["image"]
        return view
