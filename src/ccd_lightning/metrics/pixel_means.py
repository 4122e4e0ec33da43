"""Pixel metrics of each image alone, averaged over the abnormal images, as many papers report them.

An image counts that has abnormal pixels, and as much as any other, whatever the size of its lesions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.types import Floats, Integers

AT_THRESHOLD = ("pixel/mean_dice", "pixel/mean_iou")
AT_BEST = ("pixel/mean_dice_best", "pixel/mean_iou_best")
MEAN_METRICS = ("pixel/mean_auroc", *AT_THRESHOLD, *AT_BEST)

Counted = tuple[NDArray[np.int32], NDArray[np.integer] | Floats]  # bins, rising, and how many pixels each holds


def image_auroc(normal: Counted, abnormal: Counted) -> float:
    """AUROC of one image's pixels, those of a bin count as equal; NaN if all are normal or all abnormal."""
    if not (len(normal[0]) and len(abnormal[0])):
        return float("nan")
    _, (false, true) = _joined(normal, abnormal)
    return float(curves.partial_auc(false, true))


def overlaps(name: str, false: Floats, true: Floats, abnormal: Floats) -> Floats:
    """Dice, or intersection over union, of each image alone.

    Args:
        name: Which of AT_THRESHOLD or AT_BEST.
        false: (N, T) how many normal pixels exceed each of T thresholds that all images share.
        true: (N, T) the same of abnormal pixels.
        abnormal: (N,) how many abnormal pixels there are.

    Returns:
        (N, T); NaN for an image that does not count.
    """
    dice = curves.dice(false, true, np.where(abnormal > 0, abnormal, np.nan)[:, None])
    return curves.dice_to_iou(dice) if "iou" in name else dice


def mean_over_images(drawn: Floats, values: Floats) -> Floats:
    """The mean over the images that count, at the threshold that makes it highest.

    Args:
        drawn: (R, N) how often each image was drawn.
        values: (N, T) of each image alone, at T thresholds that all images share; NaN where an image does not count.

    Returns:
        (R,), NaN where no image was drawn that counts.
    """
    known = ~np.isnan(values[:, 0])
    weights = drawn[:, known]
    with np.errstate(invalid="ignore"):
        means: Floats = (weights @ values[known] / weights.sum(axis=1, keepdims=True)).max(axis=1)
    return means


def above_best(images: Sequence[tuple[Counted, Counted]], length: int) -> dict[str, Floats]:
    """How many pixels of each image exceed the threshold that is best for all of them, for each of AT_BEST.

    Args:
        images: N times the normal and the abnormal pixels, in bins below `length` that all images share.
        length: Number of bins.

    Returns:
        (N, 2) each, normal and abnormal pixels.
    """
    rises = np.zeros((len(AT_BEST), length))  # of the sum over images, as the threshold falls to each bin
    for normal, abnormal in images:
        if len(abnormal[0]):
            bins, counts = _joined(normal, abnormal)
            false, true = (curves.called(count) for count in counts)
            dice = curves.dice(false, true, true[-1:])
            rises[:, bins[::-1]] += np.diff([dice, curves.dice_to_iou(dice)])
    found = {}
    for name, rise in zip(AT_BEST, rises, strict=True):
        lowest = length - 1 - int(rise[::-1].cumsum().argmax())  # of the bins that are called abnormal
        rows = [[counts[bins >= lowest].sum() for bins, counts in image] for image in images]
        found[name] = np.array(rows, dtype=np.float64)
    return found


def _joined(normal: Counted, abnormal: Counted) -> tuple[Integers, tuple[Floats, Floats]]:
    """The bins of both, rising, and how many normal and abnormal pixels each holds."""
    bins, places = np.unique(np.concatenate([normal[0], abnormal[0]]), return_inverse=True)
    parts = places[: len(normal[0])], places[len(normal[0]) :]
    counts = [
        np.bincount(part, weights=count, minlength=len(bins)).astype(np.float64)
        for part, (_, count) in zip(parts, (normal, abnormal), strict=True)
    ]
    return bins, (counts[0], counts[1])
