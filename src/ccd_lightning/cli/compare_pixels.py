"""How the pixel metrics of tested runs differ, from the pixels that their tests kept."""

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
    """How each run's pixel metrics differ from the first run's.

    Args:
        compared: The images.
        runs: Folders of tested runs by name.
        results: Their metrics.

    Returns:
        Difference, low and high end of each metric that both runs have, by the run's name; and sentences that say why
        runs that have such metrics are not compared.
    """
    first, *others = runs
    found: dict[str, Differences] = {}
    reasons: dict[str, None] = {}
    for name in others:
        own, reference = (results[run].evaluation.metrics for run in (name, first))
        exact = {metric: own[metric] - reference[metric] for metric in METRICS if metric in own and metric in reference}
        if not exact:
            continue  # why there are none is said where the metrics are
        try:
            found[name] = _differences(compared, {run: runs[run] for run in (first, name)}, exact)
        except UserError as error:
            reasons[f"pixel metrics are not compared: {error}"] = None
    return found, list(reasons)


def _differences(compared: Compared, runs: Mapping[str, Path], exact: Mapping[str, float]) -> Differences:
    """Those of the second of two runs from the first.

    Raises:
        UserError: If they cannot be compared.
    """
    (indices, reference), (others, own) = (_kept(run, compared.files[name]) for name, run in runs.items())
    first, second = runs.values()
    masks = [table.abnormal.sum(axis=1) for table in (reference, own)]  # whose sums bins do not change
    if not (np.array_equal(indices, others) and np.array_equal(*masks)):
        raise UserError(f"{second} was tested with other masks than {first}.")
    images = [compared.images[index] for index in indices]
    if smaller_class(images) < 2:
        raise UserError("it takes at least two normal and two abnormal images, or groups of them, with known masks.")
    return paired_pixels(images, own, reference, exact)


def _kept(run: Path, files: list[str]) -> tuple[Integers, PixelTable]:
    """Places (n,), rising, of a run's images whose masks are known, and their pixels.

    Args:
        run: The folder of a tested run.
        files: The images' paths in its predictions.csv.

    Raises:
        UserError: If the pixels are missing, damaged, or of other images.
    """
    table, indices = read_pixels(run), {file: index for index, file in enumerate(files)}
    if not indices.keys() >= set(table.paths):
        raise UserError(
            f"{run / PIXELS} has images that {run}/predictions.csv has not. Write both with: {how_to_test(run)}"
        )
    found = np.array([indices[path] for path in table.paths], dtype=np.int64)
    order = np.argsort(found)
    return found[order], table.take(order)
