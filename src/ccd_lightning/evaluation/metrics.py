"""Image and pixel metrics of a tested detector, with 95% intervals.

One rule everywhere: the higher the score the more abnormal, and an image is called abnormal when ``score > threshold``.
A metric that the test set cannot define is absent, with the reason in its place; it is never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ccd_lightning.evaluation.intervals import Floats, delong_interval, wilson_interval

BITS = 20  # 8 of exponent and 12 of mantissa: values that share a bin differ by less than one part in 4096
BINS = 1 << BITS
NO_ABNORMAL = "no abnormal images"
KIND_METRICS = ("image/auroc", "image/sensitivity", "pixel/auroc")


class PixelHistogram(Metric):
    """Counts the anomaly-map values of normal and of abnormal pixels: 16 MiB, for any number of images and any range.

    The bits of a non-negative float32, read as an integer, grow with its value. The top 20 of them number the bin, so
    that the resolution is relative and no range has to be known beforehand. Counts are integers and add exactly over
    batches and ranks.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(2, BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Adds one batch.

        Args:
            maps: Anomaly maps (B, H, W), finite and not negative, of any floating type.
            masks: (B, H, W) bool, True where a pixel is abnormal.

        Raises:
            ValueError: If shapes differ, or a value is negative, infinite or not a number.
        """
        if maps.shape != masks.shape:
            raise ValueError(f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} differ in shape")
        values = maps.detach().float().flatten()
        if not bool(((values >= 0) & (values < torch.inf)).all()):
            raise ValueError("anomaly maps must be finite and not negative")
        # Adding zero turns -0.0, whose sign bit would make the integer negative, into 0.0.
        bins = (values + 0.0).view(torch.int32).long() >> (31 - BITS)
        counted = torch.bincount(bins + BINS * masks.flatten().bool(), minlength=2 * BINS)
        self.counts += counted.view(2, BINS)

    def compute(self) -> dict[str, float]:
        """AUROC and average precision, see `pixel_areas`."""
        return pixel_areas(self.counts)


class ImageRecord(NamedTuple):
    """What is kept of one tested image; label is 0 (normal) or 1 (abnormal), kind names the sort of abnormality."""

    path: str
    label: int
    kind: str
    score: float


@dataclass
class Evaluation:
    """Metrics by name, their 95% intervals (low, high), and the reason for each metric that is undefined."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)

    def include(self, other: Evaluation, kind: str) -> None:
        """Adds what another evaluation says about the metrics that are reported per kind, as `<name>/<kind>`."""
        self.metrics |= {f"{name}/{kind}": other.metrics[name] for name in KIND_METRICS if name in other.metrics}
        self.intervals |= {f"{name}/{kind}": other.intervals[name] for name in KIND_METRICS if name in other.intervals}
        self.undefined |= {f"{name}/{kind}": other.undefined[name] for name in KIND_METRICS if name in other.undefined}


class DetectionMetrics:
    """Collects a test set and evaluates it: one record per image, one pixel histogram per kind.

    With several ranks, gather each rank's `state()` and evaluate `DetectionMetrics.merged(states)`: the numbers are
    those of one rank, whatever the order.
    """

    def __init__(self) -> None:
        self._records: list[ImageRecord] = []
        self._pixels: dict[str | None, PixelHistogram] = {}  # None: the normal images

    @property
    def records(self) -> list[ImageRecord]:
        """The images seen so far, sorted by path so that nothing depends on the order of loading."""
        return sorted(self._records)

    def update(self, batch: dict[str, Any], scores: Tensor, maps: Tensor | None = None) -> None:
        """Adds one batch.

        Args:
            batch: `label` (B,) 0 or 1, `kind` and `path` (B names each), `mask` (B, H, W) bool and `has_mask` (B,).
            scores: Image scores (B,), finite.
            maps: Anomaly maps (B, H, W), finite and not negative; None from what scores whole images only.

        Raises:
            ValueError: If a score or a map is not finite.
        """
        labels, flat = batch["label"].tolist(), scores.detach().cpu().double().tolist()
        for row in zip(batch["path"], labels, batch["kind"], flat, strict=True):
            if not np.isfinite(row[-1]):
                raise ValueError(f"the score of {row[0]} is {row[-1]}")
            self._records.append(ImageRecord(*row))
        if maps is None:
            return
        keys = [kind if label else None for kind, label in zip(batch["kind"], labels, strict=True)]
        for key in dict.fromkeys(keys):
            chosen = torch.tensor([key == other for other in keys]) & batch["has_mask"].cpu()
            histogram = self._pixels.setdefault(key, PixelHistogram())  # empty, it still says that there were maps
            if chosen.any():
                histogram.update(maps.detach().cpu()[chosen], batch["mask"].cpu()[chosen])

    def state(self) -> dict[str, Any]:
        """Everything collected, small enough to gather: records, and the occupied bins of each histogram."""
        return {
            "records": self.records,
            "pixels": {key: value.counts.to_sparse() for key, value in self._pixels.items()},
        }

    @classmethod
    def merged(cls, states: Iterable[dict[str, Any]]) -> DetectionMetrics:
        """The sum of what several ranks collected, from their `state()`."""
        total = cls()
        for state in states:
            total._records += state["records"]
            for key, counts in state["pixels"].items():
                total._pixels.setdefault(key, PixelHistogram()).counts += counts
        return total

    def compute(self, threshold: float) -> Evaluation:
        """Evaluates everything collected.

        Args:
            threshold: Images that score above it are called abnormal; NaN where none was set.

        Returns:
            image/{auroc, average_precision, f1, sensitivity, specificity} and pixel/{auroc, average_precision}; with
            more than one kind of abnormality also image/auroc/<kind>, image/sensitivity/<kind> and pixel/auroc/<kind>,
            each kind against all normal images. Pixel metrics are over the images whose ground truth is known.
        """
        kinds = sorted({record.kind for record in self._records if record.label})
        result = self._evaluate(kinds, threshold)
        if len(kinds) > 1:
            for kind in kinds:
                result.include(self._evaluate([kind], threshold), kind)
        return result

    def _evaluate(self, kinds: Sequence[str], threshold: float) -> Evaluation:
        rows = [record for record in self.records if not record.label or record.kind in kinds]
        scores, labels = np.array([row.score for row in rows]), np.array([row.label for row in rows], dtype=np.int64)
        result = image_metrics(scores, labels, threshold)
        counts = torch.zeros(2, BINS, dtype=torch.int64)
        for key in (None, *kinds):
            if key in self._pixels:
                counts += self._pixels[key].counts
        reason = self._undefined_pixels(kinds, counts)
        if reason:
            result.undefined |= {f"pixel/{name}": reason for name in ("auroc", "average_precision")}
        else:
            result.metrics |= {f"pixel/{name}": value for name, value in pixel_areas(counts).items()}
        return result

    def _undefined_pixels(self, kinds: Sequence[str], counts: Tensor) -> str:
        if not kinds:
            return NO_ABNORMAL
        if not self._pixels:
            return "no anomaly maps"
        if not any(self._pixels[kind].counts.any() for kind in kinds if kind in self._pixels):
            return "no masks"
        normal, abnormal = counts.sum(dim=1).tolist()
        return "" if normal and abnormal else "no normal pixels" if abnormal else "no abnormal pixels"


def pixel_areas(counts: Tensor) -> dict[str, float]:
    """AUROC (ties count half) and average precision (steps) of binned values.

    Args:
        counts: (2, bins): how many normal and abnormal values fell into each bin, bins in rising order; neither row
            is empty.
    """
    normal, abnormal = counts[:, counts.sum(dim=0) > 0].double().flip(1)  # highest values first
    true, false = abnormal.cumsum(0), normal.cumsum(0)
    below = normal.sum() - false + normal / 2
    return {
        "auroc": float((abnormal * below).sum() / (normal.sum() * abnormal.sum())),
        "average_precision": float((abnormal * true / (true + false)).sum() / abnormal.sum()),
    }


def image_metrics(scores: Floats, labels: NDArray[np.int64], threshold: float) -> Evaluation:
    """Metrics of image scores, each with its interval or the reason why it is undefined.

    Args:
        scores: (N,), higher is more abnormal.
        labels: (N,), 0 or 1.
        threshold: Images that score above it are called abnormal; NaN where none was set.
    """
    result = Evaluation()
    normal, abnormal = scores[labels == 0], scores[labels == 1]
    found, cleared = int((abnormal > threshold).sum()), int((normal <= threshold).sum())
    if len(abnormal):
        result.metrics["image/sensitivity"] = found / len(abnormal)
        result.intervals["image/sensitivity"] = wilson_interval(found, len(abnormal))
    if len(normal):
        result.metrics["image/specificity"] = cleared / len(normal)
        result.intervals["image/specificity"] = wilson_interval(cleared, len(normal))
    if len(abnormal) and len(normal):
        # Ranks in [0, 1] have the same curves; torchmetrics would squeeze scores of another range through a sigmoid.
        ranks, target = torch.from_numpy(rankdata(scores) / len(scores)), torch.from_numpy(labels)
        result.metrics["image/auroc"] = float(binary_auroc(ranks, target))
        result.metrics["image/average_precision"] = float(binary_average_precision(ranks, target))
        result.metrics["image/f1"] = 2 * found / (found + len(normal) - cleared + len(abnormal))
        if min(len(normal), len(abnormal)) > 1:
            result.intervals["image/auroc"] = delong_interval(normal, abnormal)
    reason = "no normal images" if len(abnormal) else NO_ABNORMAL
    names = ("auroc", "average_precision", "f1", "sensitivity", "specificity")
    result.undefined = {f"image/{name}": reason for name in names if f"image/{name}" not in result.metrics}
    for name in ("image/f1", "image/sensitivity", "image/specificity") if np.isnan(threshold) else ():
        result.metrics.pop(name, None)  # nothing exceeds NaN, so these would claim that nothing was found
        result.intervals.pop(name, None)
        result.undefined[name] = "no threshold"
    return result
