"""Detectors on features that are local: those of a position are the means of its own pixels, and of no other's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.grids import Grid, pooled
from ccd_lightning.models.patch_features import FeatureConfig, PatchFeatures
from ccd_lightning.modules.mahalanobis import Mahalanobis
from ccd_lightning.modules.neighbours import Neighbours
from ccd_lightning.modules.padim import PaDiM
from ccd_lightning.modules.statistics import StatisticsDetector

CELL = 4


class LocalEncoder:
    """Means of cells of 4 x 4 pixels, of the channels and of their squares."""

    name = "local"
    channels = (6,)
    strides = (CELL,)
    default_levels = (0,)

    def maps(self, images: Tensor, levels: Sequence[int]) -> list[Tensor]:
        return [functional.avg_pool2d(torch.cat([images, images.square()], dim=1), CELL) for _ in levels]

    def grids(self, size: tuple[int, int], levels: Sequence[int]) -> list[tuple[Grid, Grid]]:
        return [(pooled(CELL), pooled(CELL)) for _ in levels]


def _local(detector: Any) -> StatisticsDetector:
    encoder: Any = LocalEncoder()
    detector.features = PatchFeatures(encoder, FeatureConfig(layers=(0,)))
    if isinstance(detector, PaDiM):
        detector.selected = torch.arange(6)
        detector._divide_selected()
    made: StatisticsDetector = detector.eval()
    return made


MADE: dict[str, Callable[[], StatisticsDetector]] = {
    "padim": lambda: _local(PaDiM(blur=8.0)),
    "padim, top and shrinkage": lambda: _local(PaDiM(blur=0.0, top=0.1, shrinkage=True)),
    "neighbours": lambda: _local(Neighbours(blur=0.0)),
    "neighbours anywhere": lambda: _local(Neighbours(window=None, reweight=3)),
    "neighbours, reweighted": lambda: _local(Neighbours(window=0, reweight=3)),
    "neighbours, pooled": lambda: _local(Neighbours(pooled=True)),
    "mahalanobis": lambda: _local(Mahalanobis(blur=0.0)),
}
