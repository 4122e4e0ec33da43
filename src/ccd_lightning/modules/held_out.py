"""Computes thresholds from the scores and maps of held-out normal images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.grids import cut_boxes
from ccd_lightning.metrics.histogram import BINS, binned_quantile, concatenated, count_values

PIXEL_QUANTILE = 0.99  # share of the pixels of held-out normal images with map values up to the pixel threshold


class Limits(NamedTuple):
    """Thresholds and statistics of the held-out images, on the CPU; named after the detector's buffers."""

    threshold: Tensor
    pixel_threshold: Tensor
    normal_scores: Tensor
    normal_maxima: Tensor
    map_limits: Tensor


class HeldOut:
    """Accumulates the scores and map statistics of held-out normal images, without keeping the maps."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Resets everything that was added."""
        self.rows: list[Tensor] = []  # score, median and maximum of the map
        self.pixels = torch.zeros(BINS, dtype=torch.int64)

    def add(self, scores: Tensor, maps: Tensor, content: Tensor | None) -> None:
        """Adds scores (B,) and maps (B, H, W), of which only the content boxes (B, 4) count; None for all."""
        shown = [part.flatten() for part in cut_boxes(maps, content)]
        rows = [torch.stack([score, own.median(), own.amax()]) for score, own in zip(scores, shown, strict=True)]
        self.rows.append(torch.stack(rows))
        # Counts several maps at once. Values that are not finite come from failed training and are left out.
        for values in concatenated(own[own.isfinite()] for own in shown):
            self.pixels = self.pixels.to(values.device) + count_values(values)

    def limits(self, quantile: float) -> Limits:
        """Computes the limits from the images of all ranks, the same on each rank. Every rank must call this method.

        Args:
            quantile: Share of the images that score at most the threshold.
        """
        shares = gather_ranks((torch.cat(self.rows).cpu(), self.pixels.cpu().to_sparse()))
        scores, medians, maxima = torch.cat([rows for rows, _ in shares]).T
        counts = torch.stack([pixels.to_dense() for _, pixels in shares]).sum(dim=0)
        return Limits(
            torch.quantile(scores, quantile),
            torch.tensor(binned_quantile(counts, PIXEL_QUANTILE)),
            scores.sort().values,
            maxima.sort().values,
            torch.stack([medians.median(), torch.quantile(maxima, quantile)]),
        )
