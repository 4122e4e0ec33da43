"""What counts of normal and of abnormal values say, for many test sets at once.

Everywhere the last axis of length K lists the values in rising order and holds how many there are of each; the axes
before it are the test sets, such as resamples. "Called abnormal" are the values from some place on.
"""

from __future__ import annotations

import numpy as np

from ccd_lightning.metrics.types import Floats, Integers


def tied_counts(drawn: Floats, labels: Integers, scores: Floats) -> tuple[Floats, Floats]:
    """How many normal and abnormal images each score has, in rising order: (R, N) draws to (R, K) each."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each run of equal scores
    normal, abnormal = (np.add.reduceat((drawn * (labels == label))[:, order], starts, axis=1) for label in (0, 1))
    return normal, abnormal


def score_counts(labels: Integers, scores: Floats) -> tuple[Floats, Floats]:
    """How many normal and abnormal images each distinct score has, in rising order: (N,) each to (K,) each."""
    normal, abnormal = tied_counts(np.ones((1, len(scores))), labels, scores)
    return normal[0], abnormal[0]


def called(counts: Floats) -> Floats:
    """How many are called abnormal, from none to all: (..., K) to (..., K + 1)."""
    sums: Floats = counts[..., ::-1].cumsum(axis=-1)
    return np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)


def roc(normal: Floats, abnormal: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates from no to all called abnormal: counts (..., K), in all > 0, to (..., K + 1)."""
    false, true = called(normal), called(abnormal)
    return false / false[..., -1:], true / true[..., -1:]


def precision_recall(normal: Floats, abnormal: Floats) -> tuple[Floats, Floats]:
    """Precision and recall at each value, from the highest to the lowest: (..., K) to (..., K) each."""
    false, true = called(normal)[..., 1:], called(abnormal)[..., 1:]
    return true / np.maximum(true + false, 1), true / true[..., -1:]


def partial_auc(normal: Floats, found: Floats, limit: float = 1.0) -> Floats:
    """Area below the share found as a function of the false-positive rate up to a limit, divided by the limit.

    With the counts of abnormal values it is, up to 1, the AUROC, ties counting half. With each abnormal pixel counted
    as the inverse of its region's size it is, up to 0.3, the AUPRO (Bergmann et al., IJCV 2021).

    Args:
        normal: (..., K) counts of normal values, in all > 0.
        found: (..., K) what is found at each value, in all > 0.
        limit: Of the false-positive rate, in (0, 1].

    Returns:
        (...), in [0, 1].
    """
    false, true = roc(normal, found)
    low, high = false[..., :-1], np.minimum(false[..., 1:], limit)
    width = false[..., 1:] - low
    inside = np.clip(high - low, 0, None)
    slope = np.divide(true[..., 1:] - true[..., :-1], width, out=np.zeros_like(width), where=width > 0)
    area: Floats = (inside * (true[..., :-1] + slope * inside / 2)).sum(axis=-1) / limit
    return area


def average_precision(normal: Floats, abnormal: Floats) -> Floats:
    """Precision at each value, weighted by the share of the abnormal there: (..., K) to (...)."""
    precision, _ = precision_recall(normal, abnormal)
    area: Floats = (abnormal[..., ::-1] * precision).sum(axis=-1) / abnormal.sum(axis=-1)
    return area


def dice(false: Floats, true: Floats, abnormal: Floats) -> Floats:
    """Dice coefficient of false and true positives among so many abnormal values in all."""
    return 2 * true / (true + false + abnormal)


def best_dice(normal: Floats, abnormal: Floats) -> Floats:
    """The largest Dice coefficient that any threshold reaches: (..., K) to (...)."""
    false, true = called(normal), called(abnormal)
    best: Floats = dice(false, true, true[..., -1:]).max(axis=-1)
    return best


def dice_to_iou(dice: Floats) -> Floats:
    """Intersection over union of the same pixels; it rises with Dice, so that their best thresholds agree."""
    return dice / (2 - dice)


def sensitivity_at(normal: Floats, abnormal: Floats, specificity: float) -> Floats:
    """The largest sensitivity at which at least a share of the normal is called normal: (..., K) to (...)."""
    false, true = called(normal), called(abnormal)
    allowed = false <= (1 - specificity) * false[..., -1:] + 1e-9  # counts, and the rounding of their share
    best: Floats = np.where(allowed, true, 0).max(axis=-1) / true[..., -1]
    return best


def specificity_at(normal: Floats, abnormal: Floats, sensitivity: float) -> Floats:
    """The largest specificity at which at least a share of the abnormal is called abnormal: (..., K) to (...)."""
    return sensitivity_at(abnormal[..., ::-1], normal[..., ::-1], sensitivity)
