"""Brings scores of different detectors to one scale: their ranks among the scores of normal images."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12


def rank_scores(scores: Tensor, normal: Tensor) -> Tensor:
    """Returns the ranks of scores among those of held-out normal images, without an upper limit.

    Ranks are interpolated between normal scores. Plain ranks would be 1 for all scores above the largest normal score,
    and these matter most. So above it, the rank continues linearly, with the average slope between the median and the
    maximum of the normal scores. Below the smallest normal score, it decreases towards 0.

    Args:
        scores: Scores, (B,).
        normal: Scores of held-out normal images in ascending order, (N,), N > 0.

    Returns:
        Ranks (B,), > 0 and increasing with the scores: 0.5 at the median of the normal scores, about 1 at their
        maximum.
    """
    count = len(normal)
    lowest, highest, middle = normal[0], normal[-1], normal[(count - 1) // 2]
    rank = torch.full_like(scores, 0.5 / count)
    if count > 1:
        gaps = (normal[1:] - normal[:-1]).clamp(min=TINY)
        rank = rank + ((scores[:, None] - normal[:-1]) / gaps).clamp(0, 1).sum(dim=1) / count
    least = 0.01 * highest.abs() + TINY  # avoids division by 0 if all normal scores are equal
    above = 0.5 * (scores - highest).clamp(min=0) / (highest - middle).maximum(least)
    below = torch.exp(-(lowest - scores).clamp(min=0) / (middle - lowest).maximum(least))
    return (rank + above) * below
