"""Differences in pixel metrics between tested runs, from the pixels that their tests stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ccd_lightning.errors import UserError
from ccd_lightning.metrics.bootstrap import smaller_class
from ccd_lightning.metrics.paired import paired_pixels
from ccd_lightning.metrics.pixel_table import PIXELS, PixelTable, read_pixels
from ccd_lightning.metrics.types import Integers
from ccd_lightning.reporting.comparison import Compared
from ccd_lightning.reporting.metrics_json import Results
from ccd_lightning.runs import how_to_test

METRICS = ("pixel/auroc", "pixel/aupro", "pixel/dice", "pixel/mean_auroc", "pixel/mean_dice")
Differences = dict[str, tuple[float, float, float]]


def pixel_differences(
    compared: Compared, runs: Mapping[str, Path], results: Mapping[str, Results]
) -> tuple[dict[str, Differences], list[str]]:
    """Computes the differences of each run's pixel metrics from the first run's.

    Args:
        compared: The images.
        runs: Folders of the tested runs, by name.
        results: Metrics of the runs, by name.

    Returns:
        Difference, lower and upper end of its interval for each metric that both runs have, by the run's name; and
        sentences that explain why runs with such metrics are not compared.
    """
    first, *others = runs
    found: dict[str, Differences] = {}
    reasons: dict[str, None] = {}
    for name in others:
        own, reference = (results[run].evaluation.metrics for run in (name, first))
        exact = {metric: own[metric] - reference[metric] for metric in METRICS if metric in own and metric in reference}
        if not exact:
            continue  # the table of metrics states why there are none
        try:
            found[name] = _differences(compared, {run: runs[run] for run in (first, name)}, exact)
        except UserError as error:
            reasons[f"pixel metrics are not compared: {error}"] = None
    return found, list(reasons)


def _differences(compared: Compared, runs: Mapping[str, Path], exact: Mapping[str, float]) -> Differences:
    """Computes the differences of the second of two runs from the first.

    Raises:
        UserError: If they cannot be compared.
    """
    (indices, reference), (others, own) = (_kept(run, compared.files[name]) for name, run in runs.items())
    first, second = runs.values()
    masks = [table.abnormal.sum(axis=1) for table in (reference, own)]  # binning does not change these sums
    if not (np.array_equal(indices, others) and np.array_equal(*masks)):
        raise UserError(f"{second} was tested with other masks than {first}.")
    images = [compared.images[index] for index in indices]
    if smaller_class(images) < 2:
        raise UserError("it takes at least two normal and two abnormal images, or groups of them, with known masks.")
    return paired_pixels(images, own, reference, exact)


def _kept(run: Path, files: list[str]) -> tuple[Integers, PixelTable]:
    """Returns the indices (n,), ascending, of a run's images with known masks, and their pixels.

    Args:
        run: Folder of a tested run.
        files: Paths of the images in the run's predictions.csv.

    Raises:
        UserError: If the pixels are missing, damaged, or of other images.
    """
    table, indices = read_pixels(run), {file: index for index, file in enumerate(files)}
    if not indices.keys() >= set(table.paths):
        raise UserError(
            f"{run / PIXELS} has images that {run}/predictions.csv does not list. Write both with: {how_to_test(run)}"
        )
    found = np.array([indices[path] for path in table.paths], dtype=np.int64)
    order = np.argsort(found)
    return found[order], table.take(order)
