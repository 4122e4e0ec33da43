"""Finds the positions in the image of the units of a network's levels.

In a convolution or pooling layer of stride s and kernel size k with p pixels of padding before the first pixel, unit j
is centred on pixel s j + (k - 1) / 2 - p of the input if the kernel is balanced. Kernels need not be: those trained
with TensorFlow's padding, which adds the odd pixel after the last one, lean up and left by as much as the padding moves
them down and right. So the centre of the kernels' energy is used. With ImageNet weights of EfficientNet-Lite0, units of
stride 8 and 16 respond 3.7 and 5.5 px before the middle of their receptive fields, measured with blobs on photographs;
the energies give 3.7 and 5.9 px.

The layers between two resolutions are found by running the network on the meta device. This is done for each input
size, because padding may depend on it.
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
NEGLIGIBLE = 1 / 8  # of a cell: random kernels lean by less, in random directions


class _Step(NamedTuple):
    """One layer along an axis, from `before` to `after` units; its first unit is centred on input pixel `offset`."""

    before: int
    after: int
    stride: int
    offset: float
    lean: float  # distance of the centre of the kernel's energy from the kernel's middle


def trace_grid(
    network: nn.Module, shapes: nn.Module, size: Size, level: int, norm: bool = False
) -> tuple[tuple[Grid, Grid], int]:
    """Returns the grid of a level of a network, and the number of channels of its maps.

    Args:
        network: Network of timm with its weights.
        shapes: Copy of the network on the meta device.
        size: Height and width of the images in pixels.
        level: Number of the level.
        norm: Whether the network's final norm is applied to the maps.

    Returns:
        The grids along rows and along columns; and the number of channels.
    """
    forward: Any = shapes.forward_intermediates
    with _recorded(shapes.eval(), network) as steps, torch.no_grad():
        image = torch.empty(1, 3, *size, device="meta")
        (found,) = forward(image, indices=[level], norm=norm, stop_early=True, intermediates_only=True)
    rows, columns = (_grid(steps[axis], size[axis], found.shape[axis - 2]) for axis in (0, 1))
    return (rows, columns), int(found.shape[1])


@contextmanager
def _recorded(shapes: nn.Module, network: nn.Module) -> Iterator[tuple[list[_Step], list[_Step]]]:
    """Records the layers with spatial kernels, separately for rows and columns."""
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
    """Returns whether a layer has a spatial kernel itself; other modules with a stride pass it on to their children."""
    along = isinstance(getattr(layer, "stride", None), (int, tuple, list)) and hasattr(layer, "kernel_size")
    known = hasattr(layer, "padding") or type(layer).__name__.endswith("Same")
    return along and known and len(pair(layer.stride)) == 2


@torch.no_grad()
def _leans(weight: Tensor | None) -> tuple[float, float]:
    """Returns how far the centre of energy of kernels (C, c, k, k) is below and right of their middle, in pixels."""
    if weight is None or weight.ndim != 4 or weight.is_meta:
        return 0.0, 0.0
    energy = weight.double().square().sum(dim=(0, 1))
    total = float(energy.sum())
    if not 0 < total < float("inf"):  # weights that are all 0, or not finite
        return 0.0, 0.0
    centres = (energy.sum(dim=1 - axis) @ torch.arange(energy.shape[axis]).to(energy) / total for axis in (0, 1))
    down, right = (float(centre) - (length - 1) / 2 for centre, length in zip(centres, energy.shape, strict=True))
    return down, right


def _padding_before(layer: Any, axis: int, before: int, after: int, stride: int, reach: int) -> int:
    """Returns the number of pixels of padding before the first one."""
    if type(layer).__name__.endswith("Same"):  # TensorFlow's padding: the odd pixel comes after the last one
        return max((after - 1) * stride + reach + 1 - before, 0) // 2
    return int(pair(layer.padding)[axis])


def _grid(steps: list[_Step], length: int, units: int) -> Grid:
    """Follows the steps from the pixels of an image to a level with `units` units.

    Parallel branches, such as the shortcut of a block, may be centred half a pixel apart: their mean is used. If no
    recorded layer reduces the resolution, for example in patch merging, neighbouring cells are assumed to be merged.
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
    """Returns the sum of the leans of the layers that keep the resolution."""
    return sum(step.lean for step in steps if step.before == step.after == length)
