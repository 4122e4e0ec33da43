"""Where in the image the units of a network's levels look.

A convolution or pooling of stride s over k pixels, of which p are padding before the first one, centres its unit j on
pixel s j + (k - 1) / 2 - p of its input. What lies between two resolutions in a network is found by running it on
shapes alone; networks pad differently (timm's `tf_` ones by the size of their input), so this is done for each size.
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


class _Step(NamedTuple):
    """One layer that reduces the resolution along an axis: from `before` to `after` units."""

    before: int
    after: int
    stride: int
    offset: float


def trace_grids(network: nn.Module, size: Size, norm: bool = False) -> tuple[list[tuple[Grid, Grid]], tuple[int, ...]]:
    """The grids of all levels of a network, and how many channels their maps have.

    Args:
        network: Of timm, with `forward_intermediates`, on the meta device.
        size: Height and width of the images.
        norm: Whether maps are normalised as the last one is.

    Returns:
        For each level the grids along rows and along columns; and its channels.
    """
    with _recorded(network.eval()) as steps, torch.no_grad():
        forward: Any = network.forward_intermediates
        maps: list[Tensor] = forward(torch.empty(1, 3, *size, device="meta"), norm=norm, intermediates_only=True)
    rows, columns = ([_grid(steps[axis], size[axis], level.shape[axis - 2]) for level in maps] for axis in (0, 1))
    return list(zip(rows, columns, strict=True)), tuple(level.shape[1] for level in maps)


@contextmanager
def _recorded(network: nn.Module) -> Iterator[tuple[list[_Step], list[_Step]]]:
    """Records the layers that reduce the resolution along rows and along columns."""
    steps: tuple[list[_Step], list[_Step]] = [], []

    def record(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for axis in (0, 1):
            before, after = inputs[0].shape[axis - 2], output.shape[axis - 2]
            if after < before:
                stride, kernel = pair(layer.stride)[axis], pair(layer.kernel_size)[axis]
                reach = (kernel - 1) * pair(getattr(layer, "dilation", 1))[axis]  # from the first pixel to the last
                padding = _padding_before(layer, axis, before, after, stride, reach)
                steps[axis].append(_Step(before, after, stride, reach / 2 - padding))

    handles = [layer.register_forward_hook(record) for layer in network.modules() if _reduces(layer)]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()


def _reduces(layer: Any) -> bool:
    """Whether a layer may reduce the resolution by itself; others that have a stride hand it on to their parts."""
    along = isinstance(getattr(layer, "stride", None), (int, tuple, list)) and hasattr(layer, "kernel_size")
    known = hasattr(layer, "padding") or type(layer).__name__.endswith("Same")
    return along and known and len(pair(layer.stride)) == 2


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
    stride, offset = 1.0, 0.0
    while length > units:
        found = [step for step in steps if step.before == length and step.after >= units]
        after = max((step.after for step in found), default=units)
        parallel = {(step.stride, step.offset) for step in found if step.after == after}
        if not parallel:
            factor = round(length / units)
            parallel = {(factor, (factor - 1) / 2)}
        offset += stride * sum(own for _, own in parallel) / len(parallel)
        stride *= next(iter(parallel))[0]
        length = after
    return Grid(stride, offset)
