"""Training inputs of pretraining for one image: distributions, their views, and position pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ccd_lightning.overrides import check_overrides
from ccd_lightning.ranges import FAMILY, at_least, refuse
from ccd_lightning.transforms.patches import cut, draw_tile, position_pairs
from ccd_lightning.transforms.strong import Identity, Permutation
from ccd_lightning.transforms.weak_batched import first_views, weak_views
from ccd_lightning.transforms.weak_draws import GEOMETRIC, OPTIONAL, Records, WeakSettings, draw_views, pack, unpack

if TYPE_CHECKING:
    from ccd_lightning.transforms.weak import WeakViews


class PretextViews:
    """Draws the K strongly augmented versions of an image, weak views of each, and two neighbouring patches.

    All random draws are a function of (seed, epoch, index). They depend neither on the number of workers, nor on the
    batch of an image, nor on earlier draws.

    Weak augmentations are applied after the strong augmentation, except for those that would turn one of its classes
    into another (`weak_first`, such as a flip with rotations). These are applied to each view before the strong
    augmentation, whose random draws are the same for both views of an instance.

    Args:
        family: The strong augmentations: a class of `transforms.strong`, or your own class with the same interface.
        size: Side of a weak view in pixels. Small views of larger images take less time and give better maps.
        scale: Smallest and largest share of the image's area that a weak view covers.
        patch_size: Side of the patches whose relative position is predicted, in pixels.
        pairs: Number of patch pairs per image. Patches are small, and with more pairs positions are learned sooner. 0
            draws none, for pretraining without the position task.
        cutout_size: Largest side of a cutout hole in the weak views, in pixels; 0 for none. Families that do not allow
            holes, such as `Cutout`, get none.
        draw: "all" uses all K augmented versions of every image (as in the formula). "one" draws one version per image,
            which needs a K-th of the memory per image and therefore allows a K times larger batch.
        tile: Side in pixels of a random tile of the image, from which the weak views are drawn; 0 for the whole image.
            Patches are always cut from the whole image.
        augment_on: Where weak views are computed: one by one on the "cpu", by the loader's workers, or in batches on
            the "device" of the model, so that workers only draw random parameters. "device" helps if a GPU waits for
            its workers, and is not faster on a CPU. The views differ, but follow the same distribution.

    Raises:
        ValueError: If the settings of the weak views, the number of pairs or the family's attributes are invalid.
    """

    def __init__(
        self,
        family: nn.Module | None = None,
        size: int = 64,
        scale: tuple[float, float] = (0.2, 1.0),
        patch_size: int = 32,
        pairs: int = 4,
        cutout_size: int = 0,
        draw: Literal["all", "one"] = "all",
        tile: int = 0,
        augment_on: Literal["cpu", "device"] = "cpu",
    ) -> None:
        at_least("data.views.pairs", pairs, 0)
        at_least("data.views.patch_size", patch_size, 1 if pairs else 0)
        at_least("data.views.tile", tile, 0, "; 0 takes the whole image")
        self.family = family or Permutation()
        self.count, self.first, omitted = _attributes(self.family)
        check_overrides(type(self.family), Identity, ("forward",))
        self.cutout_size = cutout_size
        self.settings = WeakSettings(size, scale, cutout_size).without(omitted)
        self.patch_size = patch_size
        self.pairs = pairs
        self.draw = draw
        self.tile = tile
        self.augment_on = augment_on
        self._drawn_by: WeakViews | None = None
        self._tried = False

    @property
    def sizes(self) -> dict[str, int]:
        """Sides of views, tiles and patches in pixels, by the names of the options that set them."""
        sizes = {"size": self.settings.size, "tile": self.tile, "patch_size": self.patch_size * bool(self.pairs)}
        return {name: side for name, side in sizes.items() if side}

    def __call__(self, image: Tensor, seed: tuple[int, int, int]) -> dict[str, Any]:
        """Draws the training inputs of one image.

        Args:
            image: Image (3, H, W) uint8.
            seed: Seed of the run, epoch, and index of the image.

        Returns:
            `views` (2, K, 3, size, size) uint8; `augmentation` (K,), the class of each distribution (K = 1 if one is
            drawn); `patches` (2, N, 3, patch_size, patch_size) uint8 and `position` (N,) in 0..7 with N = pairs, unless
            N is 0. If views are computed on the device, `draws` replaces `views`: the parameters from which `complete`
            computes them.

        Raises:
            ValueError: If the size of the image is not compatible with the tile, the patches or the family.
        """
        weak_seed, torch_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
        generator = torch.Generator().manual_seed(torch_seed)
        index = torch.arange(self.count) if self.draw == "all" else torch.randint(self.count, (1,), generator=generator)
        item: dict[str, Any] = {"augmentation": index}
        if self.pairs:
            first, second, position = position_pairs(image.expand(self.pairs, -1, -1, -1), self.patch_size, generator)
            item |= {"patches": torch.stack([first, second]), "position": position}
        # The tile is drawn after the patches, so that patches are the same with and without tiles.
        corner = draw_tile(image.shape[1], image.shape[2], self.tile, generator) if self.tile else (0, 0)
        if self.augment_on == "cpu":
            return item | {"views": self._views(self._part(image[None], [corner])[0], index, generator, weak_seed)}
        item |= {"draws": self._draws(image, len(index), corner, weak_seed)}
        if not self._tried:  # reports errors here, and not during the first training step
            self.complete({"image": image[None], "draws": [item["draws"]], "augmentation": index[None]})
            self._tried = True
        return item

    @torch.no_grad()
    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Computes the views of a batch that contains `draws`; other batches are returned unchanged.

        Args:
            batch: Collated items with their `image` (B, 3, H, W) uint8, on any device.

        Returns:
            The batch with `views` (B, 2, K, 3, size, size) in [0, 1] instead of `draws`, on the images' device. It is
            computed asynchronously, without synchronisation.
        """
        if "draws" not in batch:
            return batch
        images, index = batch["image"], batch["augmentation"]  # (B, 3, H, W), (B, K)
        records = unpack(batch["draws"], 2 * index.shape[1])
        parts, seeds = self._part(images, records["corner"].tolist()), records["seed"].tolist()
        views = self._finish(parts, index, seeds, records["views"])  # (B K, 2, 3, S, S)
        views = views.view(*index.shape, *views.shape[1:]).transpose(1, 2)
        return {name: value for name, value in batch.items() if name != "draws"} | {"views": views}

    def _finish(self, images: Tensor, index: Tensor, seeds: list[int], draws: Records) -> Tensor:
        """Computes views (B K, 2, 3, S, S) of images (B, 3, H, W), from the index (B, K), seeds and draws (B, 2K)."""
        size, count = self.settings.size, index.shape[1]
        if not self.first:
            strong = self._strong(images[:, None].expand(-1, count, -1, -1, -1), index, seeds)
            return weak_views(strong, draws.reshape(-1, 2), size)
        shown = first_views(images, draws, size, self.first)  # (B, K 2, 3, h, w)
        shown = shown.view(len(images), count, 2, *shown.shape[2:])
        both = [self._strong(shown[:, :, view], index, seeds) for view in range(2)]
        strong = torch.stack(both, dim=1).flatten(0, 1)  # (B K 2, 3, h, w)
        return weak_views(strong, draws.reshape(-1, 1), size, done=self.first).view(-1, 2, 3, size, size)

    def _part(self, images: Tensor, corners: list[tuple[int, int]]) -> Tensor:
        """Returns the tile of each image (B, 3, H, W) at the given corner, or without tiles the whole images."""
        return cut(images, corners, self.tile) if self.tile else images

    def _views(self, image: Tensor, index: Tensor, generator: torch.Generator, seed: int) -> Tensor:
        """Returns two weak views (2, K, 3, S, S) of each strong version, given by index (K,), of an image (3, H, W)."""
        from ccd_lightning.transforms.weak import WeakViews  # imports albumentations, which takes a second

        weak = self._drawn_by = self._drawn_by or WeakViews(self.settings, self.first)
        weak.seed(seed)
        instances = self._instances(weak, image, index, generator)
        return torch.stack([_each(weak, versions) for versions in instances])

    def _instances(self, weak: WeakViews, image: Tensor, index: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        """Yields the strong versions (K, 3, h, w) of an image (3, H, W) for the first view, then for the second."""
        copies, state = image.expand(len(index), -1, -1, -1), generator.get_state()
        if not self.first:
            strong = self.family(copies, index, generator)
        for _ in range(2):
            if self.first:  # what the family draws is the same for both views
                strong = self.family(_each(weak.before, copies), index, generator.set_state(state))
            yield strong

    def _draws(self, image: Tensor, count: int, corner: tuple[int, int], seed: int) -> str:
        """Draws the parameters of two views for each of `count` versions of an image (3, H, W), encoded as text."""
        rng = np.random.default_rng(seed)
        height, width = (self.tile, self.tile) if self.tile else image.shape[1:]
        return pack(int(rng.integers(2**63)), corner, draw_views(rng, 2 * count, height, width, self.settings))

    def _strong(self, images: Tensor, index: Tensor, seeds: list[int]) -> Tensor:
        """Applies the strong augmentations given by index (B, K) to images (B, K, 3, H, W): (B K, 3, H, W)."""
        family = self.family.to(images.device)
        if not getattr(family, "random", True):
            versions: Tensor = family(images.flatten(0, 1), index.flatten())
            return versions
        made = []
        for copies, which, seed in zip(
            images, index, seeds, strict=True
        ):  # one generator per image, so that images do not depend on each other
            made.append(family(copies, which, torch.Generator(images.device).manual_seed(seed)))
        return torch.cat(made)


def _each(change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]], images: Tensor) -> Tensor:
    """Applies a function of arrays (H, W, 3) to images (N, 3, H, W) one by one."""
    arrays = (np.ascontiguousarray(image) for image in images.permute(0, 2, 3, 1).numpy())
    return torch.from_numpy(np.stack([change(array) for array in arrays])).permute(0, 3, 1, 2)


def _attributes(family: nn.Module) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Returns the attributes `count`, `weak_first` and `weak_omitted` of a family, with defaults for the last two.

    Raises:
        ValueError: If `count` is missing, or an attribute is invalid.
    """
    name, count = type(family).__name__, getattr(family, "count", None)
    if not isinstance(count, int) or count < 1:
        refuse(FAMILY, name, f"a class whose count, now {count}, is the number of its strong augmentations, 1 or more")
    chosen = []
    for attribute, default, known in (("weak_first", ("flip",), GEOMETRIC), ("weak_omitted", (), tuple(OPTIONAL))):
        names = tuple(getattr(family, attribute, default))
        if unknown := set(names) - set(known):
            wanted = f"a class whose {attribute} names some of {', '.join(known)}, and not {min(unknown)}"
            refuse(FAMILY, name, wanted)
        chosen.append(names)
    return count, chosen[0], chosen[1]
