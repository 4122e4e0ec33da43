"""Pixel metrics from a compact record per image, which takes a few kilobytes for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ccd_lightning.metrics.bootstrap import RESAMPLES, bootstrap, bootstrap_interval, smaller_class
from ccd_lightning.metrics.histogram import BINS, float_bins
from ccd_lightning.metrics.pixel_means import (
    AT_BEST,
    AT_THRESHOLD,
    MEAN_METRICS,
    PixelCounts,
    above_best,
    image_auroc,
    mean_over_images,
    overlaps,
)
from ccd_lightning.metrics.pixel_table import DECISIONS, PIXEL_METRICS, POOLED_METRICS, PixelTable, pooled_values
from ccd_lightning.metrics.records import Evaluation, ImageRecord
from ccd_lightning.metrics.types import Floats

LIMIT = 4096  # maximum number of occupied bins of an image; if it has more, bins are merged in pairs
GRID = 512  # maximum number of bins, shared by all images, for resamples
EIGHT_NEIGHBOURS = np.ones((3, 3))


class PixelRecord(NamedTuple):
    """Pixels of one image with known ground truth.

    Attributes:
        path: Path of the image file.
        shift: Bins are those of `float_bins`, with 2**shift of them merged into one.
        normal: Bins with normal pixels (A,) int32 in ascending order, and their number of pixels (A,) int32.
        abnormal: The same for abnormal pixels, (B,) each.
        regions: Abnormal pixels per bin, each counted as a share of its 8-connected region, (B,).
        above: Numbers of normal and abnormal pixels above the pixel threshold.
        auroc: AUROC of the image's pixels; NaN if all are normal or all abnormal.
    """

    path: str
    shift: int
    normal: PixelCounts
    abnormal: PixelCounts
    regions: Floats
    above: tuple[int, int]
    auroc: float


def record_pixels(path: str, anomaly_map: Tensor, mask: Tensor, threshold: float = math.nan) -> PixelRecord:
    """Creates the record of one image.

    Args:
        path: Path of the image file.
        anomaly_map: Anomaly map (H, W), finite and not negative, of any floating-point type.
        mask: Mask (H, W) bool, True for abnormal pixels.
        threshold: Pixels with higher values are called abnormal; NaN if there is no threshold.

    Raises:
        ValueError: If shapes differ, or a value is negative, infinite or not a number.
    """
    if anomaly_map.shape != mask.shape:
        raise ValueError(f"map {tuple(anomaly_map.shape)} and mask {tuple(mask.shape)} differ in shape")
    bins, truth = float_bins(anomaly_map).cpu().numpy(), mask.cpu().numpy()
    labels, _ = ndimage.label(truth, EIGHT_NEIGHBOURS) if truth.any() else (truth.astype(np.int32), 0)
    inside = labels[truth]
    shares = 1 / np.bincount(inside)[inside]
    occupied, shift = np.unique(bins), 0
    while len(occupied) > LIMIT:
        occupied, shift = np.unique(occupied >> 1), shift + 1
    normal = _counted(*np.unique(bins[~truth] >> shift, return_counts=True))
    level, inverse, found = np.unique(bins[truth] >> shift, return_inverse=True, return_counts=True)
    abnormal = _counted(level, found)
    over = (anomaly_map.detach().float() > threshold).cpu().numpy()
    return PixelRecord(
        path,
        shift,
        normal,
        abnormal,
        np.bincount(inverse, weights=shares).astype(np.float64),  # integers if empty
        (int((over & ~truth).sum()), int((over & truth).sum())),
        image_auroc(normal, abnormal),
    )


def _counted(bins: NDArray[np.int64], counts: NDArray[np.int64]) -> PixelCounts:
    return bins.astype(np.int32), counts.astype(np.int32)


def pixel_metrics(
    images: Sequence[ImageRecord],
    pixels: Sequence[PixelRecord],
    threshold: float,
    names: Sequence[str] = PIXEL_METRICS,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates anomaly maps.

    Args:
        images: Images with known ground truth.
        pixels: Pixel records of these images, in the same order.
        threshold: Pixel threshold with which they were recorded.
        names: Names of the metrics to compute.
        resamples: Number of bootstrap resamples; 0 omits the intervals.
    """
    result, counts = Evaluation(), pooled(pixels)
    result.undefined = _undefined(pixels, threshold, names)
    defined = [name for name in names if name not in result.undefined]
    if not defined:
        return result
    occupied, above = np.flatnonzero(counts[0] + counts[1]), _above(pixels)
    together = [name for name in defined if name in POOLED_METRICS]
    found = pooled_values(together, [count[None, occupied] for count in counts], above.sum(axis=0)[None])
    found |= _means(pixels, [name for name in defined if name in MEAN_METRICS])
    result.metrics = {name: float(found[name][0]) for name in defined}
    if smaller_class(images) < 2 or not resamples:
        return result
    drawn = bootstrap(images, coarse(pixels, counts).evaluator(defined), resamples)
    for name, values in drawn.items():
        result.intervals[name] = bootstrap_interval(values, result.metrics[name], smaller_class(images))
    return result


def _undefined(pixels: Sequence[PixelRecord], threshold: float, names: Sequence[str]) -> dict[str, str]:
    for kind in ("normal", "abnormal"):
        if not any(len(getattr(record, kind)[0]) for record in pixels):
            return dict.fromkeys(names, f"no {kind} pixels")
    reasons: dict[str, str] = {}
    if math.isnan(threshold):
        reasons |= dict.fromkeys(DECISIONS, "no pixel threshold")
    if all(math.isnan(record.auroc) for record in pixels):
        reasons["pixel/mean_auroc"] = "no image with normal and abnormal pixels"
    return {name: reason for name, reason in reasons.items() if name in names}


def _means(pixels: Sequence[PixelRecord], names: Sequence[str]) -> dict[str, Floats]:
    """Computes MEAN_METRICS of one test set, (1,) each; the best threshold is a bin of the coarsest image."""
    above = dict.fromkeys(AT_THRESHOLD, _above(pixels))
    if set(names) & set(AT_BEST):
        coarsest = max(record.shift for record in pixels)
        above |= above_best([_parts(record, coarsest - record.shift)[:2] for record in pixels], BINS >> coarsest)
    abnormal = np.array([record.abnormal[1].sum() for record in pixels], dtype=np.float64)
    values = {name: overlaps(name, above[name][:, :1], above[name][:, 1:], abnormal) for name in names if name in above}
    values["pixel/mean_auroc"] = np.array([[record.auroc] for record in pixels])
    return {name: mean_over_images(np.ones((1, len(pixels))), values[name]) for name in names}


def pooled(pixels: Sequence[PixelRecord]) -> list[Floats]:
    """Returns counts of normal and abnormal pixels, and region shares, of all images in the coarsest image's bins."""
    shift = max((record.shift for record in pixels), default=0)
    totals = [np.zeros(BINS >> shift) for _ in range(3)]
    for record in pixels:
        for total, (bins, counts) in zip(totals, _parts(record, shift - record.shift), strict=True):
            np.add.at(total, bins, counts)
    return totals


def coarse(pixels: Sequence[PixelRecord], counts: Sequence[Floats]) -> PixelTable:
    """Returns the pixels of each image in at most GRID shared bins.

    A bin has at most 2/GRID of the pixels of a class, unless they are ties.

    Args:
        pixels: Records of N images.
        counts: Result of `pooled` for them, with both normal and abnormal pixels.
    """
    shift = max(record.shift for record in pixels)
    shares = [np.cumsum(count) / count.sum() for count in counts[:2]]
    levels = sum(np.minimum(share * (GRID // 2), GRID // 2 - 1).astype(np.int64) for share in shares)
    grid = np.unique(levels, return_inverse=True)[1]
    length = int(grid.max()) + 1
    normal, abnormal, regions = rows = [np.zeros((len(pixels), length)) for _ in range(3)]
    for index, record in enumerate(pixels):
        for row, (bins, values) in zip(rows, _parts(record, shift - record.shift), strict=True):
            row[index] = np.bincount(grid[bins], weights=values, minlength=length)
    aurocs = np.array([record.auroc for record in pixels])
    return PixelTable([record.path for record in pixels], normal, abnormal, regions, _above(pixels), aurocs)


def _parts(record: PixelRecord, shift: int) -> tuple[PixelCounts, PixelCounts, PixelCounts]:
    """Returns bins merged by `shift` more bits, with counts of normal and abnormal pixels, and region shares."""
    normal, abnormal = record.normal[0] >> shift, record.abnormal[0] >> shift
    return (normal, record.normal[1]), (abnormal, record.abnormal[1]), (abnormal, record.regions)


def _above(pixels: Sequence[PixelRecord]) -> Floats:
    return np.array([record.above for record in pixels], dtype=np.float64)
