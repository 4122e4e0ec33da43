"""SimCLR's weak views of a whole batch at once, on the device that it is on.

The operations are those of albumentations 2.0.8 (its colours' are torchvision's), in float32 and without rounding to
whole grey levels between them. Images are (N, 3, H, W) in [0, 1], and each has its own factor (N, 1, 1, 1).
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

PART = 256  # images brought to float32 at a time: 200 MB at 256 px


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies by the factor."""
    return (images * factor).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Moves away from the mean grey of the image as the factor says; 0 makes it this grey all over."""
    mean = to_grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return (images * factor + mean * (1 - factor)).clamp(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Moves away from each pixel's grey as the factor says; 0 makes the image grey."""
    return (images * factor + to_grey(images) * (1 - factor)).clamp(0, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turns the hue, in HSV, by this part of the circle: 1/3 makes red green.

    With the hue h in sixths of the circle, value v and chroma c, a channel is v - c clip(min(k, 4 - k), 0, 1), where
    k = (n + h) mod 6 and n is 5 for red, 3 for green and 1 for blue.
    """
    red, green, blue = images.chunk(3, dim=1)  # (N, 1, H, W) each
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    step = chroma.clamp(min=1e-8)  # a grey pixel has no hue, and any will do
    hue = torch.where(value == green, (blue - red) / step + 2, (red - green) / step + 4)
    hue = torch.where(value == red, (green - blue) / step, hue) + 6 * turn
    turned = [(hue + n) % 6 for n in (5, 3, 1)]
    return torch.cat([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in turned], dim=1)


OPERATIONS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)  # by their numbers in an order


def to_grey(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W) by the weights of ITU-R BT.601."""
    red, green, blue = images.chunk(3, dim=1)  # (N, 1, H, W) each
    return 0.299 * red + 0.587 * green + 0.114 * blue


def crop_and_resize(images: Tensor, box: Tensor, flip: Tensor, size: int) -> Tensor:
    """Cuts V crops out of each image and brings them to one size, some of them mirrored.

    Bilinear and without smoothing, as OpenCV's INTER_LINEAR; what lies outside of the crop has no part in it.

    Args:
        images: (M, 3, H, W) uint8.
        box: (M, V, 4) float, top, left, height and width in pixels.
        flip: (M, V) float, 1 to mirror from left to right and 0 not to.
        size: Side of the results in pixels.

    Returns:
        (M, V, 3, size, size) in [0, 1].
    """
    height, width = images.shape[-2:]
    top, left, rows, columns = box.unsqueeze(-2).unbind(dim=-1)  # (M, V, 1) each
    line = (torch.arange(size, device=images.device) + 0.5) / size
    mirrored = line + flip[..., None] * (1 - 2 * line)  # (M, V, size)
    y = _coordinate(line, top, rows, height)[..., :, None].expand(-1, -1, -1, size)
    x = _coordinate(mirrored, left, columns, width)[..., None, :].expand(-1, -1, size, -1)
    grid = torch.stack([x, y], dim=-1).flatten(1, 2)  # (M, V * size, size, 2): an image's crops below each other
    parts = zip(torch.split(images, PART), torch.split(grid, PART), strict=True)
    crops = [functional.grid_sample(part.float(), places, align_corners=False) for part, places in parts]
    return torch.cat(crops).div_(255).view(len(images), 3, -1, size, size).transpose(1, 2)


def _coordinate(line: Tensor, start: Tensor, length: Tensor, side: int) -> Tensor:
    """Where in [-1, 1] of an image's side the places lie that `line`, in [0, 1], names within a crop."""
    within = (line * length - 0.5).clamp(min=0)
    pixel = start + torch.minimum(within, length - 1)  # not beyond the middles of the crop's outermost pixels
    return (2 * pixel + 1) / side - 1


def cut_hole(images: Tensor, hole: Tensor) -> Tensor:
    """Blackens the hole (N, 4) of each image: top, left, height and width in pixels."""
    line = torch.arange(images.shape[-1], device=images.device)  # views are square
    begin, sides = hole[:, :2, None], hole[:, 2:, None]  # (N, 2, 1) each
    inside = (line >= begin) & (line < begin + sides)  # (N, 2, size)
    return images.masked_fill(inside[:, None, 0, :, None] & inside[:, None, 1, None, :], 0)


def first_views(images: Tensor, views: Records, size: int, first: Collection[str]) -> Tensor:
    """Makes the part of V views of each image that comes before the strong augmentation.

    Args:
        images: (M, 3, H, W) uint8.
        views: (M, V) of `weak_draws.VIEW`, on the host.
        size: Side of a view in pixels.
        first: What comes before, of `weak_draws.GEOMETRIC`.

    Returns:
        (M, V, 3, h, w) uint8: h = w = size where "crop" is among them, else those of the images.
    """
    placed = _place(images, Plan.of(views.ravel(), images.device), views.shape[1], size, first)
    return placed if placed.dtype == torch.uint8 else (placed * 255).round().to(torch.uint8)


def _place(images: Tensor, plan: Plan, count: int, size: int, steps: Collection[str]) -> Tensor:
    """Crops and mirrors, where these are among the steps, `count` views of each image; else uint8 stay uint8."""
    box, flip = plan.box.view(len(images), count, 4), plan.flip.view(len(images), count)
    if "crop" in steps:
        return crop_and_resize(images, box, flip if "flip" in steps else torch.zeros_like(flip), size)
    shown = images[:, None].expand(-1, count, -1, -1, -1)
    return torch.where(flip.bool()[..., None, None, None], shown.flip(-1), shown) if "flip" in steps else shown


def weak_views(images: Tensor, views: Records, size: int, done: Collection[str] = ()) -> Tensor:
    """Makes V views of each image.

    Args:
        images: (M, 3, H, W) uint8.
        views: (M, V) of `weak_draws.VIEW`, on the host; nothing is ever read back from the device.
        size: Side of a view in pixels.
        done: What `first_views` did before.

    Returns:
        (M, V, 3, size, size) in [0, 1].
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
    """What N views are made of, on their device.

    Attributes:
        box: (N, 4) top, left, height and width of the crop.
        flip: (N,) 1 to mirror, 0 not to.
        factors: (N, 4) of the four colour operations.
        hole: (N, 4) top, left, height and width.
        steps: Of the four places in an order, which views have which of the four operations there.
        grey: Which views become grey.
    """

    box: Tensor
    flip: Tensor
    factors: Tensor
    hole: Tensor
    steps: list[list[Tensor]]
    grey: Tensor

    @classmethod
    def of(cls, views: Records, device: torch.device) -> Plan:
        """Sorts (N,) of `weak_draws.VIEW` into groups and sends them over in two pieces."""
        columns = (views["box"], views["flip"][:, None], views["factors"], views["hole"])
        box, flip, factors, hole = torch.split(_send(np.hstack(columns), device), [4, 1, 4, 4], dim=1)
        count = len(OPERATIONS)
        groups = [np.flatnonzero(order == number) for order in views["order"].T for number in range(count)]
        groups.append(np.flatnonzero(views["grey"]))
        *chosen, grey = torch.split(_send(np.concatenate(groups), device), [len(group) for group in groups])
        steps = [chosen[start : start + count] for start in range(0, len(chosen), count)]
        return cls(box, flip.squeeze(1), factors, hole, steps, grey)


def _send(values: npt.NDArray[np.float32] | npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """To the device without waiting for it, which takes pinned memory."""
    tensor = torch.from_numpy(values)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
