"""Differences between two detectors on the same images: paired bootstrap, and correction for multiple tests."""

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

# Functions of the counts of normal and abnormal scores; the AUROC has its own test, `intervals.delong_test`.
PAIRED = {name: CURVES[name] for name in ("image/average_precision", "image/sensitivity_at_specificity_95")}


def paired_differences(
    images: Sequence[ImageRecord],
    first: Floats,
    second: Floats,
    metrics: Mapping[str, Callable[[Floats, Floats], Floats]] = PAIRED,
    resamples: int = RESAMPLES,
) -> dict[str, tuple[float, float, float]]:
    """Returns differences of metrics between two detectors, with 95% intervals from shared resamples.

    Groups of images are drawn as a whole. With few images, such as 30 of one class, the intervals of average precision
    cover the true value in about 90% of cases.

    Args:
        images: N images with label and group, with at least two groups (or images without group) per class. Their
            scores are not used.
        first: Scores of one detector, (N,); higher is more abnormal.
        second: Scores of the other detector for the same images in the same order, (N,).
        metrics: Metrics by name; each takes counts as in `threshold_metrics`.
        resamples: Number of bootstrap resamples.

    Returns:
        Difference (first minus second), low and high end for each metric. The interval is the difference plus or minus
        1.96 times its standard deviation over resamples. So it does not contain the bias of resampling, which is the
        same for both detectors.
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
    """Returns differences of pixel metrics between two detectors, with 95% intervals from shared resamples.

    Args:
        images: N images with known ground truth, as in `paired_differences`.
        first: Pixels of one detector's maps of these images, in the same order.
        second: Pixels of the other detector's maps.
        found: Exact differences by the metric's name; those computed from bins are less exact.
        resamples: Number of bootstrap resamples.

    Returns:
        Same as `paired_differences`.
    """
    evaluators = [table.evaluator(found) for table in (first, second)]

    def evaluate(drawn: Floats) -> dict[str, Floats]:
        one, other = (own(drawn) for own in evaluators)
        return {name: one[name] - other[name] for name in found}

    return _intervals(found, bootstrap(images, evaluate, resamples))


def _intervals(found: Mapping[str, float], resampled: Mapping[str, Floats]) -> dict[str, tuple[float, float, float]]:
    """Returns differences with their intervals; resamples on which a metric is undefined (NaN) are ignored."""
    errors = {name: float(np.nanstd(values)) for name, values in resampled.items()}
    return {name: (value, value - Z * errors[name], value + Z * errors[name]) for name, value in found.items()}


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for multiple tests (Holm, Scandinavian Journal of Statistics 1979), in order."""
    corrected, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(np.argsort(values)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = least
    return corrected
