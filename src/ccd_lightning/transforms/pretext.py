"""What pretraining sees of one image: distributions, their views, and a position pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ccd_lightning.transforms.patches import cut, draw_tile, position_pairs
from ccd_lightning.transforms.strong import Permutation

if TYPE_CHECKING:
    from ccd_lightning.transforms.weak import WeakViews


class PretextViews:
    """Draws the K strongly augmented versions of an image, weak views of each, and two neighbouring patches.

    Everything drawn is a function of (seed, epoch, index): it depends neither on the number of workers nor on what
    was drawn before.

    Args:
        family: The strong augmentations: a class of `transforms.strong`, or one's own that is called like them.
        size: Side of a weak view in pixels. Small views of larger images are cheap and give better maps.
        scale: Part of the image's area that a weak view covers, smallest and largest.
        patch_size: Side of the patches whose relative position is to be predicted, in pixels.
        pairs: How many pairs of patches to draw; patches are small, and more of them teach positions sooner.
        hole: Largest side of a cutout hole in the weak views, in pixels; 0 for none.
        draw: "all" distributions of every image (the formula), or "one" drawn per image, which needs a K-th of the
            memory per image and hence allows a K times larger batch.
        tile: Side of the tile, drawn anew each time from those that the image divides into, that the views are views
            of, in pixels; 0 for the whole image. Patches are cut out of the whole image all the same.
    """

    def __init__(
        self,
        family: nn.Module | None = None,
        size: int = 64,
        scale: tuple[float, float] = (0.2, 1.0),
        patch_size: int = 32,
        pairs: int = 4,
        hole: int = 0,
        draw: Literal["all", "one"] = "all",
        tile: int = 0,
    ) -> None:
        self.family = family or Permutation()
        self.size = size
        self.scale = scale
        self.patch_size = patch_size
        self.pairs = pairs
        self.hole = hole
        self.draw = draw
        self.tile = tile
        self._weak: WeakViews | None = None

    def __call__(self, image: Tensor, seed: tuple[int, int, int]) -> dict[str, Tensor]:
        """Draws everything that pretraining sees of one image.

        Args:
            image: (3, H, W) uint8.
            seed: Seed of the run, epoch, and index of the image.

        Returns:
            `views` (2, K, 3, size, size) uint8, `augmentation` (K,) the class of each distribution (K = 1 when one is
            drawn), `patches` (2, N, 3, patch_size, patch_size) uint8 and `position` (N,) in 0..7, N = pairs.

        Raises:
            ValueError: If the image's size does not go with the tile, the patches or the family.
        """
        from ccd_lightning.transforms.weak import WeakViews  # imports albumentations, which takes a second

        weak = self._weak = self._weak or WeakViews(self.size, self.scale, self.hole)
        weak_seed, torch_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
        weak.seed(weak_seed)
        generator = torch.Generator().manual_seed(torch_seed)
        count = int(self.family.count)  # type: ignore[arg-type]
        index = torch.arange(count) if self.draw == "all" else torch.randint(count, (1,), generator=generator)
        first, second, position = position_pairs(image.expand(self.pairs, -1, -1, -1), self.patch_size, generator)
        if self.tile:  # drawn after the patches, which hence are the same without
            corner = draw_tile(image.shape[1], image.shape[2], self.tile, generator)
            image = cut(image[None], [corner], self.tile)[0]
        strong = self.family(image.expand(len(index), -1, -1, -1), index, generator).permute(0, 2, 3, 1).numpy()
        views = np.stack([[weak(np.ascontiguousarray(version)) for version in strong] for _ in range(2)])
        return {
            "views": torch.from_numpy(views).permute(0, 1, 4, 2, 3),
            "augmentation": index,
            "patches": torch.stack([first, second]),
            "position": position,
        }
