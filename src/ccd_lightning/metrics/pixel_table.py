"""Pixels of a test set in few bins: small enough to resample, to store, and to compare with another run."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ccd_lightning.errors import UserError
from ccd_lightning.metrics import threshold_metrics as curves
from ccd_lightning.metrics.pixel_means import AT_BEST, AT_THRESHOLD, MEAN_METRICS, mean_over_images, overlaps
from ccd_lightning.metrics.types import Floats, Integers
from ccd_lightning.runs import how_to_test
from ccd_lightning.writing import atomic_write

PIXELS = "pixels.npz"
AUPRO_LIMIT = 0.3  # maximum false positive rate, as in Bergmann et al.

# Functions of the counts of normal and abnormal pixels, and of abnormal pixels weighted by 1 / size of their region.
CURVES: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "pixel/auroc": lambda normal, abnormal, _: curves.partial_auc(normal, abnormal),
    "pixel/average_precision": lambda normal, abnormal, _: curves.average_precision(normal, abnormal),
    "pixel/aupro": lambda normal, _, regions: curves.partial_auc(normal, regions, AUPRO_LIMIT),
    "pixel/dice_best": lambda normal, abnormal, _: curves.best_dice(normal, abnormal),
    "pixel/iou_best": lambda normal, abnormal, _: curves.dice_to_iou(curves.best_dice(normal, abnormal)),
}
POOLED_DECISIONS = ("pixel/dice", "pixel/iou")
POOLED_METRICS = (*CURVES, *POOLED_DECISIONS)
DECISIONS = (*POOLED_DECISIONS, *AT_THRESHOLD)
PIXEL_METRICS = (*POOLED_METRICS, *MEAN_METRICS)


def pooled_values(names: Iterable[str], counts: Sequence[Floats], above: Floats) -> dict[str, Floats]:
    """Computes metrics over all pixels of R test sets, (R,) each.

    Args:
        names: Names of the metrics, from POOLED_METRICS.
        counts: The three arguments of the functions in CURVES, (R, K) each.
        above: Numbers of normal and abnormal pixels above the pixel threshold, (R, 2).
    """
    false, true = above.T
    dice = curves.dice(false, true, counts[1].sum(axis=-1))
    decided = {"pixel/dice": dice, "pixel/iou": curves.dice_to_iou(dice)}
    return {name: decided[name] if name in POOLED_DECISIONS else CURVES[name](*counts) for name in names}


class PixelTable(NamedTuple):
    """Pixels of N images with known ground truth, in K bins that all images share.

    Attributes:
        paths: Paths of the images, as in predictions.csv.
        normal: Number of normal pixels per bin, (N, K); bins are in ascending order.
        abnormal: Number of abnormal pixels per bin, (N, K).
        regions: Abnormal pixels per bin, each counted as a share of its region, (N, K).
        above: Numbers of normal and abnormal pixels above the pixel threshold, (N, 2).
        aurocs: Pixel AUROC within each image, (N,); NaN if all pixels are normal or all abnormal.
    """

    paths: list[str]
    normal: Floats
    abnormal: Floats
    regions: Floats
    above: Floats
    aurocs: Floats

    def evaluator(self, names: Collection[str]) -> Callable[[Floats], dict[str, Floats]]:
        """Returns a function that evaluates resamples.

        It maps the number of times each image was drawn, (R, N), to values (R,) of each named metric. Values are NaN if
        no abnormal pixels were drawn.
        """
        pooled = [name for name in names if name in POOLED_METRICS]
        images = {name: self._of_images(name) for name in names if name in MEAN_METRICS}

        def evaluate(drawn: Floats) -> dict[str, Floats]:
            counts = [drawn @ count for count in (self.normal, self.abnormal, self.regions)]
            with np.errstate(invalid="ignore"):  # for resamples without abnormal pixels
                found = pooled_values(pooled, counts, drawn @ self.above)
            return found | {name: mean_over_images(drawn, values) for name, values in images.items()}

        return evaluate

    def _of_images(self, name: str) -> Floats:
        """Returns a metric of each image, (N, T), as input of `mean_over_images`."""
        if name == "pixel/mean_auroc":
            return self.aurocs[:, None]
        if name in AT_BEST:
            false, true = curves.called(self.normal), curves.called(self.abnormal)
        else:
            false, true = self.above[:, :1], self.above[:, 1:]
        return overlaps(name, false, true, self.abnormal.sum(axis=1))

    def take(self, indices: Integers) -> PixelTable:
        """Selects images by index, in the given order."""
        return PixelTable([self.paths[index] for index in indices], *(array[indices] for array in self[1:]))


def write_pixels(file: Path, table: PixelTable | None) -> None:
    """Writes a table as compressed NumPy arrays; for None, removes the file of an earlier test.

    Counts are stored in the smallest integer type that holds them, region shares and AUROCs as float32.
    """
    if table is None:
        file.unlink(missing_ok=True)
        return
    counts = {"normal": table.normal, "abnormal": table.abnormal, "above": table.above}
    small = {name: count.astype(np.min_scalar_type(int(count.max()))) for name, count in counts.items()}
    shares = {"regions": table.regions.astype(np.float32), "aurocs": table.aurocs.astype(np.float32)}
    with atomic_write(file) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, paths=np.array(table.paths), **small, **shares)


def read_pixels(run: Path) -> PixelTable:
    """Reads the table that `ccd test` wrote into a run.

    Raises:
        UserError: If the file is missing or damaged.
    """
    file, fix = run / PIXELS, f"Write it with: {how_to_test(run)}"
    if not file.is_file():
        raise UserError(f"{file}: not found; older versions did not write it. {fix}")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            unknown = {"aurocs": np.full(len(stored["paths"]), np.nan)}  # missing in files of earlier versions
            arrays = [(unknown | dict(stored))[name].astype(np.float64) for name in PixelTable._fields[1:]]
            table = PixelTable(stored["paths"].tolist(), *arrays)
    except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}). {fix}") from error
    shapes = {(len(table.paths), table.normal.shape[-1]), *(count.shape for count in table[1:4])}
    if len(shapes) > 1 or table.above.shape != (len(table.paths), 2) or len(table.aurocs) != len(table.paths):
        raise UserError(f"{file}: cannot be read (its arrays do not match). {fix}")
    return table
