"""predictions.csv: what a test or a prediction writes, and `ccd compare` reads."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ccd_lightning.errors import UserError
from ccd_lightning.metrics.calibration import normal_percentile
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats
from ccd_lightning.reading import check_regular
from ccd_lightning.runs import how_to_test
from ccd_lightning.writing import atomic_write, cell, open_table, path_cell

PREDICTIONS = "predictions.csv"


class Prediction(NamedTuple):
    """A row of predictions.csv; the group (patient or video) is None where the file has no such column."""

    file: str
    label: int
    score: float
    group: str | None


def write_predictions(
    file: Path, records: Iterable[ImageRecord], threshold: float, normal_scores: Floats, labelled: bool = True
) -> None:
    """Writes predictions.csv: path, label (0 or 1), score, percentile, decision (normal or abnormal), and group.

    Args:
        file: Where to.
        records: The images.
        threshold: Images that score above it are abnormal; NaN where none was set, then decisions are empty.
        normal_scores: (n,) scores of held-out normal images, among which the percentile is (see `normal_percentile`);
            without any it is empty.
        labelled: Whether there are labels; otherwise their column and that of the groups are left out.
    """
    with atomic_write(file) as partial, open_table(partial) as stream:
        writer = csv.writer(stream)
        writer.writerow(columns(labelled))
        writer.writerows(cells(record, threshold, normal_scores, labelled) for record in records)


def columns(labelled: bool) -> list[str]:
    """The names of a prediction's cells."""
    return ["path", *(["label"] * labelled), "score", "percentile", "decision", *(["group"] * labelled)]


def cells(record: ImageRecord, threshold: float, normal_scores: Floats, labelled: bool) -> list[str]:
    """A row of predictions.csv; what has no held-out scores or no threshold (NaN) to compare with is empty."""
    decision = "" if math.isnan(threshold) else "abnormal" if record.score > threshold else "normal"
    percentile = normal_percentile(np.array([record.score]), normal_scores)[0]
    place = "" if math.isnan(percentile) else f"{percentile:.3f}"
    label, group = ([str(record.label)], [cell(record.group)]) if labelled else ([], [])
    return [path_cell(record.path), *label, repr(record.score), place, decision, *group]


def read_predictions(run: Path) -> dict[str, Prediction]:
    """Predictions by path, relative to the folder that holds all images, which may have moved between two tests.

    Raises:
        UserError: If predictions.csv is missing or damaged.
    """
    file = run / PREDICTIONS
    try:
        check_regular(file)
        with open_table(file, "r") as stream:
            listed = [_prediction(row) for row in csv.DictReader(stream)]
        rows = {row.file: row for row in listed}
        if len(rows) < max(len(listed), 1):
            raise ValueError("an image is listed twice" if rows else "there are no images in it")
        base = os.path.commonpath(rows)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        reason = f"there is no column {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: cannot be read ({reason}). Write it with: {how_to_test(run)}") from error
    return {os.path.relpath(path, base): row for path, row in rows.items()}


def _prediction(row: Mapping[str, str]) -> Prediction:
    label, score = int(row["label"]), float(row["score"])
    if label not in (0, 1) or not math.isfinite(score):
        raise ValueError(f"label {row['label']}, score {row['score']} for {row['path']}")
    return Prediction(row["path"], label, score, row.get("group"))
