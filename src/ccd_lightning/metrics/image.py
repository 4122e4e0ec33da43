"""Metrics of image scores, with their intervals or the reasons why they are undefined."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.bootstrap import RESAMPLES, bootstrap, bootstrap_interval, is_grouped, smaller_class
from ccd_lightning.metrics.intervals import delong_interval, wilson_interval
from ccd_lightning.metrics.records import NO_ABNORMAL, NO_NORMAL, Evaluation, ImageRecord
from ccd_lightning.metrics.types import Floats, Integers

# Functions of the counts of normal and abnormal scores, (R, K) each.
CURVES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "image/auroc": curves.partial_auc,
    "image/average_precision": curves.average_precision,
    "image/sensitivity_at_specificity_90": partial(curves.sensitivity_at, specificity=0.90),
    "image/sensitivity_at_specificity_95": partial(curves.sensitivity_at, specificity=0.95),
    "image/specificity_at_sensitivity_90": partial(curves.specificity_at, sensitivity=0.90),
    "image/specificity_at_sensitivity_95": partial(curves.specificity_at, sensitivity=0.95),
}
DECISIONS = ("image/accuracy", "image/f1", "image/sensitivity", "image/specificity")
IMAGE_METRICS = (*CURVES, *DECISIONS)


def image_metrics(
    records: Sequence[ImageRecord],
    threshold: float,
    names: Sequence[str] = IMAGE_METRICS,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates image scores.

    Args:
        records: The images.
        threshold: Images with higher scores are called abnormal; NaN if there is no threshold.
        names: Names of the metrics to compute.
        resamples: Number of bootstrap resamples; 0 omits bootstrap intervals.
    """
    result = Evaluation()
    normal, abnormal = (sum(row.label == label for row in records) for label in (0, 1))
    for name in names:
        if reason := _undefined(name, normal, abnormal, threshold):
            result.undefined[name] = reason
    defined = [name for name in names if name not in result.undefined]
    if not defined:
        return result
    scores, labels = _columns(records)
    found = image_values(defined, np.ones((1, len(records))), labels, scores, threshold)
    result.metrics = {name: round(float(values[0]), 6) for name, values in found.items()}  # as in earlier versions
    result.intervals = _intervals(records, threshold, result.metrics, resamples)
    return result


def _columns(records: Sequence[ImageRecord]) -> tuple[Floats, Integers]:
    return np.array([row.score for row in records]), np.array([row.label for row in records], dtype=np.int64)


def _undefined(name: str, normal: int, abnormal: int, threshold: float) -> str:
    if name in DECISIONS and math.isnan(threshold):
        return "no threshold"  # no score exceeds NaN, so the metric would wrongly report no detections
    if not abnormal and name != "image/specificity":
        return NO_ABNORMAL
    return NO_NORMAL if not normal and name != "image/sensitivity" else ""


def image_values(
    names: Iterable[str], drawn: Floats, labels: Integers, scores: Floats, threshold: float
) -> dict[str, Floats]:
    """Computes metrics on R resamples of the images; a resample with each image once gives those of the test set.

    Args:
        names: Names of the metrics, from IMAGE_METRICS.
        drawn: Number of times each image was drawn, (R, N).
        labels: Labels 0 or 1, (N,).
        scores: Scores, (N,); higher is more abnormal.
        threshold: Images with higher scores are called abnormal.

    Returns:
        Values (R,) of each metric; NaN if no image of a needed class was drawn.
    """
    normal, abnormal = curves.tied_counts(drawn, labels, scores)
    called = scores > threshold
    found, false = drawn @ ((labels == 1) & called), drawn @ ((labels == 0) & called)
    negatives, positives = normal.sum(axis=-1), abnormal.sum(axis=-1)
    with np.errstate(invalid="ignore"):  # metrics of an empty class are not requested
        decided = {
            "image/accuracy": (found + negatives - false) / (negatives + positives),
            "image/f1": 2 * found / (found + false + positives),
            "image/sensitivity": found / positives,
            "image/specificity": (negatives - false) / negatives,
        }
    return {name: decided[name] if name in DECISIONS else CURVES[name](normal, abnormal) for name in names}


def _intervals(
    records: Sequence[ImageRecord], threshold: float, metrics: dict[str, float], resamples: int
) -> dict[str, tuple[float, float]]:
    """Returns DeLong and Wilson intervals if images are independent, and bootstrap intervals otherwise."""
    scores, labels = _columns(records)
    normal, abnormal = scores[labels == 0], scores[labels == 1]
    found, cleared = int((abnormal > threshold).sum()), int((normal <= threshold).sum())
    closed: dict[str, Callable[[], tuple[float, float]]] = {
        "image/sensitivity": lambda: wilson_interval(found, len(abnormal)),
        "image/specificity": lambda: wilson_interval(cleared, len(normal)),
    }
    enough = smaller_class(records) > 1
    if enough:
        closed["image/auroc"] = lambda: delong_interval(normal, abnormal)
    if is_grouped(records):
        closed = {}
    intervals = {name: closed[name]() for name in metrics if name in closed}
    left = [name for name in metrics if name not in intervals]
    if not (enough and left and resamples):
        return intervals

    def evaluate(drawn: Floats) -> dict[str, Floats]:
        return image_values(left, drawn, labels, scores, threshold)

    for name, values in bootstrap(records, evaluate, resamples).items():
        intervals[name] = bootstrap_interval(values, metrics[name], smaller_class(records))
    return intervals
