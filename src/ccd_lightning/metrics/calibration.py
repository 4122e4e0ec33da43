"""What a score means: where it lies among held-out normal images."""

from __future__ import annotations

import numpy as np

from ccd_lightning.metrics.types import Floats

FEW = 20  # held-out images; with fewer, the usual quantile of 95% is about the largest of their scores


def normal_percentile(scores: Floats, normal_scores: Floats) -> Floats:
    """Percentile of each score among those of held-out normal images.

    The score joins the n held-out ones, and its mid-rank r of n + 1 gives 100 (r - 1/2) / (n + 1). So it is never 0 or
    100 (n images cannot tell more), 50 on average for a new normal image, and 100 minus it is, up to half a rank, the
    conformal p value of the image being normal, in percent.

    Args:
        scores: (N,), higher is more abnormal.
        normal_scores: (n,) scores of held-out normal images.

    Returns:
        (N,) in (0, 100); NaN where n is 0.
    """
    if not len(normal_scores):
        return np.full(len(scores), np.nan)
    held_out = np.sort(normal_scores)
    below, up_to = (np.searchsorted(held_out, scores, side=side) for side in ("left", "right"))
    # Mid-rank among n + 1: `below` are smaller, `up_to - below` equal.
    percentile: Floats = 100 * (below + (up_to - below + 1) / 2) / (len(held_out) + 1)
    return percentile


def few_held_out(count: int, quantile: float | None) -> str:
    """What a threshold is worth that comes from few held-out images, as a sentence; empty where they are enough.

    Args:
        count: How many images were held out.
        quantile: Of their scores, the threshold; None where it is not known.
    """
    if quantile is None or not 0 < count < FEW:
        return ""
    from ccd_lightning.metrics.intervals import false_positive_interval  # SciPy takes a second

    low, high = false_positive_interval(count, quantile)
    images = "1 held-out image" if count == 1 else f"{count} held-out images"
    return (
        f"The threshold comes from only {images}: it will call between {_percent(low)} and {_percent(high)} of normal"
        " images abnormal (95% interval)."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
