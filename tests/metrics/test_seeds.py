from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from ccd_lightning.metrics.intervals import delong_test
from ccd_lightning.metrics.seeds import mean_interval, seeds_test

Floats = NDArray[np.float64]
LABELS = np.array([0] * 9 + [1] * 12)


def drawn(rng: np.random.Generator, seeds: int, of_seeds: float, labels: NDArray[np.int64] = LABELS) -> Floats:
    """Scores of a method: cases that all seeds find hard, strengths that differ by seed, and noise."""
    strength = 1 + of_seeds * rng.normal(size=(seeds, 1))
    return strength * labels + 0.5 * rng.normal(size=len(labels)) + 0.5 * rng.normal(size=(seeds, len(labels)))


def auroc(labels: NDArray[np.int64], scores: Floats) -> float:
    pairs = [(high > low) + (high == low) / 2 for low in scores[labels == 0] for high in scores[labels == 1]]
    return float(np.mean(pairs))


def delong_covariance(labels: NDArray[np.int64], one: Floats, other: Floats) -> float:
    """Of two areas, in loops from the paper's equations 4 and 5."""

    def kernel(low: float, high: float) -> float:
        return (high > low) + (high == low) / 2

    parts = []
    for label in (0, 1):
        components = []
        for scores in (one, other):
            low, high = scores[labels == 0], scores[labels == 1]
            rows = [[kernel(x, y) for y in high] for x in low]
            components.append(np.mean(rows, axis=1 - label))
        parts.append(np.cov(*components)[0, 1] / (labels == label).sum())
    return float(sum(parts))


def obuchowski_rockette(labels: NDArray[np.int64], first: Floats, second: Floats) -> tuple[float, float, float]:
    """Difference, its standard error and degrees of freedom, from mean squares and mean covariances."""
    readers = len(first)
    areas = np.array([[auroc(labels, scores) for scores in side] for side in (first, second)])
    centred = areas - areas.mean(axis=0) - areas.mean(axis=1, keepdims=True) + areas.mean()
    mean_square = (centred**2).sum() / (readers - 1)  # of method x reader
    pairs = list(itertools.permutations(range(readers), 2))
    same = [delong_covariance(labels, side[i], side[j]) for side in (first, second) for i, j in pairs]
    across = [delong_covariance(labels, first[i], second[j]) for i, j in pairs]
    error = mean_square + readers * max(float(np.mean(same) - np.mean(across)), 0.0)
    degrees = error**2 / (mean_square**2 / (readers - 1))
    return float(areas[0].mean() - areas[1].mean()), float(np.sqrt(2 / readers * error)), float(degrees)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("labels", [LABELS, LABELS[7:], LABELS[:11]], ids=["many", "two normal", "two abnormal"])
def test_the_test_over_seeds_agrees_with_obuchowski_and_rockette(seeds: int, labels: NDArray[np.int64]) -> None:
    rng = np.random.default_rng(seeds)
    first, second = drawn(rng, seeds, 0.3, labels), drawn(rng, seeds, 0.3, labels)
    difference, error, degrees = obuchowski_rockette(labels, first, second)
    found = seeds_test(labels, first, second)
    assert found.difference == pytest.approx(difference)
    assert found.p == pytest.approx(2 * student.sf(abs(difference) / error, degrees))
    half = student.ppf(0.975, degrees) * error
    assert [found.low, found.high] == pytest.approx([difference - half, difference + half])


def test_one_seed_or_seeds_that_change_nothing_leave_delong_s_test() -> None:
    rng = np.random.default_rng(1)
    first, second = drawn(rng, 1, 0), drawn(rng, 1, 0)
    units = np.array([0, 0, 1, 2, 2, *range(3, 19)])
    for own in (None, units):
        expected = delong_test(LABELS, first[0], second[0], own)
        for count in (1, 4):
            found = seeds_test(LABELS, np.repeat(first, count, 0), np.repeat(second, count, 0), own)
            assert found == pytest.approx(expected)
    assert delong_test(LABELS, first[0], second[0], units).p != delong_test(LABELS, first[0], second[0]).p


def test_the_same_scores_do_not_differ() -> None:
    scores = drawn(np.random.default_rng(2), 3, 0.3)
    assert seeds_test(LABELS, scores, scores) == (0.0, 0.0, 0.0, 1.0)
    apart = np.tile(LABELS + 0.0, (2, 1))
    assert seeds_test(LABELS, apart, -apart) == (1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(("of_seeds", "too_often"), [(0.4, "images"), (0.05, "seeds")])
def test_errors_of_the_first_kind_are_as_rare_as_they_should_be(of_seeds: float, too_often: str) -> None:
    """Where other seeds and other images are drawn each time, a test over either alone rejects too often."""
    rng, labels = np.random.default_rng(0), np.array([0] * 40 + [1] * 40)
    rejected = dict.fromkeys(("both", "seeds", "images"), 0)
    for _ in range(300):
        first, second = drawn(rng, 4, of_seeds, labels), drawn(rng, 4, of_seeds, labels)
        rejected["both"] += seeds_test(labels, first, second).p < 0.05
        areas = np.array([[auroc_fast(labels, scores) for scores in side] for side in (first, second)])
        rejected["seeds"] += ttest_1samp(areas[0] - areas[1], 0).pvalue < 0.05
        rejected["images"] += delong_test(labels, first[0], second[0]).p < 0.05
    assert rejected["both"] < 0.09 * 300
    assert rejected[too_often] > 0.15 * 300


def auroc_fast(labels: NDArray[np.int64], scores: Floats) -> float:
    low, high = scores[labels == 0], scores[labels == 1]
    return float((high[:, None] > low).mean())


def test_impossible_input_is_refused() -> None:
    scores = drawn(np.random.default_rng(0), 2, 0)
    with pytest.raises(ValueError, match="labels, but"):
        seeds_test(LABELS, scores, scores[:1])
    with pytest.raises(ValueError, match="labels, but"):
        seeds_test(LABELS[:5], scores, scores)
    for labels in ([0, 1, 1], [0, 0, 1]):
        with pytest.raises(ValueError, match="at least two normal"):
            seeds_test(np.array(labels), scores[:, :3], scores[:, :3])


def test_the_interval_of_a_mean_is_student_s() -> None:
    values = [0.71, 0.75, 0.78, 0.69]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))
    assert mean_interval([0.7]) is None
    assert mean_interval([0.7, 0.7, 0.7]) is None
