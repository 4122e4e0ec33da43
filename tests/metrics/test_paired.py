from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.intervals import delong_test
from ccd_lightning.metrics.paired import holm, paired_differences
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Integers


def images(labels: Integers, groups: Integers | None = None) -> list[ImageRecord]:
    names = [""] * len(labels) if groups is None else map(str, groups)
    return [
        ImageRecord(str(i), int(label), "", 0.0, group)
        for i, (label, group) in enumerate(zip(labels, names, strict=True))
    ]


RNG = np.random.default_rng(3)
LABELS = np.repeat([0, 1], [40, 50])
IMAGES = images(LABELS)
SHARED = RNG.normal(size=90) + LABELS
FIRST, SECOND = (np.round(SHARED + RNG.normal(size=90) * noise, 1) for noise in (0.5, 1.5))  # with ties


def test_differences_are_those_of_sklearn() -> None:
    found = paired_differences(IMAGES, FIRST, SECOND, resamples=10)
    precision = [average_precision_score(LABELS, scores) for scores in (FIRST, SECOND)]
    assert found["image/average_precision"][0] == pytest.approx(precision[0] - precision[1])
    curve = [roc_curve(LABELS, scores, drop_intermediate=False) for scores in (FIRST, SECOND)]
    sensitivity = [max(true[false <= 0.05]) for false, true, _ in curve]
    assert found["image/sensitivity_at_specificity_95"][0] == pytest.approx(sensitivity[0] - sensitivity[1])


def test_the_interval_of_the_area_is_nearly_delongs() -> None:
    found = paired_differences(IMAGES, FIRST, SECOND, {"auroc": curves.partial_auc})["auroc"]
    expected = delong_test(LABELS, FIRST, SECOND)
    assert found[0] == pytest.approx(roc_auc_score(LABELS, FIRST) - roc_auc_score(LABELS, SECOND))
    assert found == pytest.approx(expected[:3], abs=0.1 * (expected.high - expected.low))


def test_resamples_are_shared() -> None:
    for difference in paired_differences(IMAGES, FIRST, np.exp(FIRST), resamples=50).values():
        assert difference == (0, 0, 0)  # same order of scores, same metrics on every resample
    found, swapped = (paired_differences(IMAGES, *pair, resamples=50) for pair in ((FIRST, SECOND), (SECOND, FIRST)))
    for name, (value, low, high) in found.items():
        assert swapped[name] == pytest.approx((-value, -high, -low))


def test_intervals_miss_as_often_as_they_say() -> None:
    rng, labels, held = np.random.default_rng(0), np.repeat([0, 1], [60, 50]), np.zeros(2)
    for _ in range(300):  # two equally good detectors that share half of their noise
        shared = rng.normal(size=110) + 1.2 * labels
        first, second = (shared + rng.normal(size=110) for _ in range(2))
        found = paired_differences(images(labels), first, second, resamples=50)
        held += [low <= 0 <= high for _, low, high in found.values()]
    assert ((held >= 0.9 * 300) & (held <= 0.985 * 300)).all()


def test_groups_are_drawn_whole() -> None:
    labels, groups = np.repeat([0, 1], [12, 18]), np.arange(30) // 3
    one, other = (np.round(RNG.normal(size=30) + labels, 1) for _ in range(2))
    found = paired_differences(images(labels, groups), one, other, resamples=4000)["image/average_precision"]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(2000):  # patients with normal and with abnormal images, each with replacement
        chosen = np.concatenate([rng.choice(4, 4), 4 + rng.choice(6, 6)])
        rows = (3 * chosen[:, None] + np.arange(3)).ravel()
        drawn.append(np.subtract(*(average_precision_score(labels[rows], scores[rows]) for scores in (one, other))))
    assert (found[2] - found[1]) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.07)


def test_intervals_of_grouped_images_miss_as_often_as_they_say() -> None:
    rng, labels, groups = np.random.default_rng(0), np.repeat([0, 1], 100), np.arange(200) // 4
    held = {"grouped": np.zeros(2), "alone": np.zeros(2)}
    for _ in range(200):  # two equally good detectors, whose errors patients share
        shared = rng.normal(size=200) + 1.5 * labels
        one, other = (shared + 1.5 * rng.normal(size=50)[groups] + rng.normal(size=200) / 2 for _ in range(2))
        for name, rows in (("grouped", images(labels, groups)), ("alone", images(labels))):
            found = paired_differences(rows, one, other, resamples=50)
            held[name] += [low <= 0 <= high for _, low, high in found.values()]
    assert (held["grouped"] >= 0.88 * 200).all()
    assert (held["alone"] < held["grouped"] - 10).all()


def test_holm_is_that_of_r() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.5, 0.02]) == pytest.approx([0.06, 0.5, 0.06])  # equal ones stay equal
    assert holm([0.7, 0.9]) == [1, 1]
    assert holm([0.2]) == [0.2]
