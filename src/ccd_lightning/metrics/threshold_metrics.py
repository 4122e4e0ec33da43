"""Threshold metrics from counts of normal and abnormal values, for many test sets at once.

The last axis of length K always holds the counts of the distinct values, in ascending order of the values. The axes
before it are the test sets, such as resamples. At each threshold, all values from some index on are "called abnormal".
"""

from __future__ import annotations

import numpy as np

from ccd_lightning.metrics.types import Floats, Integers


def tied_counts(drawn: Floats, labels: Integers, scores: Floats) -> tuple[Floats, Floats]:
    """Returns the numbers of normal and abnormal images (R, K) at each distinct score, ascending, for draws (R, N)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # starts of runs of equal scores
    normal, abnormal = (np.add.reduceat((drawn * (labels == label))[:, order], starts, axis=1) for label in (0, 1))
    return normal, abnormal


def score_counts(labels: Integers, scores: Floats) -> tuple[Floats, Floats]:
    """Returns the numbers of normal and abnormal images (K,) with each distinct score, in ascending order."""
    normal, abnormal = tied_counts(np.ones((1, len(scores))), labels, scores)
    return normal[0], abnormal[0]


def called(counts: Floats) -> Floats:
    """Returns how many values are called abnormal at each threshold, from none to all: (..., K) to (..., K + 1)."""
    sums: Floats = counts[..., ::-1].cumsum(axis=-1)
    return np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)


def roc(normal: Floats, abnormal: Floats) -> tuple[Floats, Floats]:
    """Returns false and true positive rates (..., K + 1) at all thresholds, from counts (..., K) with sums > 0."""
    false, true = called(normal), called(abnormal)
    return false / false[..., -1:], true / true[..., -1:]


def precision_recall(normal: Floats, abnormal: Floats) -> tuple[Floats, Floats]:
    """Returns precision and recall at each value, from the highest to the lowest: (..., K) to (..., K) each."""
    false, true = called(normal)[..., 1:], called(abnormal)[..., 1:]
    return true / np.maximum(true + false, 1), true / true[..., -1:]


def partial_auc(normal: Floats, found: Floats, limit: float = 1.0) -> Floats:
    """Returns the area under the ROC curve up to a limit of the false positive rate, divided by the limit.

    With counts of abnormal values and a limit of 1, this is the AUROC, with ties counted half. With each abnormal pixel
    weighted by 1 / size of its region and a limit of 0.3, it is the AUPRO (Bergmann et al., IJCV 2021).

    Args:
        normal: Counts of normal values, (..., K), with sums > 0.
        found: Counts, or sums of weights, of abnormal values, (..., K), with sums > 0.
        limit: Limit of the false positive rate, in (0, 1].

    Returns:
        Areas (...) in [0, 1].
    """
    false, true = roc(normal, found)
    low, high = false[..., :-1], np.minimum(false[..., 1:], limit)
    width = false[..., 1:] - low
    inside = np.clip(high - low, 0, None)
    slope = np.divide(true[..., 1:] - true[..., :-1], width, out=np.zeros_like(width), where=width > 0)
    area: Floats = (inside * (true[..., :-1] + slope * inside / 2)).sum(axis=-1) / limit
    return area


def average_precision(normal: Floats, abnormal: Floats) -> Floats:
    """Returns average precision: precision at each value, weighted by its share of abnormal ones: (..., K) to (...)."""
    precision, _ = precision_recall(normal, abnormal)
    area: Floats = (abnormal[..., ::-1] * precision).sum(axis=-1) / abnormal.sum(axis=-1)
    return area


def dice(false: Floats, true: Floats, abnormal: Floats) -> Floats:
    """Returns the Dice coefficient from the numbers of false positives, true positives, and all abnormal values."""
    return 2 * true / (true + false + abnormal)


def best_dice(normal: Floats, abnormal: Floats) -> Floats:
    """Returns the largest Dice coefficient over all thresholds: (..., K) to (...)."""
    false, true = called(normal), called(abnormal)
    best: Floats = dice(false, true, true[..., -1:]).max(axis=-1)
    return best


def dice_to_iou(dice: Floats) -> Floats:
    """Converts Dice to intersection over union, which increases with Dice: both have the same best threshold."""
    return dice / (2 - dice)


def sensitivity_at(normal: Floats, abnormal: Floats, specificity: float) -> Floats:
    """Returns the largest sensitivity at which the specificity is at least the given one: (..., K) to (...)."""
    false, true = called(normal), called(abnormal)
    allowed = false <= (1 - specificity) * false[..., -1:] + 1e-9  # tolerance for rounding
    best: Floats = np.where(allowed, true, 0).max(axis=-1) / true[..., -1]
    return best


def specificity_at(normal: Floats, abnormal: Floats, sensitivity: float) -> Floats:
    """Returns the largest specificity at which the sensitivity is at least the given one: (..., K) to (...)."""
    return sensitivity_at(abnormal[..., ::-1], normal[..., ::-1], sensitivity)
