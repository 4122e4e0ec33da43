"""Interprets scores by their percentile among held-out normal images."""

from __future__ import annotations

import numpy as np

from ccd_lightning.metrics.types import Floats

FEW = 20  # with fewer held-out images, the usual 95% quantile is close to their largest score


def normal_percentile(scores: Floats, normal_scores: Floats) -> Floats:
    """Returns the percentile of each score among the scores of held-out normal images.

    The score is ranked together with the n held-out scores. Its mid-rank r among n + 1 gives the percentile
    100 (r - 1/2) / (n + 1). It is never 0 or 100, because n images do not allow this precision, and is 50 on average
    for a new normal image. 100 minus the percentile is, up to half a rank, the conformal p-value (in percent) of the
    hypothesis that the image is normal.

    Args:
        scores: Scores, (N,); higher is more abnormal.
        normal_scores: Scores of held-out normal images, (n,).

    Returns:
        Percentiles (N,) in (0, 100); NaN if n is 0.
    """
    if not len(normal_scores):
        return np.full(len(scores), np.nan)
    held_out = np.sort(normal_scores)
    below, up_to = (np.searchsorted(held_out, scores, side=side) for side in ("left", "right"))
    # Mid-rank among n + 1: `below` scores are smaller, `up_to - below` are equal.
    percentile: Floats = 100 * (below + (up_to - below + 1) / 2) / (len(held_out) + 1)
    return percentile


def few_held_out(count: int, quantile: float | None) -> str:
    """Returns a warning if a threshold comes from few held-out images; empty if there are enough.

    Args:
        count: Number of held-out images.
        quantile: Quantile of their scores that is the threshold; None if unknown.
    """
    if quantile is None or not 0 < count < FEW:
        return ""
    from ccd_lightning.metrics.intervals import false_positive_interval  # imports SciPy: a second

    low, high = false_positive_interval(count, quantile)
    images = "1 held-out image" if count == 1 else f"{count} held-out images"
    return (
        f"The threshold comes from only {images}: it will call between {_percent(low)} and {_percent(high)} of normal"
        " images abnormal (95% interval)."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
