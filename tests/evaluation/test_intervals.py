from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from ccd_lightning.evaluation.intervals import delong_interval, placements, wilson_interval


def test_wilson_interval_agrees_with_scipy() -> None:
    for successes, trials in ((0, 7), (3, 7), (7, 7), (90, 100)):
        expected = binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_delong_interval_agrees_with_loops_from_the_paper() -> None:
    # DeLong et al. 1988, equations 4 to 8: structural components, then the variance of the area.
    rng = np.random.default_rng(0)
    normal, abnormal = rng.normal(0, 1, 9).round(1), rng.normal(1, 2, 7).round(1)
    normal[0] = abnormal[0]  # a tie across the classes

    def kernel(high: float, low: float) -> float:
        return 1.0 if high > low else 0.5 if high == low else 0.0

    of_abnormal = [sum(kernel(x, y) for y in normal) / len(normal) for x in abnormal]
    of_normal = [sum(kernel(x, y) for x in abnormal) / len(abnormal) for y in normal]
    area = sum(of_abnormal) / len(abnormal)
    s10 = sum((value - area) ** 2 for value in of_abnormal) / (len(abnormal) - 1)
    s01 = sum((value - area) ** 2 for value in of_normal) / (len(normal) - 1)
    variance = s10 / len(abnormal) + s01 / len(normal)
    half = 1.959964 * np.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + np.exp(-(np.log(area / (1 - area)) + sign * half))) for sign in (-1, 1)]
    assert placements(normal, abnormal) == pytest.approx(np.array(of_abnormal))
    assert delong_interval(normal, abnormal) == pytest.approx(expected, abs=1e-6)


def test_delong_interval_covers_the_true_area() -> None:
    rng = np.random.default_rng(0)
    truth = 0.760250  # Phi(1 / sqrt(2)): two normal distributions one standard deviation apart
    covered = 0
    for _ in range(400):
        low, high = delong_interval(rng.normal(0, 1, 40), rng.normal(1, 1, 40))
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_perfect_separation_is_not_certainty() -> None:
    low, high = delong_interval(np.arange(10.0), np.arange(20.0, 40.0))
    assert 0.5 < low < 0.9
    assert high == pytest.approx(1.0)
