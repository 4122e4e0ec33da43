"""Closed forms of uncertainty, all at 95%.

DeLong's for areas and their difference, Wilson's for proportions, and that of order statistics for thresholds.
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
    """Two detectors on the same images: difference of the AUROCs (first minus second), 95% interval, two-sided p."""

    difference: float
    low: float
    high: float
    p: float


def delong_test(labels: Integers, first: Floats, second: Floats, units: Integers | None = None) -> DeLongTest:
    """Compares the AUROCs of two detectors on the same images (DeLong et al., Biometrics 1988, paired, two-sided).

    Args:
        labels: (N,), 0 (normal) or 1 (abnormal), of at least two units each.
        first: (N,) scores of one detector, higher is more abnormal.
        second: (N,) scores of the other one, of the same images in the same order.
        units: (N,) which images belong together, as `bootstrap.units` numbers them; by default each is on its own.

    Returns:
        Difference, interval on the plain scale, and p. Where neither area varies, nothing can be estimated: the
        interval is the difference alone, and p is 1 without a difference and 0 with one.

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
    if error < 1e-12:  # of rounding: areas are shares of whole numbers
        return DeLongTest(difference, difference, difference, float(difference == 0))
    p = 2 * float(norm.sf(abs(difference) / error))
    return DeLongTest(difference, difference - Z * error, difference + Z * error, p)


def delong_covariance(
    normal: Sequence[Floats], abnormal: Sequence[Floats], units: tuple[Integers, Integers] | None = None
) -> tuple[Floats, Floats]:
    """AUROCs of K detectors on the same images, and their covariance (DeLong et al., Biometrics 1988, equation 5).

    Where images belong together it is Obuchowski's for clustered data (Biometrics 1997): structural components are
    summed over each unit, and normal and abnormal images of one unit count as dependent too. With units of one image it
    is DeLong's to the digit: sums over u units have the factor u / (u - 1), as variances of u values do.

    Args:
        normal: K times the (M,) scores of normal images, of at least two units.
        abnormal: K times the (N,) scores of abnormal images, of at least two units.
        units: Numbers >= 0 of the units of the normal (M,) and of the abnormal images (N,); by default each is on its
            own.

    Returns:
        Areas (K,) and covariance (K, K).
    """
    below = np.stack([placements(low, high) for low, high in zip(normal, abnormal, strict=True)])  # (K, N)
    above = np.stack([1 - placements(high, low) for low, high in zip(normal, abnormal, strict=True)])  # (K, M)
    areas, single = below.mean(axis=1), np.arange(above.shape[1] + below.shape[1])
    members = units or (single[: above.shape[1]], single[above.shape[1] :])
    size = int(np.concatenate(members).max()) + 1
    sums = [  # over the images of each unit, (K, size) for each class
        np.stack([np.bincount(own, row, size) for row in (components - areas[:, None]) / len(own)])
        for components, own in zip((above, below), members, strict=True)
    ]
    counts = [len(np.unique(own)) for own in (*members, np.concatenate(members))]
    of_normal, of_abnormal, of_both = (count / (count - 1) for count in counts)
    mixed = sums[0] @ sums[1].T
    within = of_normal * sums[0] @ sums[0].T + of_abnormal * sums[1] @ sums[1].T
    return areas, within + of_both * (mixed + mixed.T)


def delong_interval(normal: Floats, abnormal: Floats) -> tuple[float, float]:
    """95% interval of the AUROC (DeLong et al., Biometrics 1988), on the logit scale so that it stays in [0, 1].

    Args:
        normal: (M,) scores of normal images, M >= 2.
        abnormal: (N,) scores of abnormal images, N >= 2.

    Returns:
        Low and high end. An AUROC of 0 or 1 has no estimated variance; its interval is that of a proportion of
        min(M, N) trials.
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
    low, high = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def false_positive_interval(count: int, quantile: float) -> tuple[float, float]:
    """What share of normal images lies above a quantile of the scores of a few of them.

    The share above the k-th smallest of n independent scores has the distribution Beta(n - k + 1, k), whatever that of
    the scores is. The quantile lies between two such scores: the interval reaches from the low end of the upper one to
    the high end of the lower one, so it is somewhat too wide.

    Args:
        count: n, how many images were held out, at least 1.
        quantile: In (0, 1), interpolated linearly, as numpy and torch do by default.

    Returns:
        Low and high end of the 95% interval, in [0, 1].
    """
    position = round((count - 1) * quantile, 9)
    lower, upper = int(np.floor(position)) + 1, int(np.ceil(position)) + 1
    low, high = beta.ppf(0.025, count - upper + 1, upper), beta.ppf(0.975, count - lower + 1, lower)
    return float(low), float(high)
