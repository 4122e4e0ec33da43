"""Batch normalisation statistics of views, patches and whole images.

In pretraining, views and patches are normalised with the statistics of their own batch. The running statistics mix
both and fit neither, and whole images even less. Therefore held-out views are evaluated with batch statistics, as
training views are, and the running statistics are recomputed from whole images, which are what detectors pass to the
encoder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ccd_lightning.models.means import AddUp, Batches


def find_norms(module: nn.Module, keep: Collection[nn.Module] = ()) -> list[_BatchNorm]:
    """Returns the batch norm layers of a module in the order of registration, except those in `keep`."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm) and part not in keep]


def synchronise(module: nn.Module) -> None:
    """Converts the batch norm layers of a module, including timm's fused ones, to synchronised batch norm."""
    from timm.layers.norm_act import convert_sync_batchnorm

    convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]


@contextmanager
def batch_statistics(module: nn.Module, keep: Collection[nn.Module] = ()) -> Iterator[None]:
    """Normalises with batch statistics, as in training, without updating the running statistics.

    Args:
        module: Module whose batch norm layers are changed inside the context.
        keep: Batch norm layers that are left unchanged.
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
    """Replaces the running statistics by the mean and the unbiased variance over all images.

    Layers are calibrated one after another: each sees images that the calibrated layers before it have normalised. So
    the result depends neither on the order of the images nor on the batch size. Modes and weights do not change.

    Args:
        module: Module whose batch norm layers are registered in the order in which images pass through them.
        batches: Returns an iterator over the batches of this process's images, the same each time. It is called once
            per batch norm layer, and the forward pass stops at that layer. A process may have no batches.
        add_up: Sums a tensor over all processes.
        keep: Batch norm layers whose statistics do not change.
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
    """Stops a forward pass whose result is not needed."""


def _calibrate_one(norm: _BatchNorm, module: nn.Module, batches: Batches, add_up: AddUp) -> None:
    """Sets the statistics of one batch norm layer, using a forward pass that stops at it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    exact = norm.running_mean.to("cpu" if norm.running_mean.device.type == "mps" else None, torch.float64)
    sums = torch.cat([exact.new_zeros(2, len(exact)).flatten(), exact.new_zeros(1)])  # values, squares, count

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
