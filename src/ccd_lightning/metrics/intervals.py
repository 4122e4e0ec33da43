"""Closed-form 95% intervals and tests.

DeLong's for AUROCs and their differences, Wilson's for proportions, and those of order statistics for thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, binomtest, norm, rankdata

from ccd_lightning.metrics.types import Floats, Integers

Z = float(norm.ppf(0.975))


class DeLongTest(NamedTuple):
    """Result for two detectors on the same images: AUROC difference (first - second), 95% interval, two-sided p."""

    difference: float
    low: float
    high: float
    p: float


def delong_test(labels: Integers, first: Floats, second: Floats, units: Integers | None = None) -> DeLongTest:
    """Compares the AUROCs of two detectors on the same images (DeLong et al., Biometrics 1988, paired, two-sided).

    Args:
        labels: Labels 0 (normal) or 1 (abnormal), (N,), with at least two units each.
        first: Scores of one detector, (N,); higher is more abnormal.
        second: Scores of the other detector for the same images in the same order, (N,).
        units: Resampling unit of each image as returned by `bootstrap.units`, (N,); by default each image is its own.

    Returns:
        Difference, interval (without the logit transform), and p. If the estimated variance is 0, the interval
        contains only the difference, and p is 1 if the difference is 0 and 0 otherwise.

    Raises:
        ValueError: If lengths differ or a class has fewer than two units.
    """
    if not len(labels) == len(first) == len(second):
        raise ValueError(f"{len(labels)} labels, but {len(first)} and {len(second)} scores")
    units = np.arange(len(labels)) if units is None else units
    if min(len(np.unique(units[labels == label])) for label in (0, 1)) < 2:
        raise ValueError("the test needs at least two normal and two abnormal images, not all of one group")
    normal, abnormal = ([scores[labels == label] for scores in (first, second)] for label in (0, 1))
    areas, covariance = delong_covariance(normal, abnormal, (units[labels == 0], units[labels == 1]))
    difference = float(areas[0] - areas[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0)))
    if error < 1e-12:  # only a rounding error, because areas are ratios of integers
        return DeLongTest(difference, difference, difference, float(difference == 0))
    p = 2 * float(norm.sf(abs(difference) / error))
    return DeLongTest(difference, difference - Z * error, difference + Z * error, p)


def delong_covariance(
    normal: Sequence[Floats], abnormal: Sequence[Floats], units: tuple[Integers, Integers] | None = None
) -> tuple[Floats, Floats]:
    """Returns AUROCs of K detectors on the same images and their covariance (DeLong et al., Biometrics 1988, eq. 5).

    If images are grouped, it is Obuchowski's covariance for clustered data (Biometrics 1997): structural components
    are summed over each unit, and normal and abnormal images of one unit are treated as dependent too. With one image
    per unit it equals DeLong's exactly: sums over u units have the factor u / (u - 1), like the variance of u values.

    Args:
        normal: For each of K detectors, scores (M,) of normal images from at least two units.
        abnormal: For each of K detectors, scores (N,) of abnormal images from at least two units.
        units: Unit numbers >= 0 of the normal (M,) and the abnormal images (N,); by default each image is its own unit.

    Returns:
        AUROCs (K,) and covariance (K, K).
    """
    below = np.stack([placements(low, high) for low, high in zip(normal, abnormal, strict=True)])  # (K, N)
    above = np.stack([1 - placements(high, low) for low, high in zip(normal, abnormal, strict=True)])  # (K, M)
    areas, single = below.mean(axis=1), np.arange(above.shape[1] + below.shape[1])
    members = units or (single[: above.shape[1]], single[above.shape[1] :])
    size = int(np.concatenate(members).max()) + 1
    sums = [  # sums over the images of each unit, (K, size) for each class
        np.stack([np.bincount(own, row, size) for row in (components - areas[:, None]) / len(own)])
        for components, own in zip((above, below), members, strict=True)
    ]
    counts = [len(np.unique(own)) for own in (*members, np.concatenate(members))]
    of_normal, of_abnormal, of_both = (count / (count - 1) for count in counts)
    mixed = sums[0] @ sums[1].T
    within = of_normal * sums[0] @ sums[0].T + of_abnormal * sums[1] @ sums[1].T
    return areas, within + of_both * (mixed + mixed.T)


def delong_interval(normal: Floats, abnormal: Floats) -> tuple[float, float]:
    """Returns the 95% interval of the AUROC (DeLong et al., Biometrics 1988), on the logit scale to stay in [0, 1].

    Args:
        normal: Scores of normal images, (M,), M >= 2.
        abnormal: Scores of abnormal images, (N,), N >= 2.

    Returns:
        Low and high end. For an AUROC of 0 or 1 the estimated variance is 0, and the interval is that of a proportion
        of min(M, N) trials.
    """
    areas, covariance = delong_covariance([normal], [abnormal])
    auroc = float(areas[0])
    if auroc in (0.0, 1.0):
        count = min(len(normal), len(abnormal))
        return wilson_interval(round(auroc * count), count)
    half = Z * float(np.sqrt(covariance[0, 0])) / (auroc * (1 - auroc))  # delta method
    centre = logit(auroc)
    return float(expit(centre - half)), float(expit(centre + half))


def placements(reference: Floats, scores: Floats) -> Floats:
    """Returns DeLong's structural components: the share of the reference below each score, with ties counted half."""
    joint = rankdata(np.concatenate([scores, reference]))[: len(scores)]
    components: Floats = (joint - rankdata(scores)) / len(reference)
    return components


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Returns the 95% interval of a proportion (Wilson, JASA 1927).

    Args:
        successes: Number of successes.
        count: Number of trials, > 0.
    """
    low, high = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def false_positive_interval(count: int, quantile: float) -> tuple[float, float]:
    """Returns the 95% interval of the false positive rate at a threshold: a quantile of n held-out normal scores.

    For independent scores of any distribution, the share of normal images above the k-th smallest of n scores has the
    distribution Beta(n - k + 1, k). The quantile lies between two such scores. The interval extends from the low end
    for the upper score to the high end for the lower score, so it is slightly too wide.

    Args:
        count: Number n of held-out images, at least 1.
        quantile: Quantile in (0, 1), interpolated linearly, as numpy and torch do by default.

    Returns:
        Low and high end of the 95% interval, in [0, 1].
    """
    position = round((count - 1) * quantile, 9)
    lower, upper = int(np.floor(position)) + 1, int(np.ceil(position)) + 1
    low, high = beta.ppf(0.025, count - upper + 1, upper), beta.ppf(0.975, count - lower + 1, lower)
    return float(low), float(high)
