from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ccd_lightning.evaluation import curves
from ccd_lightning.evaluation.intervals import delong_test
from ccd_lightning.evaluation.paired import holm, paired_differences

RNG = np.random.default_rng(3)
LABELS = np.repeat([0, 1], [40, 50])
SHARED = RNG.normal(size=90) + LABELS
FIRST, SECOND = (np.round(SHARED + RNG.normal(size=90) * noise, 1) for noise in (0.5, 1.5))  # with ties


def test_differences_are_those_of_sklearn() -> None:
    found = paired_differences(LABELS, FIRST, SECOND, resamples=10)
    precision = [average_precision_score(LABELS, scores) for scores in (FIRST, SECOND)]
    assert found["image/average_precision"][0] == pytest.approx(precision[0] - precision[1])
    curve = [roc_curve(LABELS, scores, drop_intermediate=False) for scores in (FIRST, SECOND)]
    sensitivity = [max(true[false <= 0.05]) for false, true, _ in curve]
    assert found["image/sensitivity_at_specificity_95"][0] == pytest.approx(sensitivity[0] - sensitivity[1])


def test_the_interval_of_the_area_is_nearly_delongs() -> None:
    found = paired_differences(LABELS, FIRST, SECOND, {"auroc": curves.partial_area})["auroc"]
    expected = delong_test(LABELS, FIRST, SECOND)
    assert found[0] == pytest.approx(roc_auc_score(LABELS, FIRST) - roc_auc_score(LABELS, SECOND))
    assert found == pytest.approx(expected[:3], abs=0.1 * (expected.high - expected.low))


def test_resamples_are_shared() -> None:
    for difference in paired_differences(LABELS, FIRST, np.exp(FIRST), resamples=50).values():
        assert difference == (0, 0, 0)  # same order of scores, same metrics on every resample
    found, swapped = (paired_differences(LABELS, *pair, resamples=50) for pair in ((FIRST, SECOND), (SECOND, FIRST)))
    for name, (value, low, high) in found.items():
        assert swapped[name] == pytest.approx((-value, -high, -low))


def test_intervals_miss_as_often_as_they_say() -> None:
    rng, labels, held = np.random.default_rng(0), np.repeat([0, 1], [60, 50]), np.zeros(2)
    for _ in range(300):  # two equally good detectors that share half of their noise
        shared = rng.normal(size=110) + 1.2 * labels
        first, second = (shared + rng.normal(size=110) for _ in range(2))
        found = paired_differences(labels, first, second, resamples=50)
        held += [low <= 0 <= high for _, low, high in found.values()]
    assert ((held >= 0.9 * 300) & (held <= 0.985 * 300)).all()


def test_holm_is_that_of_r() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1, 1]
    assert holm([0.2]) == [0.2]
