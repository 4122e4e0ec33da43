"""What the scores and maps of held-out normal images say: where the thresholds are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ccd_lightning.distributed import gather_ranks
from ccd_lightning.grids import cut_boxes
from ccd_lightning.metrics.histogram import BINS, binned_quantile, concatenated, count_values

PIXEL_QUANTILE = 0.99  # share of held-out normal images' pixels whose map value is at most the pixel threshold


class Limits(NamedTuple):
    """What is found, on the CPU; the names are those of the detector's buffers."""

    threshold: Tensor
    pixel_threshold: Tensor
    normal_scores: Tensor
    normal_maxima: Tensor
    map_limits: Tensor


class HeldOut:
    """Scores and maps of held-out normal images, of which no map is kept."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets what was added."""
        self.rows: list[Tensor] = []  # score, median and maximum of the map
        self.pixels = torch.zeros(BINS, dtype=torch.int64)

    def add(self, scores: Tensor, maps: Tensor, content: Tensor | None) -> None:
        """Adds scores (B,) and maps (B, H, W), of which what lies within boxes (B, 4) counts, or all."""
        shown = [part.flatten() for part in cut_boxes(maps, content)]
        rows = [torch.stack([score, own.median(), own.amax()]) for score, own in zip(scores, shown, strict=True)]
        self.rows.append(torch.stack(rows))
        # A few large maps at once. What training has broken has no threshold in any case.
        for values in concatenated(own[own.isfinite()] for own in shown):
            self.pixels = self.pixels.to(values.device) + count_values(values)

    def limits(self, quantile: float) -> Limits:
        """What all ranks' images say, the same on each of them; every rank must call it.

        Args:
            quantile: Share of the images whose score is at most the threshold.
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
