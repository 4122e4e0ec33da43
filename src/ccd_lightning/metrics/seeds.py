"""Metrics over several seeds: intervals over seeds, and paired tests over seeds and test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from ccd_lightning.metrics.intervals import delong_covariance
from ccd_lightning.metrics.types import Floats, Integers

NOTHING = 1e-12  # smaller standard errors are rounding errors, because areas are ratios of integers


class SeedTest(NamedTuple):
    """Result for two methods with the same seeds on the same images.

    Attributes:
        difference: Mean AUROC of the first method minus that of the second.
        low: Low end of the 95% interval.
        high: High end of the 95% interval.
        p: Two-sided p-value.
    """

    difference: float
    low: float
    high: float
    p: float


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95% interval of a mean by Student's t; None if there are fewer than two values, or all are equal."""
    if len(values) < 2 or max(values) - min(values) < NOTHING:
        return None
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def seeds_test(labels: Integers, first: Floats, second: Floats, units: Integers | None = None) -> SeedTest:
    """Compares the AUROCs of two methods over seeds and test images (Obuchowski and Rockette, Comm. Stat. 1995).

    In multi-reader studies, both readers and cases are samples of a population; here seeds take the place of readers.
    With S seeds and the difference d_s of the AUROCs for seed s,

        var(mean d) = var(d_s) / S + max(cov, 0)

    where cov is the mean covariance, over test images, of d_s and d_t for two different seeds, from DeLong's
    covariances. The statistic has Student's distribution with Hillis' degrees of freedom (Statistics in Medicine 2007),
    (S - 1) (var(mean d) / (var(d_s) / S))^2. With one seed, or if seeds have no effect, this is DeLong's test over test
    images.

    Args:
        labels: Labels 0 (normal) or 1 (abnormal), (N,), with at least two units each.
        first: Scores of one method for each seed, (S, N); higher is more abnormal.
        second: Scores of the other method with the same seeds, (S, N).
        units: Resampling unit of each image as returned by `bootstrap.units`, (N,); by default each image is its own.

    Raises:
        ValueError: If shapes differ or a class has fewer than two units.
    """
    if first.shape != second.shape or first.shape[1:] != labels.shape or not len(first):
        raise ValueError(f"{labels.shape} labels, but {first.shape} and {second.shape} scores")
    units = np.arange(len(labels)) if units is None else units
    sides = [labels == label for label in (0, 1)]
    if min(len(np.unique(units[side])) for side in sides) < 2:
        raise ValueError("the test needs at least two normal and two abnormal images, not all of one group")
    count = len(first)
    normal, abnormal = ([*first[:, side], *second[:, side]] for side in sides)
    areas, covariance = delong_covariance(normal, abnormal, (units[sides[0]], units[sides[1]]))
    contrast = np.hstack([np.eye(count), -np.eye(count)])  # (S, 2S), maps areas to differences per seed
    differences, within = contrast @ areas, contrast @ covariance @ contrast.T  # (S,), (S, S)
    of_seeds = float(differences.var(ddof=1)) / count if count > 1 else 0.0
    of_images = (within.sum() - np.trace(within)) / (count * (count - 1)) if count > 1 else within[0, 0]
    return _student(float(differences.mean()), of_seeds, max(float(of_images), 0.0), count)


def _student(difference: float, of_seeds: float, of_images: float, count: int) -> SeedTest:
    error = float(np.sqrt(of_seeds + of_images))
    if error < NOTHING:
        return SeedTest(difference, difference, difference, float(abs(difference) < NOTHING))
    # If seeds have no effect, use the normal distribution, as in DeLong's test.
    degrees = np.inf if np.sqrt(of_seeds) < NOTHING else (count - 1) * ((of_seeds + of_images) / of_seeds) ** 2
    half = float(student.ppf(0.975, degrees)) * error
    p = 2 * float(student.sf(abs(difference) / error, degrees))
    return SeedTest(difference, difference - half, difference + half, p)
