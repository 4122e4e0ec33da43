"""What a score means: where it lies among held-out normal images."""

from __future__ import annotations

import numpy as np

from ccd_lightning.evaluation.intervals import Floats


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
