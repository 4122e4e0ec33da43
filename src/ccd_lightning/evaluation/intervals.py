"""95% confidence intervals of one test set's metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

Floats = NDArray[np.float64]
Z = float(norm.ppf(0.975))


def delong_interval(normal: Floats, abnormal: Floats) -> tuple[float, float]:
    """95% interval of the AUROC (DeLong et al., Biometrics 1988), on the logit scale so that it stays in [0, 1].

    Args:
        normal: (M,) scores of normal images, M >= 2.
        abnormal: (N,) scores of abnormal images, N >= 2.

    Returns:
        Low and high end. An AUROC of 0 or 1 has no estimated variance; its interval is that of a proportion of
        min(M, N) trials.
    """
    below = placements(normal, abnormal)
    auroc = float(below.mean())
    if auroc in (0.0, 1.0):
        count = min(len(normal), len(abnormal))
        return wilson_interval(round(auroc * count), count)
    above = 1 - placements(abnormal, normal)
    error = float(np.sqrt(below.var(ddof=1) / len(abnormal) + above.var(ddof=1) / len(normal)))
    half = Z * error / (auroc * (1 - auroc))  # delta method
    centre = logit(auroc)
    return float(expit(centre - half)), float(expit(centre + half))


def placements(reference: Floats, scores: Floats) -> Floats:
    """For each score the share of the reference below it, ties counting half: DeLong's structural components."""
    joint = rankdata(np.concatenate([scores, reference]))[: len(scores)]
    components: Floats = (joint - rankdata(scores)) / len(reference)
    return components


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson, JASA 1927).

    Args:
        successes: How many of the trials succeeded.
        count: The number of trials, > 0.
    """
    share, spread = successes / count, Z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * float(np.sqrt(share * (1 - share) / count + spread / (4 * count)))
    return max(0.0, centre - half), min(1.0, centre + half)
