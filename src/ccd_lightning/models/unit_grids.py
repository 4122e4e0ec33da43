"""Where in the image the units of a network's levels look.

A convolution or pooling of stride s over k pixels, of which p are padding before the first one, centres its unit j on
pixel s j + (k - 1) / 2 - p of its input, if its kernel weighs all sides alike. Kernels need not: those that were
trained with TensorFlow's padding, which adds the odd pixel after the last one, look as far up and left as it moves them
down and right. So the centre of the kernels' energy counts. With ImageNet weights of EfficientNet-Lite0, units of
stride 8 and 16 look 3.7 and 5.5 px before the middle of their fields, as blobs on photographs show; energies say 3.7
and 5.9.

What lies between two resolutions in a network is found by running it on shapes alone. As padding may depend on the size
of the input, this is done for each size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair as pair

from ccd_lightning.grids import Grid

Size = tuple[int, int]  # height, width
NEGLIGIBLE = 1 / 8  # of a cell: kernels of random weights lean by less, to no side in particular


class _Step(NamedTuple):
    """One layer along an axis: from `before` to `after` units, and where it looks from the first of its pixels."""

    before: int
    after: int
    stride: int
    offset: float
    lean: float  # of its kernel's energy, from the kernel's middle


def trace_grid(
    network: nn.Module, shapes: nn.Module, size: Size, level: int, norm: bool = False
) -> tuple[tuple[Grid, Grid], int]:
    """The grid of a level of a network, and how many channels its maps have.

    Args:
        network: Of timm, with the weights that count.
        shapes: The same network on the meta device.
        size: Height and width of the images.
        level: Its number.
        norm: Whether maps are normalised as the last one is.

    Returns:
        The grids along rows and along columns; and the channels.
    """
    forward: Any = shapes.forward_intermediates
    with _recorded(shapes.eval(), network) as steps, torch.no_grad():
        image = torch.empty(1, 3, *size, device="meta")
        (found,) = forward(image, indices=[level], norm=norm, stop_early=True, intermediates_only=True)
    rows, columns = (_grid(steps[axis], size[axis], found.shape[axis - 2]) for axis in (0, 1))
    return (rows, columns), int(found.shape[1])


@contextmanager
def _recorded(shapes: nn.Module, network: nn.Module) -> Iterator[tuple[list[_Step], list[_Step]]]:
    """Records the layers that look at several pixels, along rows and along columns."""
    steps: tuple[list[_Step], list[_Step]] = [], []
    weights = {name: getattr(part, "weight", None) for name, part in network.named_modules()}

    def record(name: str, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        leans = _leans(weights.get(name))
        for axis in (0, 1):
            before, after = inputs[0].shape[axis - 2], output.shape[axis - 2]
            stride, kernel = pair(layer.stride)[axis], pair(layer.kernel_size)[axis]
            dilation = pair(getattr(layer, "dilation", 1))[axis]
            reach = (kernel - 1) * dilation  # from the first pixel to the last
            padding = _padding_before(layer, axis, before, after, stride, reach) if after < before else 0
            steps[axis].append(_Step(before, after, stride, reach / 2 - padding, leans[axis] * dilation))

    def hook(name: str) -> Any:
        return lambda layer, inputs, output: record(name, layer, inputs, output)

    handles = [
        layer.register_forward_hook(hook(name)) for name, layer in shapes.named_modules() if _looks_around(layer)
    ]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()


def _looks_around(layer: Any) -> bool:
    """Whether a layer may see several pixels by itself; others that have a stride hand it on to their parts."""
    along = isinstance(getattr(layer, "stride", None), (int, tuple, list)) and hasattr(layer, "kernel_size")
    known = hasattr(layer, "padding") or type(layer).__name__.endswith("Same")
    return along and known and len(pair(layer.stride)) == 2


@torch.no_grad()
def _leans(weight: Tensor | None) -> tuple[float, float]:
    """How far the energy of kernels (C, c, k, k) lies below and to the right of their middle, in their pixels."""
    if weight is None or weight.ndim != 4 or weight.is_meta:
        return 0.0, 0.0
    energy = weight.double().square().sum(dim=(0, 1))
    total = float(energy.sum())
    if not 0 < total < float("inf"):  # nothing was learned, or training broke down
        return 0.0, 0.0
    centres = (energy.sum(dim=1 - axis) @ torch.arange(energy.shape[axis]).to(energy) / total for axis in (0, 1))
    down, right = (float(centre) - (length - 1) / 2 for centre, length in zip(centres, energy.shape, strict=True))
    return down, right


def _padding_before(layer: Any, axis: int, before: int, after: int, stride: int, reach: int) -> int:
    """How many pixels a layer adds before the first one."""
    if type(layer).__name__.endswith("Same"):  # TensorFlow's padding: the odd pixel comes after the last one
        return max((after - 1) * stride + reach + 1 - before, 0) // 2
    return int(pair(layer.padding)[axis])


def _grid(steps: list[_Step], length: int, units: int) -> Grid:
    """Follows the steps from an image's pixels to a level with a number of units.

    Branches beside each other, such as a block's shortcut, may look at places half a pixel apart: their mean counts.
    Where no layer is known to reduce the resolution, as when patches are merged, cells are taken together.
    """
    stride, offset, lean = 1.0, 0.0, 0.0
    while length > units:
        found = [step for step in steps if length == step.before > step.after >= units]
        after = max((step.after for step in found), default=units)
        parallel = {step for step in found if step.after == after}
        lean += stride * _lean_within(steps, length)
        if parallel:
            offset += stride * sum(step.offset for step in parallel) / len(parallel)
            leaning = [step.lean for step in parallel if step.lean]
            lean += stride * sum(leaning) / max(len(leaning), 1)
            stride *= next(iter(parallel)).stride
        else:
            factor = round(length / units)
            offset, stride = offset + stride * (factor - 1) / 2, stride * factor
        length = after
    lean += stride * _lean_within(steps, length)
    return Grid(stride, offset + lean * (abs(lean) >= NEGLIGIBLE * stride))


def _lean_within(steps: list[_Step], length: int) -> float:
    """What the layers add up to that leave the resolution as it is."""
    return sum(step.lean for step in steps if step.before == step.after == length)
