"""Batch normalisation between views, patches and whole images.

Pretraining normalises views and patches by the statistics of their own batch. The running statistics, a mixture of
both, fit neither, and whole images least of all: so held-out views are measured as the training views are, and the
running statistics are taken anew from whole images, which is what detectors show the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Normalises by the statistics of each batch, as in training, but leaves the running ones alone."""
    norms = _norms(module)
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = mode, True


@torch.no_grad()
def calibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces the running statistics by the mean over these batches; modes and weights stay as they are."""
    norms = _norms(module)
    kept = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.training, norm.momentum = True, None  # no momentum: a plain average
    for batch in batches:
        module(batch)
    for norm, (mode, momentum) in zip(norms, kept, strict=True):
        norm.training, norm.momentum = mode, momentum
