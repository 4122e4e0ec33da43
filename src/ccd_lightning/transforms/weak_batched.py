"""SimCLR's weak views for a whole batch at once, on the device of the batch.

The operations are those of albumentations 2.0.8 (whose colour operations are torchvision's), in float32 and without
rounding to whole grey levels between them. Images are (N, 3, H, W) in [0, 1], and each has its own factor (N, 1, 1, 1).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.transforms.weak_draws import GEOMETRIC, Records

PART = 256  # images converted to float32 at a time: 200 MB at 256 px


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies images by the factor."""
    return (images * factor).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scales differences from the mean grey value of each image by the factor; 0 gives a uniform grey image."""
    mean = to_grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return (images * factor + mean * (1 - factor)).clamp(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scales differences from the grey value of each pixel by the factor; 0 gives a grey image."""
    return (images * factor + to_grey(images) * (1 - factor)).clamp(0, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotates the hue in HSV by `turn`, a fraction of the colour circle: 1/3 turns red into green.

    With the hue h in sixths of the circle, value v and chroma c, a channel is v - c clip(min(k, 4 - k), 0, 1), where
    k = (n + h) mod 6 and n is 5 for red, 3 for green and 1 for blue.
    """
    red, green, blue = images.chunk(3, dim=1)  # (N, 1, H, W) each
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    step = chroma.clamp(min=1e-8)  # a grey pixel has no hue: any value works
    hue = torch.where(value == green, (blue - red) / step + 2, (red - green) / step + 4)
    hue = torch.where(value == red, (green - blue) / step, hue) + 6 * turn
    turned = [(hue + n) % 6 for n in (5, 3, 1)]
    return torch.cat([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in turned], dim=1)


OPERATIONS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)  # indexed by the numbers in `order`


def to_grey(images: Tensor) -> Tensor:
    """Returns the luma (N, 1, H, W) with the weights of ITU-R BT.601."""
    red, green, blue = images.chunk(3, dim=1)  # (N, 1, H, W) each
    return 0.299 * red + 0.587 * green + 0.114 * blue


def crop_and_resize(images: Tensor, box: Tensor, flip: Tensor, size: int) -> Tensor:
    """Cuts V crops out of each image, resizes them to one size, and flips some of them.

    Interpolation is bilinear without antialiasing, like OpenCV's INTER_LINEAR. Pixels outside the crop are not used.

    Args:
        images: Images (M, 3, H, W) uint8.
        box: Top, left, height and width of the crops in pixels, (M, V, 4) float.
        flip: 1 to flip a crop horizontally, 0 otherwise, (M, V) float.
        size: Side of the results in pixels.

    Returns:
        Crops (M, V, 3, size, size) in [0, 1].
    """
    height, width = images.shape[-2:]
    top, left, rows, columns = box.unsqueeze(-2).unbind(dim=-1)  # (M, V, 1) each
    line = (torch.arange(size, device=images.device) + 0.5) / size
    mirrored = line + flip[..., None] * (1 - 2 * line)  # (M, V, size)
    y = _coordinate(line, top, rows, height)[..., :, None].expand(-1, -1, -1, size)
    x = _coordinate(mirrored, left, columns, width)[..., None, :].expand(-1, -1, size, -1)
    grid = torch.stack([x, y], dim=-1).flatten(1, 2)  # (M, V * size, size, 2): crops of an image are stacked
    parts = zip(torch.split(images, PART), torch.split(grid, PART), strict=True)
    crops = [functional.grid_sample(part.float(), coordinates, align_corners=False) for part, coordinates in parts]
    return torch.cat(crops).div_(255).view(len(images), 3, -1, size, size).transpose(1, 2)


def _coordinate(line: Tensor, start: Tensor, length: Tensor, side: int) -> Tensor:
    """Converts positions `line` within a crop, in [0, 1], to positions within the image, in [-1, 1]."""
    within = (line * length - 0.5).clamp(min=0)
    pixel = start + torch.minimum(within, length - 1)  # clamps to the centres of the crop's outermost pixels
    return (2 * pixel + 1) / side - 1


def cut_hole(images: Tensor, hole: Tensor) -> Tensor:
    """Sets the hole (N, 4) of each image to black; holes are top, left, height and width in pixels."""
    line = torch.arange(images.shape[-1], device=images.device)  # views are square
    begin, sides = hole[:, :2, None], hole[:, 2:, None]  # (N, 2, 1) each
    inside = (line >= begin) & (line < begin + sides)  # (N, 2, size)
    return images.masked_fill(inside[:, None, 0, :, None] & inside[:, None, 1, None, :], 0)


def first_views(images: Tensor, views: Records, size: int, first: Collection[str]) -> Tensor:
    """Applies the weak augmentations that come before the strong augmentation, for V views of each image.

    Args:
        images: Images (M, 3, H, W) uint8.
        views: Parameters of the views, (M, V) of `weak_draws.VIEW`, on the host.
        size: Side of a view in pixels.
        first: Names of these augmentations, from `weak_draws.GEOMETRIC`.

    Returns:
        Images (M, V, 3, h, w) uint8, with h = w = size if "crop" is in `first`, otherwise the size of the images.
    """
    placed = _place(images, Plan.of(views.ravel(), images.device), views.shape[1], size, first)
    return placed if placed.dtype == torch.uint8 else (placed * 255).round().to(torch.uint8)


def _place(images: Tensor, plan: Plan, count: int, size: int, steps: Collection[str]) -> Tensor:
    """Applies "crop" and "flip", if in `steps`, to `count` views of each image; without a crop, uint8 is kept."""
    box, flip = plan.box.view(len(images), count, 4), plan.flip.view(len(images), count)
    if "crop" in steps:
        return crop_and_resize(images, box, flip if "flip" in steps else torch.zeros_like(flip), size)
    shown = images[:, None].expand(-1, count, -1, -1, -1)
    return torch.where(flip.bool()[..., None, None, None], shown.flip(-1), shown) if "flip" in steps else shown


def weak_views(images: Tensor, views: Records, size: int, done: Collection[str] = ()) -> Tensor:
    """Computes V views of each image, without reading anything back from the device.

    Args:
        images: Images (M, 3, H, W) uint8.
        views: Parameters of the views, (M, V) of `weak_draws.VIEW`, on the host.
        size: Side of a view in pixels.
        done: Names of the augmentations that `first_views` has already applied.

    Returns:
        Views (M, V, 3, size, size) in [0, 1].
    """
    plan = Plan.of(views.ravel(), images.device)
    made = _place(images, plan, views.shape[1], size, set(GEOMETRIC) - set(done)).flatten(0, 1)  # (N, 3, size, size)
    made = made if made.is_floating_point() else made.float().div_(255)
    for step in plan.steps:
        for number, chosen in enumerate(step):
            if len(chosen):
                factor = plan.factors[:, number].index_select(0, chosen).view(-1, 1, 1, 1)
                made.index_copy_(0, chosen, OPERATIONS[number](made.index_select(0, chosen), factor))
    if len(plan.grey):
        made.index_copy_(0, plan.grey, to_grey(made.index_select(0, plan.grey)).expand(-1, 3, -1, -1))
    if views["hole"].any():
        made = cut_hole(made, plan.hole)
    return made.view(*views.shape, 3, size, size)


@dataclass
class Plan:
    """Parameters of N views, on their device.

    Attributes:
        box: Top, left, height and width of the crops, (N, 4).
        flip: 1 to flip, 0 otherwise, (N,).
        factors: Factors of the four colour operations, (N, 4).
        hole: Top, left, height and width of the holes, (N, 4).
        steps: For each of the four steps and each of the four colour operations, the indices of the views that apply
            this operation in this step.
        grey: Indices of the views that are converted to grey.
    """

    box: Tensor
    flip: Tensor
    factors: Tensor
    hole: Tensor
    steps: list[list[Tensor]]
    grey: Tensor

    @classmethod
    def of(cls, views: Records, device: torch.device) -> Plan:
        """Groups views (N,) of `weak_draws.VIEW` by operation, and copies them to the device in two transfers."""
        columns = (views["box"], views["flip"][:, None], views["factors"], views["hole"])
        box, flip, factors, hole = torch.split(_send(np.hstack(columns), device), [4, 1, 4, 4], dim=1)
        count = len(OPERATIONS)
        groups = [np.flatnonzero(order == number) for order in views["order"].T for number in range(count)]
        groups.append(np.flatnonzero(views["grey"]))
        *chosen, grey = torch.split(_send(np.concatenate(groups), device), [len(group) for group in groups])
        steps = [chosen[start : start + count] for start in range(0, len(chosen), count)]
        return cls(box, flip.squeeze(1), factors, hole, steps, grey)


def _send(values: npt.NDArray[np.float32] | npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Copies an array to the device asynchronously, using pinned memory on CUDA."""
    tensor = torch.from_numpy(values)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
