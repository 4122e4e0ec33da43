"""predictions.csv, written by a test or a prediction, and read by `ccd compare` and `ccd view`."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ccd_lightning.data.manifest import masks_cell, masks_of
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.calibration import normal_percentile
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats
from ccd_lightning.reading import check_regular
from ccd_lightning.runs import how_to_test
from ccd_lightning.writing import atomic_write, cell, open_table, path_cell

PREDICTIONS = "predictions.csv"
UNLABELLED = -1
NO_MASKS: Mapping[str, Sequence[Path]] = MappingProxyType({})


class Prediction(NamedTuple):
    """A row of predictions.csv.

    Attributes:
        file: Path of the image, as the test or the prediction read it.
        label: 0 (normal), 1 (abnormal), or -1 if the file has no such column.
        score: Finite image score. Higher is more abnormal.
        group: Patient or video, "" if unknown, None if the file has no such column.
        kind: Kind of abnormality, "good" for a normal image, "" if the file does not state it.
        masks: Paths of the masks.
        percentile: Percentile among the scores of held-out normal images, in 0..100. NaN if there were none.
    """

    file: str
    label: int
    score: float
    group: str | None
    kind: str = ""
    masks: tuple[Path, ...] = ()
    percentile: float = math.nan


def write_predictions(
    file: Path,
    records: Iterable[ImageRecord],
    threshold: float,
    normal_scores: Floats,
    labelled: bool = True,
    masks: Mapping[str, Sequence[Path]] = NO_MASKS,
) -> None:
    """Writes predictions.csv: path, label (0 or 1), score, percentile, decision, group, kind, mask.

    Args:
        file: Path of the file to write.
        records: Records of the images.
        threshold: Images with a score above it are called abnormal, others normal. NaN if there is none; decisions are
            then empty.
        normal_scores: Scores (n,) of held-out normal images, which define the percentile (see `normal_percentile`). If
            there are none, percentiles are empty.
        labelled: Whether there are labels. Otherwise the columns label, group, kind and mask are left out.
        masks: Paths of the masks, by the image's path.
    """
    with atomic_write(file) as partial, open_table(partial) as stream:
        writer = csv.writer(stream)
        writer.writerow(columns(labelled))
        for record in records:
            row = prediction_of(record, normal_scores, masks.get(record.path, ()))
            writer.writerow(cells(row, threshold, labelled))


def columns(labelled: bool) -> list[str]:
    """Returns the column names."""
    return ["path", *(["label"] * labelled), "score", "percentile", "decision", *(["group", "kind", "mask"] * labelled)]


def prediction_of(record: ImageRecord, normal_scores: Floats, masks: Sequence[Path] = ()) -> Prediction:
    """Returns the row of an image, with its percentile among the scores of held-out normal images."""
    percentile = float(normal_percentile(np.array([record.score]), normal_scores)[0])
    kind = record.anomaly_type
    return Prediction(record.path, record.label, record.score, record.group, kind, tuple(masks), percentile)


def cells(row: Prediction, threshold: float, labelled: bool) -> list[str]:
    """Formats a row. The cell of a percentile, and of a decision without threshold, is empty if it is NaN."""
    percentile = "" if math.isnan(row.percentile) else f"{row.percentile:.3f}"
    label, others = [], []
    if labelled:
        label = [str(row.label)]
        others = [cell(row.group or ""), cell(row.kind), masks_cell(map(os.fspath, row.masks))]
    return [path_cell(row.file), *label, repr(row.score), percentile, decide(row.score, threshold), *others]


def decide(score: float, threshold: float) -> str:
    """Returns the decision for an image by its score; "" without a threshold (NaN)."""
    return "" if math.isnan(threshold) else "abnormal" if score > threshold else "normal"


def list_predictions(folder: Path, write_it: str) -> list[Prediction]:
    """Reads the rows of predictions.csv, in order, with or without labels.

    Args:
        folder: Folder of the file.
        write_it: Command that writes the file, used in error messages.

    Raises:
        UserError: If predictions.csv is missing or damaged.
    """
    file = folder / PREDICTIONS
    try:
        check_regular(file)
        with open_table(file, "r") as stream:
            listed = [_prediction(row) for row in csv.DictReader(stream)]
        if len({row.file for row in listed}) < max(len(listed), 1):
            raise ValueError("an image is listed twice" if listed else "there are no images in it")
        os.path.commonpath(row.file for row in listed)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        reason = f"there is no column {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: cannot be read ({reason}). Write it with: {write_it}") from error
    return listed


def read_predictions(run: Path) -> dict[str, Prediction]:
    """Reads labelled predictions by path, relative to the common folder of all images, which may move between tests.

    Raises:
        UserError: If predictions.csv is missing or damaged, or has no labels.
    """
    listed = list_predictions(run, how_to_test(run))
    if any(row.label == UNLABELLED for row in listed):
        reason = "there is no column 'label' in it"
        raise UserError(f"{run / PREDICTIONS}: cannot be read ({reason}). Write it with: {how_to_test(run)}")
    base = os.path.commonpath(row.file for row in listed)
    return {os.path.relpath(row.file, base): row for row in listed}


def _prediction(row: Mapping[str, str]) -> Prediction:
    label, score = int(row["label"]) if "label" in row else UNLABELLED, float(row["score"])
    if (label not in (0, 1) and "label" in row) or not math.isfinite(score):
        raise ValueError(f"label {row.get('label')}, score {row['score']} for {row['path']}")
    kind, masks = (row.get(name) or "" for name in ("kind", "mask"))
    percentile = float(row.get("percentile") or math.nan)
    return Prediction(
        row["path"], label, score, row.get("group"), kind.strip(), masks_of(masks.strip(), Path()), percentile
    )
