"""Metrics of image scores, each with its interval or the reason why it is undefined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_f1_score,
    binary_recall,
    binary_sensitivity_at_specificity,
    binary_specificity,
    binary_specificity_at_sensitivity,
)

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.bootstrap import RESAMPLES, bootstrap, bootstrap_interval, is_grouped, smaller_class
from ccd_lightning.metrics.intervals import delong_interval, wilson_interval
from ccd_lightning.metrics.records import NO_ABNORMAL, NO_NORMAL, Evaluation, ImageRecord
from ccd_lightning.metrics.types import Floats, Integers

# Of ranks (N,) in [0, 1] and labels (N,).
CURVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "image/auroc": binary_auroc,
    "image/average_precision": binary_average_precision,
    "image/sensitivity_at_specificity_90": lambda p, y: binary_sensitivity_at_specificity(p, y, 0.90)[0],
    "image/sensitivity_at_specificity_95": lambda p, y: binary_sensitivity_at_specificity(p, y, 0.95)[0],
    "image/specificity_at_sensitivity_90": lambda p, y: binary_specificity_at_sensitivity(p, y, 0.90)[0],
    "image/specificity_at_sensitivity_95": lambda p, y: binary_specificity_at_sensitivity(p, y, 0.95)[0],
}
# Of decisions (N,) 0 or 1 and labels (N,).
DECISIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "image/f1": binary_f1_score,
    "image/sensitivity": binary_recall,
    "image/specificity": binary_specificity,
}
IMAGE_METRICS = (*CURVES, *DECISIONS)
# CURVES of counts of normal and abnormal scores: of thousands of resamples at once, where torchmetrics would have to be
# called for each. So it is with `decisions`.
RESAMPLED: dict[str, Callable[[Floats, Floats], Floats]] = {
    "image/auroc": curves.partial_area,
    "image/average_precision": curves.average_precision,
    "image/sensitivity_at_specificity_90": partial(curves.sensitivity_at, specificity=0.90),
    "image/sensitivity_at_specificity_95": partial(curves.sensitivity_at, specificity=0.95),
    "image/specificity_at_sensitivity_90": partial(curves.specificity_at, sensitivity=0.90),
    "image/specificity_at_sensitivity_95": partial(curves.specificity_at, sensitivity=0.95),
}


def image_metrics(
    records: Sequence[ImageRecord],
    threshold: float,
    names: Sequence[str] = IMAGE_METRICS,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates image scores.

    Args:
        records: The images.
        threshold: Images that score above it are called abnormal; NaN where none was set.
        names: Which metrics.
        resamples: Of the bootstrap; 0 leaves its intervals out.
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
    # Ranks in [0, 1] have the same curves; torchmetrics would squeeze scores of another range through a sigmoid.
    ranks, target = torch.from_numpy(rankdata(scores) / len(scores)), torch.from_numpy(labels)
    decided = torch.from_numpy(scores > threshold).long()
    for name in defined:
        value = DECISIONS[name](decided, target) if name in DECISIONS else CURVES[name](ranks, target)
        result.metrics[name] = round(float(value), 6)  # in float32, which may exceed 1 in the seventh digit
    result.intervals = _intervals(records, threshold, result.metrics, resamples)
    return result


def _columns(records: Sequence[ImageRecord]) -> tuple[Floats, Integers]:
    return np.array([row.score for row in records]), np.array([row.label for row in records], dtype=np.int64)


def _undefined(name: str, normal: int, abnormal: int, threshold: float) -> str:
    if name in DECISIONS and math.isnan(threshold):
        return "no threshold"  # nothing exceeds NaN, so the metric would claim that nothing was found
    if not abnormal and name != "image/specificity":
        return NO_ABNORMAL
    return NO_NORMAL if not normal and name != "image/sensitivity" else ""


def decisions(drawn: Floats, called: np.typing.NDArray[np.bool_], labels: Integers) -> dict[str, Floats]:
    """DECISIONS of resamples, from how often each image was drawn.

    Args:
        drawn: (R, N).
        called: (N,) whether an image is called abnormal.
        labels: (N,) whether it is.

    Returns:
        (R,) each; NaN where no drawn image is of the class in question.
    """
    normal, abnormal = drawn @ (labels == 0), drawn @ (labels == 1)
    found, false = drawn @ ((labels == 1) & called), drawn @ ((labels == 0) & called)
    with np.errstate(invalid="ignore"):  # where a class is empty its metrics are not asked for
        return {
            "image/f1": 2 * found / (found + false + abnormal),
            "image/sensitivity": found / abnormal,
            "image/specificity": (normal - false) / normal,
        }


def _intervals(
    records: Sequence[ImageRecord], threshold: float, metrics: dict[str, float], resamples: int
) -> dict[str, tuple[float, float]]:
    """DeLong's and Wilson's where images are independent, the bootstrap's for everything else."""
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
        counts = curves.tied_counts(drawn, labels, scores)
        decided = decisions(drawn, scores > threshold, labels)
        return {name: decided[name] if name in DECISIONS else RESAMPLED[name](*counts) for name in left}

    for name, values in bootstrap(records, evaluate, resamples).items():
        intervals[name] = bootstrap_interval(values, metrics[name], smaller_class(records))
    return intervals
