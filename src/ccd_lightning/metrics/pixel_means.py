"""Pixel metrics per image, averaged over the abnormal images, as reported in many papers.

Only images with abnormal pixels count. All of them have the same weight, whatever the size of their lesions.
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

PixelCounts = tuple[NDArray[np.int32], NDArray[np.integer] | Floats]  # bins in ascending order, and pixels per bin


def image_auroc(normal: PixelCounts, abnormal: PixelCounts) -> float:
    """Returns the AUROC of one image's pixels, with pixels of a bin as ties; NaN if all are normal or all abnormal."""
    if not (len(normal[0]) and len(abnormal[0])):
        return float("nan")
    _, (false, true) = _joined(normal, abnormal)
    return float(curves.partial_auc(false, true))


def overlaps(name: str, false: Floats, true: Floats, abnormal: Floats) -> Floats:
    """Returns Dice or intersection over union of each image.

    Args:
        name: Name of the metric, from AT_THRESHOLD or AT_BEST.
        false: Number of normal pixels above each of T thresholds that all images share, (N, T).
        true: Number of abnormal pixels above them, (N, T).
        abnormal: Number of abnormal pixels, (N,).

    Returns:
        Values (N, T); NaN for images without abnormal pixels.
    """
    dice = curves.dice(false, true, np.where(abnormal > 0, abnormal, np.nan)[:, None])
    return curves.dice_to_iou(dice) if "iou" in name else dice


def mean_over_images(drawn: Floats, values: Floats) -> Floats:
    """Returns the mean over the images that count, at the threshold with the highest mean.

    Args:
        drawn: Number of times each image was drawn, (R, N).
        values: Values per image at T thresholds that all images share, (N, T); NaN for images that do not count.

    Returns:
        Means (R,); NaN if no image was drawn that counts.
    """
    known = ~np.isnan(values[:, 0])
    weights = drawn[:, known]
    with np.errstate(invalid="ignore"):
        means: Floats = (weights @ values[known] / weights.sum(axis=1, keepdims=True)).max(axis=1)
    return means


def above_best(images: Sequence[tuple[PixelCounts, PixelCounts]], length: int) -> dict[str, Floats]:
    """Counts the pixels of each image above the threshold with the highest mean over images, for each of AT_BEST.

    Args:
        images: Normal and abnormal pixels of N images, in bins below `length` that all images share.
        length: Number of bins.

    Returns:
        Numbers of normal and abnormal pixels (N, 2) for each metric.
    """
    rises = np.zeros((len(AT_BEST), length))  # of the sum over images when the threshold falls to each bin
    for normal, abnormal in images:
        if len(abnormal[0]):
            bins, counts = _joined(normal, abnormal)
            false, true = (curves.called(count) for count in counts)
            dice = curves.dice(false, true, true[-1:])
            rises[:, bins[::-1]] += np.diff([dice, curves.dice_to_iou(dice)])
    found = {}
    for name, rise in zip(AT_BEST, rises, strict=True):
        lowest = length - 1 - int(rise[::-1].cumsum().argmax())  # lowest bin that is called abnormal
        rows = [[counts[bins >= lowest].sum() for bins, counts in image] for image in images]
        found[name] = np.array(rows, dtype=np.float64)
    return found


def _joined(normal: PixelCounts, abnormal: PixelCounts) -> tuple[Integers, tuple[Floats, Floats]]:
    """Returns the bins of both in ascending order, and the numbers of normal and abnormal pixels in each."""
    bins, inverse = np.unique(np.concatenate([normal[0], abnormal[0]]), return_inverse=True)
    parts = inverse[: len(normal[0])], inverse[len(normal[0]) :]
    counts = [
        np.bincount(part, weights=count, minlength=len(bins)).astype(np.float64)
        for part, (_, count) in zip(parts, (normal, abnormal), strict=True)
    ]
    return bins, (counts[0], counts[1])
