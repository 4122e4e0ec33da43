"""Strong augmentation families: K distributions of an image, of which index 0 is the unchanged image.

K is 4 for all families but `Identity`, which has 1. A family is called with images (B, C, H, W), the index (B,) in
0..K - 1 of the distribution for each image, and a random generator. It returns a new tensor of the same shape and dtype
on the same device. Your own family can be any module that can be called like this. Its attributes:

- `count` is K, 1 or more.
- `random = False` declares that the family uses no randomness; it is then called with a whole batch at once.
- `weak_first` lists the weak augmentations, from "crop" and "flip", that are applied before the family because they
  would otherwise turn one class into another: a mirrored rotation by 90 degrees is the mirror image rotated by 270. The
  default, ("flip",), is correct for every family. () avoids applying the family to each view, and is correct if the
  mirror image of each class belongs to the same class.
- `weak_omitted` lists the weak augmentations, from "flip", "colour", "grey" and "hole", that are not applied at all,
  because they imitate a class of the family. The default is ().

Compatibility of the weak augmentations with the included families, where "yes" means that the order does not matter:

| family | mirror | crop, drawn after the family | colour, grey | hole |
| --- | --- | --- | --- | --- |
| Permutation | yes: either way halves are swapped | may miss a seam | yes | yes |
| Rotation | exchanges classes 1 and 3: comes first | yes, in distribution | yes | yes |
| Cutout | yes, in distribution | may miss a hole | yes | is one more hole: left out |
| Noise | yes, in distribution | resamples all noises alike | change all noises alike | yes |
| MedMix (`transforms.medmix`) | yes, in distribution | may miss a lesion | yes | hides or adds one: left out |

A crop that misses a seam, a hole or a lesion does not show its label, as any crop may miss an object. But it does not
exchange classes, and if it came before the family, each seam would be in the middle of its view. Therefore it follows
the family. CSI (Tack et al., NeurIPS 2020) also mirrors before the family and crops after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from ccd_lightning.ranges import FAMILY, at_least, refuse, within


class Identity(nn.Module):
    """Leaves images unchanged: one distribution, for which CCD's contrastive loss equals SimCLR's."""

    count = 1
    random = False
    weak_first = ()

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns a copy of the images."""
        return images.clone()


class Permutation(nn.Module):
    """Swaps the halves of an image: its rows when index // 2 is 1, its columns when index % 2 is 1."""

    count = 4
    random = False
    weak_first = ()

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Applies the swap given by `index` (B,) to each image, which must have even height and width."""
        height, width = images.shape[-2:]
        if height % 2 or width % 2:
            raise ValueError(f"Permutation needs even height and width, got {height} x {width}")
        rows, columns = (chosen(swapped.bool(), images) for swapped in (index // 2, index % 2))
        images = torch.where(rows, images.roll(height // 2, dims=-2), images)
        return torch.where(columns, images.roll(width // 2, dims=-1), images)


class Rotation(nn.Module):
    """Rotates a square image by index times 90 degrees, counter-clockwise."""

    count = 4
    random = False
    weak_first = ("flip",)

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Applies the rotation given by `index` (B,) to each image."""
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(f"Rotation needs square images, got {height} x {width}")
        turned = images.clone()
        for quarters in range(1, self.count):
            turned = torch.where(chosen(index == quarters, images), images.rot90(quarters, (-2, -1)), turned)
        return turned


class Cutout(nn.Module):
    """Cuts black square holes, as many as the index says, at random positions inside the image. They may overlap.

    Args:
        side: Side of a hole, as a share of the image's shorter side, in (0, 1].
    """

    count = 4
    weak_first = ()
    weak_omitted = ("hole",)

    def __init__(self, side: float = 0.25) -> None:
        super().__init__()
        if not 0 < side <= 1:
            refuse(f"{FAMILY}.side", side, "above 0 and up to 1")
        self.side = side

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Cuts the number of holes given by `index` (B,) into each image."""
        count, (height, width) = len(images), images.shape[-2:]
        side = max(1, round(self.side * min(height, width)))
        share = draw(torch.rand, (2, count, self.count - 1), images, generator)
        rows = _inside((share[0] * (height - side + 1)).long(), side, height)  # (B, K - 1, H)
        columns = _inside((share[1] * (width - side + 1)).long(), side, width)  # (B, K - 1, W)
        wanted = torch.arange(self.count - 1, device=images.device) < index.to(images.device)[:, None]  # (B, K - 1)
        holes = (rows[..., :, None] & columns[..., None, :] & wanted[..., None, None]).any(dim=1)  # (B, H, W)
        return images.masked_fill(holes[:, None], 0)


class Noise(nn.Module):
    """Adds no noise (0), Gaussian (1), speckle (2), which grows with the image, or salt and pepper (3).

    Args:
        variance: Variance of the Gaussian and of the speckle noise, for images in [0, 1].
        amount: Share of the pixels that become salt or pepper, white or black with equal probability.
    """

    count = 4
    weak_first = ()

    def __init__(self, variance: float = 0.05, amount: float = 0.05) -> None:
        super().__init__()
        at_least(f"{FAMILY}.variance", variance, 0)
        within(f"{FAMILY}.amount", amount, 0, 1)
        self.variance = variance
        self.amount = amount

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Adds the noise given by `index` (B,) to each image, in [0, 1] or uint8."""
        whole = images.dtype == torch.uint8
        clean = images.float() / 255 if whole else images
        normal = draw(torch.randn, clean.shape, images, generator).to(clean) * self.variance**0.5
        grains = draw(torch.rand, (len(images), 1, *images.shape[-2:]), images, generator)  # one draw per pixel
        noisy = clean
        for number, version in enumerate(
            (clean + normal, clean * (1 + normal), self._peppered(clean, grains)), start=1
        ):
            noisy = torch.where(chosen(index == number, images), version, noisy)
        noisy = noisy.clamp(0, 1)
        return (noisy * 255).round().to(torch.uint8) if whole else noisy

    def _peppered(self, images: Tensor, grains: Tensor) -> Tensor:
        salt, pepper = grains < self.amount / 2, grains > 1 - self.amount / 2
        return images.masked_fill(salt, 1).masked_fill(pepper, 0)


def chosen(which: Tensor, images: Tensor) -> Tensor:
    """Reshapes a mask (B,) to (B, 1, 1, 1) and moves it to the images' device."""
    return which.to(images.device).view(-1, 1, 1, 1)


def draw(sampler: Callable[..., Tensor], shape: Sequence[int], images: Tensor, generator: Generator | None) -> Tensor:
    """Draws random numbers on the generator's device and moves them to that of the images."""
    device = generator.device if generator is not None else images.device
    return sampler(*shape, generator=generator, device=device).to(images.device)


def _inside(start: Tensor, length: int, size: int) -> Tensor:
    """Returns which of `size` indices are in [start, start + length): (...) to (..., size)."""
    index = torch.arange(size, device=start.device)
    return (index >= start[..., None]) & (index < start[..., None] + length)
