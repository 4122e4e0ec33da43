"""Reading what tested runs left, which may be old, damaged or moved."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.commands import command, expand
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.records import Evaluation, ImageRecord
from ccd_lightning.runs import newest_run

Floats = NDArray[np.float64]


class Tested(NamedTuple):
    """What metrics.json says.

    Attributes:
        evaluation: Its metrics.
        data: Where the test images are, how many, and a digest of them: "root", "images", "split" and more.
    """

    evaluation: Evaluation
    data: dict[str, Any]


class Prediction(NamedTuple):
    """A row of predictions.csv; the group (patient or video) is None where the file has no such column."""

    file: str
    label: int
    score: float
    group: str | None


class Compared(NamedTuple):
    """Image scores of several runs.

    Attributes:
        images: N images, with their paths relative to the folder that holds all, labels and groups.
        scores: Each run's (N,), in the order of the images.
        files: Each run's N paths, in the order of the images, as its test wrote them.
        groups_known: Whether any run tells groups, be it that there are none.
        regrouped: Runs that tell other groups than those of the images, which are of the first run that tells any.
    """

    images: list[ImageRecord]
    scores: dict[str, Floats]
    files: dict[str, list[str]]
    groups_known: bool
    regrouped: list[str]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The images' labels, (N,)."""
        return np.array([image.label for image in self.images], dtype=np.int64)


def tested_run(path: Path) -> Path:
    """The folder of a tested run: the path itself, or the newest finished run in it.

    Raises:
        UserError: If there is none.
    """
    path = expand(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such run.")
    run = path if (path / "metrics.json").is_file() else newest_run(path)
    if not (run / "metrics.json").is_file():
        raise UserError(f"{run}: not tested yet. Do it with: {again(run)}")
    return run


def again(run: Path) -> str:
    """The command that tests a run once more."""
    return command("test", "--ckpt_path", run)


def read_results(run: Path) -> Tested:
    """The metrics of a tested run.

    Raises:
        UserError: If metrics.json is damaged or lacks something.
    """
    file = run / "metrics.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        evaluation = Evaluation(
            {name: float(value) for name, value in content["metrics"].items()},
            {name: (float(low), float(high)) for name, (low, high) in content["intervals"].items()},
            dict(content["undefined"]),
        )
        data = content["data"] | {key: content["data"][key] for key in ("root", "images", "split")}
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"there is no {error} in it" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: cannot be read ({reason}). Write it with: {again(run)}") from error
    return Tested(evaluation, data)


def read_scores(runs: Mapping[str, Path]) -> Compared:
    """The image scores of tested runs, in one order of the images.

    Args:
        runs: Folders of tested runs by name.

    Raises:
        UserError: If a run has no predictions, or they are not of the same images with the same labels as the first's.
    """
    predictions = {name: read_predictions(run) for name, run in runs.items()}
    first = next(iter(predictions))
    labels = {path: row.label for path, row in predictions[first].items()}
    for name, rows in predictions.items():
        if {path: row.label for path, row in rows.items()} != labels:
            raise UserError(
                f"{runs[name]}/predictions.csv does not list the images and labels that"
                f" {runs[first]}/predictions.csv lists. Test both runs again, on the same images."
            )
    columns = {name: [rows[path].group for path in labels] for name, rows in predictions.items()}
    known = {name: groups for name, groups in columns.items() if None not in groups}
    told = {name: groups for name, groups in known.items() if any(groups)}
    groups = next(iter(told.values()), [""] * len(labels))
    images = [ImageRecord(path, labels[path], "", 0.0, group or "") for path, group in zip(labels, groups, strict=True)]
    scores = {name: np.array([rows[path].score for path in labels]) for name, rows in predictions.items()}
    files = {name: [rows[path].file for path in labels] for name, rows in predictions.items()}
    return Compared(images, scores, files, bool(known), [name for name, own in told.items() if own != groups])


def read_predictions(run: Path) -> dict[str, Prediction]:
    """Predictions by path, relative to the folder that holds all images, which may have moved between two tests.

    Raises:
        UserError: If predictions.csv is missing or damaged.
    """
    file = run / "predictions.csv"
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            listed = [_prediction(row) for row in csv.DictReader(stream)]
        rows = {row.file: row for row in listed}
        if len(rows) < max(len(listed), 1):
            raise ValueError("an image is listed twice" if rows else "there are no images in it")
        base = os.path.commonpath(rows)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        reason = f"there is no column {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: cannot be read ({reason}). Write it with: {again(run)}") from error
    return {os.path.relpath(path, base): row for path, row in rows.items()}


def _prediction(row: Mapping[str, str]) -> Prediction:
    label, score = int(row["label"]), float(row["score"])
    if label not in (0, 1) or not math.isfinite(score):
        raise ValueError(f"label {row['label']}, score {row['score']} for {row['path']}")
    return Prediction(row["path"], label, score, row.get("group"))


def check_same_data(tested: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares what runs were tested on.

    Args:
        tested: What metrics.json says as "data", by the run's name.

    Raises:
        UserError: If it differs.
    """
    (first, expected), *others = tested.items()
    for name, data in others:
        if data["split"] != expected["split"]:
            raise UserError(
                f"{first} was tested on {expected['images']} images of {expected['root']}, {name} on"
                f" {data['images']} of {data['root']}: their metrics cannot be compared."
            )
