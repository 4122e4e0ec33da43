import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score, roc_curve

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.types import Floats, Integers


def sample(seed: int) -> tuple[Integers, Integers, Floats, Floats]:
    """Labels and scores with many ties, and how many normal and abnormal scores there are of each value."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [70, 40])
    scores = (rng.normal(size=110) + labels).round(1)
    distinct, place = np.unique(scores, return_inverse=True)
    normal, abnormal = (np.bincount(place[labels == y], minlength=len(distinct)).astype(float) for y in (0, 1))
    assert np.array_equal(curves.score_counts(labels, scores), [normal, abnormal])
    return labels, scores, normal, abnormal


@pytest.mark.parametrize("seed", range(3))
def test_areas_and_overlap_agree_with_sklearn(seed: int) -> None:
    labels, scores, normal, abnormal = sample(seed)
    assert curves.partial_auc(normal, abnormal) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert curves.average_precision(normal, abnormal) == pytest.approx(expected, abs=1e-12)
    decisions = [scores >= value for value in np.unique(scores)]
    dice = curves.best_dice(normal, abnormal)
    assert dice == pytest.approx(max(f1_score(labels, called) for called in decisions), abs=1e-12)
    expected = max(jaccard_score(labels, called) for called in decisions)
    assert curves.dice_to_iou(dice) == pytest.approx(expected, abs=1e-12)


def test_area_counts_pairs_and_half_of_the_ties() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 8, 40).astype(float), rng.integers(0, 2, 40)
    wins = [(one > two) + 0.5 * (one == two) for one in scores[labels == 1] for two in scores[labels == 0]]
    area = curves.partial_auc(*curves.score_counts(labels, scores))
    assert area == pytest.approx(np.mean(wins), abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 0.31234, 1.0])
def test_partial_area_is_that_of_the_interpolated_curve(limit: float) -> None:
    labels, scores, normal, abnormal = sample(0)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    inner = false < limit
    x, y = np.append(false[inner], limit), np.append(true[inner], np.interp(limit, false, true))
    if limit == 1.0:
        y[-1] = 1
    assert curves.partial_auc(normal, abnormal, limit) == pytest.approx(np.trapezoid(y, x) / limit, abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 1.0])
def test_one_rate_at_another_agrees_with_trying_every_threshold(share: float) -> None:
    labels, scores, normal, abnormal = sample(1)
    rates = [
        (float((scores[labels == 1] >= value).mean()), float((scores[labels == 0] < value).mean()))
        for value in [*np.unique(scores), np.inf]
    ]
    expected = max(sensitivity for sensitivity, specificity in rates if specificity >= share)
    assert curves.sensitivity_at(normal, abnormal, share) == pytest.approx(expected, abs=1e-12)
    expected = max(specificity for sensitivity, specificity in rates if sensitivity >= share)
    assert curves.specificity_at(normal, abnormal, share) == pytest.approx(expected, abs=1e-12)


def test_the_share_allowed_is_a_whole_number_of_images_in_spite_of_rounding() -> None:
    for count in range(10, 400, 10):  # a tenth of the normal images exceed the only abnormal one
        normal, abnormal = np.ones(count + 1), np.zeros(count + 1)
        normal[-1 - count // 10], abnormal[-1 - count // 10] = 0, 1
        assert curves.sensitivity_at(normal, abnormal, 0.9) == 1
        assert curves.sensitivity_at(normal, abnormal, 0.9 + 1e-6) == 0


def test_several_test_sets_are_evaluated_at_once() -> None:
    several = [sample(seed)[2:] for seed in range(4)]
    length = min(len(normal) for normal, _ in several)
    normal, abnormal = (np.stack([pair[side][:length] for pair in several]) for side in (0, 1))
    for function in (curves.partial_auc, curves.average_precision, curves.best_dice):
        alone = [float(function(low, high)) for low, high in zip(normal, abnormal, strict=True)]
        assert function(normal, abnormal).tolist() == pytest.approx(alone, abs=1e-12)
