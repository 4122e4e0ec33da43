"""Differences of two detectors on the same images: the paired bootstrap, and p values of several comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.bootstrap import RESAMPLES, bootstrap
from ccd_lightning.metrics.image import CURVES
from ccd_lightning.metrics.intervals import Z
from ccd_lightning.metrics.pixel_table import PixelTable
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats

# Of counts of normal and abnormal scores; the area has a test of its own, `intervals.delong_test`.
PAIRED = {name: CURVES[name] for name in ("image/average_precision", "image/sensitivity_at_specificity_95")}


def paired_differences(
    images: Sequence[ImageRecord],
    first: Floats,
    second: Floats,
    metrics: Mapping[str, Callable[[Floats, Floats], Floats]] = PAIRED,
    resamples: int = RESAMPLES,
) -> dict[str, tuple[float, float, float]]:
    """Metrics of one detector minus those of another, with 95% intervals from resamples that both share.

    Groups of images are drawn whole. With few images, such as 30 of one class, intervals hold the truth in about 90% of
    cases where the metric is average precision.

    Args:
        images: N images with label and group, of at least two groups (or images without one) of each class; their own
            scores do not matter.
        first: (N,) scores of one detector, higher is more abnormal.
        second: (N,) scores of the other one, of the same images in the same order.
        metrics: By name; each takes counts as in `curves`.
        resamples: How many.

    Returns:
        Difference, low and high end of each metric. An interval is the difference plus or minus 1.96 times the standard
        deviation that it has on resamples, whose own bias, the same for both detectors, is not in it.
    """
    labels = np.array([image.label for image in images], dtype=np.int64)

    def evaluate(drawn: Floats) -> dict[str, Floats]:
        one, other = (curves.tied_counts(drawn, labels, scores) for scores in (first, second))
        return {name: metric(*one) - metric(*other) for name, metric in metrics.items()}

    found = {name: float(values[0]) for name, values in evaluate(np.ones((1, len(labels)))).items()}
    return _intervals(found, bootstrap(images, evaluate, resamples))


def paired_pixels(
    images: Sequence[ImageRecord],
    first: PixelTable,
    second: PixelTable,
    found: Mapping[str, float],
    resamples: int = RESAMPLES,
) -> dict[str, tuple[float, float, float]]:
    """Pixel metrics of one detector minus those of another, with 95% intervals from resamples that both share.

    Args:
        images: N images whose ground truth is known, as in `paired_differences`.
        first: The pixels of one detector's maps of them, in the same order.
        second: Those of the other one.
        found: The differences themselves by the metric's name, which bins know less exactly.
        resamples: How many.

    Returns:
        As `paired_differences`.
    """
    evaluators = [table.evaluator(found) for table in (first, second)]

    def evaluate(drawn: Floats) -> dict[str, Floats]:
        one, other = (own(drawn) for own in evaluators)
        return {name: one[name] - other[name] for name in found}

    return _intervals(found, bootstrap(images, evaluate, resamples))


def _intervals(found: Mapping[str, float], resampled: Mapping[str, Floats]) -> dict[str, tuple[float, float, float]]:
    """Differences with the ends of their intervals; resamples that do not define a metric (NaN) do not count."""
    errors = {name: float(np.nanstd(values)) for name, values in resampled.items()}
    return {name: (value, value - Z * errors[name], value + Z * errors[name]) for name, value in found.items()}


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 1979), in the same order."""
    corrected, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(np.argsort(values, kind="stable")):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = least
    return corrected
