"""Strong augmentation families: K distributions of an image, index 0 untouched. K is 4, but 1 for `Identity`.

A family is called with images (B, C, H, W), the index (B,) of the distribution that each image is to become one of, in
0..K - 1, and a generator, the source of all randomness. It returns a new tensor of the images' shape and type, on their
device. A family of one's own is any module that can be called like this. Its attributes:

- `count` is K, 1 or more.
- `random = False` says that it draws nothing; then a whole batch of images is given to it at once.
- `weak_first` names the weak views, of "crop" and "flip", that are drawn before the family acts, because after it they
  would turn an image of one class into one of another: a mirrored rotation by 90 degrees is the mirror image's rotation
  by 270. The default, ("flip",), is right for every family; () saves applying the family to each view, and may be
  declared where the mirror image of each class is again of that class.
- `weak_omitted` names the weak views, of "flip", "colour", "grey" and "hole", that are not drawn at all, because they
  do what the family's classes are told by. The default is ().

How the weak views go with the shipped families, where "yes" means that their order makes no difference:

| family | mirror | crop, drawn after the family | colour, grey | hole |
| --- | --- | --- | --- | --- |
| Permutation | yes: either way halves are swapped | may miss a seam | yes | yes |
| Rotation | exchanges classes 1 and 3: comes first | yes, in distribution | yes | yes |
| Cutout | yes, in distribution | may miss a hole | yes | is one more hole: left out |
| Noise | yes, in distribution | resamples all noises alike | change all noises alike | yes |
| MedMix (`transforms.medmix`) | yes, in distribution | may miss a lesion | yes | hides or adds one: left out |

A crop that misses a seam, a hole or a lesion shows less than its label says, as any crop may miss an object. It
exchanges no classes, though, and if it came before the family, each seam would lie in the middle of its view. It
therefore follows the family. So does CSI (Tack et al., NeurIPS 2020), which mirrors before the family and crops after
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from ccd_lightning.ranges import FAMILY, at_least, refuse, within


class Identity(nn.Module):
    """Leaves images as they are: one distribution, with which CCD's contrastive loss is SimCLR's."""

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
        """Applies to each image, of even height and width, the swap that its index names."""
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
        """Applies to each image the rotation that its index names."""
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(f"Rotation needs square images, got {height} x {width}")
        turned = images.clone()
        for quarters in range(1, self.count):
            turned = torch.where(chosen(index == quarters, images), images.rot90(quarters, (-2, -1)), turned)
        return turned


class Cutout(nn.Module):
    """Cuts as many square holes as the index says, at random places inside the image; they are black and may overlap.

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
        """Applies to each image the number of holes that its index names."""
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
        """Applies to each image, in [0, 1] or uint8, the noise that its index names."""
        whole = images.dtype == torch.uint8
        clean = images.float() / 255 if whole else images
        normal = draw(torch.randn, clean.shape, images, generator).to(clean) * self.variance**0.5
        grains = draw(torch.rand, (len(images), 1, *images.shape[-2:]), images, generator)  # one draw a pixel
        noisy = clean
        for place, version in enumerate((clean + normal, clean * (1 + normal), self._peppered(clean, grains)), start=1):
            noisy = torch.where(chosen(index == place, images), version, noisy)
        noisy = noisy.clamp(0, 1)
        return (noisy * 255).round().to(torch.uint8) if whole else noisy

    def _peppered(self, images: Tensor, grains: Tensor) -> Tensor:
        salt, pepper = grains < self.amount / 2, grains > 1 - self.amount / 2
        return images.masked_fill(salt, 1).masked_fill(pepper, 0)


def chosen(which: Tensor, images: Tensor) -> Tensor:
    """(B,) bool to (B, 1, 1, 1) on the images' device."""
    return which.to(images.device).view(-1, 1, 1, 1)


def draw(sampler: Callable[..., Tensor], shape: Sequence[int], images: Tensor, generator: Generator | None) -> Tensor:
    """Draws where the generator lives, and brings what was drawn to the images."""
    device = generator.device if generator is not None else images.device
    return sampler(*shape, generator=generator, device=device).to(images.device)


def _inside(start: Tensor, length: int, size: int) -> Tensor:
    """Which of `size` places lie in [start, start + length): (...) to (..., size)."""
    place = torch.arange(size, device=start.device)
    return (place >= start[..., None]) & (place < start[..., None] + length)
