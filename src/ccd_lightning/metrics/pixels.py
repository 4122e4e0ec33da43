"""Pixel metrics from what is kept of each image: a few kilobytes, whatever its size."""

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
from ccd_lightning.metrics.pixel_table import DECISIONS, PIXEL_METRICS, PixelTable, pixel_values
from ccd_lightning.metrics.records import Evaluation, ImageRecord
from ccd_lightning.metrics.types import Floats

LIMIT = 4096  # occupied bins of an image; with more its bins are merged in pairs until it has no more
GRID = 512  # at most so many bins, shared by all images, for resamples
EIGHT_NEIGHBOURS = np.ones((3, 3))


class PixelRecord(NamedTuple):
    """The pixels of one image whose ground truth is known.

    Attributes:
        path: The image file.
        shift: The bins are those of `float_bins`, 2**shift of them merged into one.
        normal: Bins that hold normal pixels (A,) int32, rising, and how many (A,) int32.
        abnormal: The same of abnormal pixels, (B,) each.
        regions: (B,) the bins' abnormal pixels, each as a share of the region (8-connected) that it belongs to.
        above: How many normal and how many abnormal pixels exceed the pixel threshold.
    """

    path: str
    shift: int
    normal: tuple[NDArray[np.int32], NDArray[np.int32]]
    abnormal: tuple[NDArray[np.int32], NDArray[np.int32]]
    regions: Floats
    above: tuple[int, int]


def record_pixels(path: str, anomaly_map: Tensor, mask: Tensor, threshold: float = math.nan) -> PixelRecord:
    """Sums up one image.

    Args:
        path: The image file.
        anomaly_map: (H, W), finite and not negative, of any floating type.
        mask: (H, W) bool, True where a pixel is abnormal.
        threshold: Pixels above it are called abnormal; NaN where none was set.

    Raises:
        ValueError: If shapes differ, or a value is negative, infinite or not a number.
    """
    if anomaly_map.shape != mask.shape:
        raise ValueError(f"map {tuple(anomaly_map.shape)} and mask {tuple(mask.shape)} differ in shape")
    bins, truth = float_bins(anomaly_map).cpu().numpy(), mask.cpu().numpy()
    labels, _ = ndimage.label(truth, EIGHT_NEIGHBOURS) if truth.any() else (truth.astype(np.int32), 0)
    inside = labels[truth]
    shares = 1 / np.bincount(inside, minlength=1)[inside]
    occupied, shift = np.unique(bins), 0
    while len(occupied) > LIMIT:
        occupied, shift = np.unique(occupied >> 1), shift + 1
    normal, counts = np.unique(bins[~truth] >> shift, return_counts=True)
    abnormal, level, found = np.unique(bins[truth] >> shift, return_inverse=True, return_counts=True)
    over = (anomaly_map.detach().float() > threshold).cpu().numpy()
    return PixelRecord(
        path,
        shift,
        (normal.astype(np.int32), counts.astype(np.int32)),
        (abnormal.astype(np.int32), found.astype(np.int32)),
        np.bincount(level, weights=shares, minlength=len(abnormal)).astype(np.float64),  # of nothing it counts integers
        (int((over & ~truth).sum()), int((over & truth).sum())),
    )


def pixel_metrics(
    images: Sequence[ImageRecord],
    pixels: Sequence[PixelRecord],
    threshold: float,
    names: Sequence[str] = PIXEL_METRICS,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluates maps over all pixels at once; each of the images has its pixels in the same place.

    Args:
        images: The images whose ground truth is known.
        pixels: Their pixels.
        threshold: The pixel threshold that they were recorded with.
        names: Which metrics.
        resamples: Of the bootstrap; 0 leaves the intervals out.
    """
    result, counts = Evaluation(), pooled(pixels)
    missing = [kind for kind, count in zip(("normal", "abnormal"), counts, strict=False) if not count.any()]
    if missing:
        result.undefine(names, f"no {missing[0]} pixels")
        return result
    if math.isnan(threshold):
        result.undefine((name for name in names if name in DECISIONS), "no pixel threshold")
    defined = [name for name in names if name not in result.undefined]
    occupied, above = np.flatnonzero(counts[0] + counts[1]), np.array([record.above for record in pixels], np.float64)
    found = pixel_values(defined, [count[None, occupied] for count in counts], above.sum(axis=0)[None])
    result.metrics = {name: float(value[0]) for name, value in found.items()}
    if smaller_class(images) < 2 or not resamples:
        return result
    table = coarse(pixels, counts)
    drawn = bootstrap(images, lambda drawn: table.values(drawn, defined), resamples)
    for name, values in drawn.items():
        result.intervals[name] = bootstrap_interval(values, result.metrics[name], smaller_class(images))
    return result


def pooled(pixels: Sequence[PixelRecord]) -> list[Floats]:
    """Counts of normal, of abnormal, and shares of abnormal pixels of all images, at the coarsest one's bins."""
    shift = max((record.shift for record in pixels), default=0)
    totals = [np.zeros(BINS >> shift) for _ in range(3)]
    for record in pixels:
        for total, (bins, counts) in zip(totals, _parts(record), strict=True):
            np.add.at(total, bins >> (shift - record.shift), counts)
    return totals


def coarse(pixels: Sequence[PixelRecord], counts: Sequence[Floats]) -> PixelTable:
    """The pixels of each image, in at most GRID bins, none of more than 2/GRID of a class's pixels unless they tie.

    Args:
        pixels: N images.
        counts: What `pooled` returns of them; normal and abnormal pixels are there.
    """
    shift = max(record.shift for record in pixels)
    shares = [np.cumsum(count) / count.sum() for count in counts[:2]]
    levels = sum(np.minimum(share * (GRID // 2), GRID // 2 - 1).astype(np.int64) for share in shares)
    grid = np.unique(levels, return_inverse=True)[1]
    length = int(grid.max()) + 1
    normal, abnormal, regions = rows = [np.zeros((len(pixels), length)) for _ in range(3)]
    for index, record in enumerate(pixels):
        for row, (bins, values) in zip(rows, _parts(record), strict=True):
            row[index] = np.bincount(grid[bins >> (shift - record.shift)], weights=values, minlength=length)
    above = np.array([record.above for record in pixels], dtype=np.float64)
    return PixelTable([record.path for record in pixels], normal, abnormal, regions, above)


def _parts(record: PixelRecord) -> tuple[tuple[NDArray[np.int32], NDArray[np.generic]], ...]:
    return record.normal, record.abnormal, (record.abnormal[0], record.regions)
