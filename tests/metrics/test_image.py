from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score, roc_curve
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_average_precision,
    binary_f1_score,
    binary_recall,
    binary_sensitivity_at_specificity,
    binary_specificity,
    binary_specificity_at_sensitivity,
)

from ccd_lightning.metrics.bootstrap import bootstrap, bootstrap_interval
from ccd_lightning.metrics.image import IMAGE_METRICS, image_metrics, image_values
from ccd_lightning.metrics.intervals import delong_interval, wilson_interval
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats, Integers

THRESHOLD = 1.5
ON_DECISIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "image/accuracy": binary_accuracy,
    "image/f1": binary_f1_score,
    "image/sensitivity": binary_recall,
    "image/specificity": binary_specificity,
}
ON_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "image/auroc": binary_auroc,
    "image/average_precision": binary_average_precision,
    "image/sensitivity_at_specificity_90": lambda p, y: binary_sensitivity_at_specificity(p, y, 0.90)[0],
    "image/sensitivity_at_specificity_95": lambda p, y: binary_sensitivity_at_specificity(p, y, 0.95)[0],
    "image/specificity_at_sensitivity_90": lambda p, y: binary_specificity_at_sensitivity(p, y, 0.90)[0],
    "image/specificity_at_sensitivity_95": lambda p, y: binary_specificity_at_sensitivity(p, y, 0.95)[0],
}
CLOSED = ("image/auroc", "image/sensitivity", "image/specificity")


def sample(seed: int = 0, group: int = 0) -> tuple[Integers, Floats, list[ImageRecord]]:
    """Tied scores of 60 normal and 40 abnormal images; `group` of them make a group, if any."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [60, 40])
    scores = (rng.normal(size=100) + 1.5 * labels).round(1)
    rows = enumerate(zip(labels.tolist(), scores.tolist(), strict=True))
    records = [
        ImageRecord(f"{i:03d}.png", label, "", score, str(i // group) if group else "") for i, (label, score) in rows
    ]
    return labels, scores, records


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_sklearn(seed: int) -> None:
    labels, scores, records = sample(seed)
    decided = scores > THRESHOLD
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        "image/auroc": roc_auc_score(labels, scores),
        "image/average_precision": average_precision_score(labels, scores),
        "image/accuracy": accuracy_score(labels, decided),
        "image/f1": f1_score(labels, decided),
        "image/sensitivity": decided[labels == 1].mean(),
        "image/specificity": 1 - decided[labels == 0].mean(),
    }
    for percent in (90, 95):
        expected[f"image/sensitivity_at_specificity_{percent}"] = true[false <= 1 - percent / 100 + 1e-12].max()
        expected[f"image/specificity_at_sensitivity_{percent}"] = 1 - false[true >= percent / 100 - 1e-12].min()
    found = image_metrics(records, THRESHOLD, resamples=0)
    assert found.metrics == pytest.approx(expected, abs=1e-6)
    assert set(found.metrics) == set(IMAGE_METRICS)
    assert set(found.intervals) == set(CLOSED)


@pytest.mark.parametrize("count", [20, 40, 60, 100, 180])
def test_a_specificity_of_exactly_95_percent_is_enough(count: int) -> None:
    records = [ImageRecord(f"{i:03d}", 0, "", float(i)) for i in range(count)]
    records.append(ImageRecord("x", 1, "", count - count // 20 - 0.5))  # exceeded by one in twenty
    assert image_metrics(records, 0.0, resamples=0).metrics["image/sensitivity_at_specificity_95"] == 1
    records[-1] = records[-1]._replace(score=records[-1].score - 1)
    assert image_metrics(records, 0.0, resamples=0).metrics["image/sensitivity_at_specificity_95"] == 0


def test_metrics_of_resamples_are_those_of_torchmetrics_on_the_rows_that_were_drawn() -> None:
    labels, scores, _ = sample()
    ranks = torch.from_numpy(np.unique(scores, return_inverse=True)[1] / 100)  # others pass through a sigmoid
    drawn = np.random.default_rng(1).multinomial(100, np.full(100, 0.01), size=20)
    found = image_values(IMAGE_METRICS, drawn.astype(float), labels, scores, THRESHOLD)
    assert set(found) == set(IMAGE_METRICS) == {*ON_DECISIONS, *ON_SCORES}
    for number, times in enumerate(drawn):
        rows = np.repeat(np.arange(100), times)
        target, decided = torch.from_numpy(labels[rows]), torch.from_numpy(scores[rows] > THRESHOLD).long()
        expected = {name: float(function(decided, target)) for name, function in ON_DECISIONS.items()}
        expected |= {name: float(function(ranks[rows], target)) for name, function in ON_SCORES.items()}
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected, abs=1e-6)


def test_independent_images_have_the_closed_intervals() -> None:
    labels, scores, records = sample()
    found = image_metrics(records, THRESHOLD)
    assert found.intervals["image/auroc"] == delong_interval(scores[labels == 0], scores[labels == 1])
    hits, cleared = int((scores[labels == 1] > THRESHOLD).sum()), int((scores[labels == 0] <= THRESHOLD).sum())
    assert found.intervals["image/sensitivity"] == wilson_interval(hits, 40)
    assert found.intervals["image/specificity"] == wilson_interval(cleared, 60)
    for name, (low, high) in found.intervals.items():
        assert 0 <= low < found.metrics[name] < high <= 1


@pytest.mark.parametrize("group", [0, 4])
def test_other_intervals_are_those_of_resampled_rows(group: int) -> None:
    labels, scores, records = sample(group=group)
    found = image_metrics(records, THRESHOLD, resamples=200)

    def evaluate(drawn: Floats) -> dict[str, Floats]:
        rows = [np.repeat(np.arange(100), row.astype(int)) for row in drawn]
        return {
            "image/auroc": np.array([roc_auc_score(labels[row], scores[row]) for row in rows]),
            "image/average_precision": np.array([average_precision_score(labels[row], scores[row]) for row in rows]),
            "image/accuracy": np.array([accuracy_score(labels[row], scores[row] > THRESHOLD) for row in rows]),
            "image/f1": np.array([f1_score(labels[row], scores[row] > THRESHOLD) for row in rows]),
            "image/sensitivity": np.array([(scores[row] > THRESHOLD)[labels[row] == 1].mean() for row in rows]),
        }

    units = 10 if group else 40
    for name, values in bootstrap(records, evaluate, 200).items():
        if group or name not in CLOSED:
            expected = bootstrap_interval(values, found.metrics[name], units)
            assert found.intervals[name] == pytest.approx(expected, abs=1e-6)


def test_images_of_a_group_say_less_than_independent_ones() -> None:
    rng = np.random.default_rng(0)
    alone: list[ImageRecord] = []
    together: list[ImageRecord] = []
    for index in range(100):  # five copies of each of 20 images
        score = float(rng.normal()) if index % 5 == 0 else alone[-1].score
        alone.append(ImageRecord(f"{index:03d}.png", int(index >= 50), "", score + 1.0 * (index == 50)))
        together.append(alone[-1]._replace(group=str(index // 5)))
    wide, narrow = image_metrics(together, 0.5).intervals, image_metrics(alone, 0.5).intervals
    for name in ("image/auroc", "image/average_precision"):
        assert wide[name][1] - wide[name][0] > 1.4 * (narrow[name][1] - narrow[name][0])


def test_perfect_separation_is_not_certainty() -> None:
    records = [ImageRecord(f"{i:02d}", int(i >= 10), "", float(i)) for i in range(30)]
    found = image_metrics(records, 9.5)
    assert set(found.metrics.values()) == {1.0}
    for low, high in found.intervals.values():
        assert 0.5 < low < 0.9
        assert high == pytest.approx(1.0)


def test_intervals_are_the_same_each_time() -> None:
    records = sample()[2]
    assert image_metrics(records, THRESHOLD) == image_metrics(records, THRESHOLD)
