"""Scores of different detectors on one scale: their ranks among the scores of normal images."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12


def rank_scores(scores: Tensor, normal: Tensor) -> Tensor:
    """Where scores lie among those of held-out normal images, without an end.

    Between two normal scores the rank is interpolated. Ranks alone would be 1 for all scores above the largest normal
    one, which are the interesting ones: beyond it, a score goes on rising as steeply as normal scores do on average
    between their median and their maximum. Below the smallest one it falls towards 0.

    Args:
        scores: (B,).
        normal: (N,), rising, N > 0.

    Returns:
        (B,), > 0 and rising with the scores; 0.5 is the median of the normal ones, about 1 their maximum.
    """
    count = len(normal)
    lowest, highest, middle = normal[0], normal[-1], normal[(count - 1) // 2]
    rank = torch.full_like(scores, 0.5 / count)
    if count > 1:
        gaps = (normal[1:] - normal[:-1]).clamp(min=TINY)
        rank = rank + ((scores[:, None] - normal[:-1]) / gaps).clamp(0, 1).sum(dim=1) / count
    least = 0.01 * highest.abs() + TINY  # where normal scores are all the same
    above = 0.5 * (scores - highest).clamp(min=0) / (highest - middle).maximum(least)
    below = torch.exp(-(lowest - scores).clamp(min=0) / (middle - lowest).maximum(least))
    return (rank + above) * below
