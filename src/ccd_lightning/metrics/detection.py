"""Image and pixel metrics of a tested detector, with 95% intervals.

Higher scores are always more abnormal, and an image is called abnormal if ``score > threshold``. If a metric is
undefined for the test set, it is left out and the reason is recorded; it is never set to 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ccd_lightning.grids import cut_boxes
from ccd_lightning.metrics.image import IMAGE_METRICS, image_metrics
from ccd_lightning.metrics.pixel_table import PIXEL_METRICS, PixelTable
from ccd_lightning.metrics.pixels import PixelRecord, coarse, pixel_metrics, pooled, record_pixels
from ccd_lightning.metrics.records import NO_ABNORMAL, Evaluation, ImageRecord

__all__ = ["DetectionMetrics", "Evaluation", "ImageRecord"]

SIZES = ("size_small", "size_medium", "size_large")
TAKEN = re.compile(rf"(kind_)*({'|'.join(SIZES)})")  # kinds with these names get the prefix "kind_"
SUBSET_METRICS = ("image/auroc", "image/sensitivity", "pixel/auroc", "pixel/aupro")


def part_of(anomaly_type: str) -> str:
    r"""Returns the name of the subset with one kind: the kind, with the prefix `kind_` if it equals the name of a size.

    Bytes of a folder's name that are not UTF-8 are escaped as `\udcff` and the like, because logs need valid text.
    """
    name = anomaly_type.encode(errors="backslashreplace").decode()
    return f"kind_{name}" if TAKEN.fullmatch(name) else name


class DetectionMetrics:
    """Collects and evaluates a test set: one record per image, and one for its pixels.

    With several ranks, gather each rank's `state()` and evaluate `DetectionMetrics.merged(states)`. The results equal
    those of one rank, in any order.

    Args:
        pixel_threshold: Pixels with higher values are called abnormal; NaN if there is no threshold.
    """

    def __init__(self, pixel_threshold: float = math.nan) -> None:
        self.pixel_threshold = pixel_threshold
        self._records: list[ImageRecord] = []
        self._pixels: list[PixelRecord] = []
        self._maps = False

    @property
    def records(self) -> list[ImageRecord]:
        """Images added so far, sorted by path so that results do not depend on the order of loading."""
        return sorted(self._records)

    def update(self, batch: dict[str, Any], scores: Tensor, maps: Tensor | None = None) -> None:
        """Adds one batch.

        Args:
            batch: `label` (B,) 0 or 1, `anomaly_type`, `path` and `group` (B names each), `mask` (B, H, W) bool,
                `has_mask` (B,), and optionally `content` (B, 4), boxes (top, left, bottom, right) outside of which
                pixels do not count.
            scores: Image scores (B,), finite.
            maps: Anomaly maps (B, H, W), finite and not negative; None if there are only image scores.

        Raises:
            ValueError: If a score or a map is not finite.
        """
        labels, flat = batch["label"].tolist(), scores.detach().cpu().double().tolist()
        masks = list(cut_boxes(batch["mask"], batch.get("content")))
        known, covered = batch["has_mask"].tolist(), [float(mask.double().mean()) for mask in masks]
        areas = [area if label and has else None for label, has, area in zip(labels, known, covered, strict=True)]
        for row in zip(batch["path"], labels, batch["anomaly_type"], flat, batch["group"], areas, strict=True):
            record = ImageRecord(*row)
            if not math.isfinite(record.score):
                raise ValueError(f"the score of {record.path} is {record.score}")
            self._records.append(record)
        if maps is None:
            return
        self._maps = True
        shown = cut_boxes(maps, batch.get("content"))
        for path, anomaly_map, mask, has in zip(batch["path"], shown, masks, known, strict=True):
            if has:
                self._pixels.append(record_pixels(path, anomaly_map, mask, self.pixel_threshold))

    def state(self) -> dict[str, Any]:
        """Returns all collected data, which is small enough to gather."""
        return {
            "records": self.records,
            "pixels": self._pixels,
            "maps": self._maps,
            "pixel_threshold": self.pixel_threshold,
        }

    @classmethod
    def merged(cls, states: Iterable[dict[str, Any]]) -> DetectionMetrics:
        """Merges the data of several ranks, given as their `state()`.

        Raises:
            ValueError: If an image was tested more than once.
        """
        total = cls()
        for state in states:
            total._records += state["records"]
            total._pixels += state["pixels"]
            total._maps |= state["maps"]
            total.pixel_threshold = state["pixel_threshold"]
        for path, times in Counter(record.path for record in total._records).most_common(1):
            if times > 1:
                raise ValueError(f"{path} was tested {times} times, and would count as often")
        return total

    def compute(self, threshold: float) -> Evaluation:
        """Evaluates the collected images.

        Args:
            threshold: Images with higher scores are called abnormal; NaN if there is no threshold.

        Returns:
            IMAGE_METRICS and PIXEL_METRICS. SUBSET_METRICS are also computed as `<name>/<kind>` (see `part_of`) if
            there is more than one kind of abnormality, and as `<name>/<size>` for the thirds of the abnormal images by
            the area of their masks, each against all normal images. Pixel metrics use the images with known ground
            truth.
        """
        abnormal = [record for record in self.records if record.label]
        result = self._evaluate(abnormal, threshold, (*IMAGE_METRICS, *PIXEL_METRICS))
        kinds = sorted({record.anomaly_type for record in abnormal})
        parts = {
            part_of(anomaly_type): [row for row in abnormal if row.anomaly_type == anomaly_type]
            for anomaly_type in kinds
            if len(kinds) > 1
        }
        if bounds := self.size_bounds():
            measured = [record for record in abnormal if record.area]
            indices = np.searchsorted(bounds, np.array([record.area for record in measured]))
            for index, size in enumerate(SIZES):
                parts[size] = [record for record, at in zip(measured, indices, strict=True) if at == index]
        for part, records in parts.items():
            result.include(self._evaluate(records, threshold, SUBSET_METRICS), part)
        return result

    def pixel_table(self) -> PixelTable | None:
        """Returns the pixels of images with known ground truth, sorted by path; None if a class has no pixels."""
        pixels = sorted(self._pixels, key=lambda record: record.path)
        counts = pooled(pixels)
        return coarse(pixels, counts) if counts[0].any() and counts[1].any() else None

    def size_bounds(self) -> tuple[float, float] | None:
        """Returns the terciles of the mask areas, as shares of the image; None if they do not form three groups."""
        areas = [record.area for record in self._records if record.area]
        if len(areas) < len(SIZES):
            return None
        low, high = (float(bound) for bound in np.quantile(areas, (1 / 3, 2 / 3)))
        return (low, high) if min(areas) <= low < high < max(areas) else None

    def _evaluate(self, abnormal: Sequence[ImageRecord], threshold: float, names: Sequence[str]) -> Evaluation:
        """Evaluates a subset of the abnormal images against all normal images."""
        rows = [*(record for record in self.records if not record.label), *abnormal]
        result = image_metrics(rows, threshold, [name for name in names if name in IMAGE_METRICS])
        wanted = [name for name in names if name in PIXEL_METRICS]
        pixels = {record.path: record for record in self._pixels}
        known = [record for record in rows if record.path in pixels]
        if not abnormal:
            result.undefine(wanted, NO_ABNORMAL)
        elif not self._maps:
            result.undefine(wanted, "no anomaly maps")
        elif not any(record.label for record in known):
            result.undefine(wanted, "no masks")
        else:
            found = pixel_metrics(known, [pixels[record.path] for record in known], self.pixel_threshold, wanted)
            result.include(found)
        return result
