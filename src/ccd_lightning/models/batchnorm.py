"""Batch normalisation between views, patches and whole images.

Pretraining normalises views and patches by the statistics of their own batch. The running statistics, a mixture of
both, fit neither, and whole images least of all: so held-out views are measured as the training views are, and the
running statistics are taken anew from whole images, which is what detectors show the encoder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ccd_lightning.models.means import AddUp, Batches


def find_norms(module: nn.Module, keep: Collection[nn.Module] = ()) -> list[_BatchNorm]:
    """The batch norms of a module, in the order in which they are registered, without those to keep as they are."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm) and part not in keep]


def synchronise(module: nn.Module) -> None:
    """Has the batch norms of a module see the images of all GPUs, those of timm with an activation too."""
    from timm.layers.norm_act import convert_sync_batchnorm

    convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]


@contextmanager
def batch_statistics(module: nn.Module, keep: Collection[nn.Module] = ()) -> Iterator[None]:
    """Normalises by the statistics of each batch, as in training, but leaves the running ones alone.

    Args:
        module: Its norms are changed for a while.
        keep: Norms that stay as they are.
    """
    norms = find_norms(module, keep)
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = mode, True


@torch.no_grad()
def calibrate(
    module: nn.Module,
    batches: Batches,
    add_up: AddUp = lambda total: total,
    keep: Collection[nn.Module] = (),
) -> None:
    """Replaces the running statistics by the mean and the unbiased variance over all images at once.

    Layer by layer: each sees the images as the layers before it, calibrated already, normalise them. So neither the
    order of the images nor the size of the batches matters. Modes and weights stay as they are.

    Args:
        module: Its norms are registered in the order in which images reach them.
        batches: Gives batches of this process's images, the same each time; they are gone through once for each norm,
            up to this norm. A process may have none.
        add_up: Adds a tensor of sums to those of the other processes.
        keep: Norms whose statistics stay as they are.
    """
    norms = find_norms(module)
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.training = False
    try:
        for norm in find_norms(module, keep):
            _calibrate_one(norm, module, batches, add_up)
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training = mode


class _ReachedError(Exception):
    """Ends a forward pass where its result is not needed."""


def _calibrate_one(norm: _BatchNorm, module: nn.Module, batches: Batches, add_up: AddUp) -> None:
    """Sets one norm's statistics, by a pass that ends at it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    exact = norm.running_mean.to("cpu" if norm.running_mean.device.type == "mps" else None, torch.float64)
    sums = torch.cat([exact.new_zeros(2, len(exact)).flatten(), exact.new_zeros(1)])  # of values, squares, and how many

    def collect(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)  # (C, N)
        variance, mean = (part.to(sums) for part in torch.var_mean(values, dim=1, correction=0))
        count = values.shape[1]
        sums.add_(torch.cat([count * mean, count * (variance + mean.square()), sums.new_tensor([count])]))
        raise _ReachedError

    with norm.register_forward_pre_hook(collect):
        for batch in batches():
            with suppress(_ReachedError):
                module(batch)
    everyone = add_up(sums)
    count = everyone[-1]
    mean, square = (everyone[:-1] / count).chunk(2)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_((square - mean.square()).clamp(min=0) * count / (count - 1))
