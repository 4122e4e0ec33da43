"""Image scores of several tested runs, aligned by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ccd_lightning.errors import UserError
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.metrics.types import Floats, Integers
from ccd_lightning.reporting.predictions_csv import read_predictions


class Compared(NamedTuple):
    """Image scores of several runs.

    Attributes:
        images: The N images, with their paths relative to their common folder, labels and groups.
        scores: Scores (N,) of each run, in the order of the images.
        files: The N paths of each run, in the order of the images, as written by its test.
        groups_known: Whether any run records groups, even if there are none.
        regrouped: Runs whose grouping differs from that of `images`, which comes from the first run with groups. Names
            of groups are not compared, because those of DICOM files depend on the machine.
    """

    images: list[ImageRecord]
    scores: dict[str, Floats]
    files: dict[str, list[str]]
    groups_known: bool
    regrouped: list[str]

    @property
    def labels(self) -> Integers:
        """Labels of the images, (N,)."""
        return np.array([image.label for image in self.images], dtype=np.int64)


def read_scores(runs: Mapping[str, Path]) -> Compared:
    """Reads the image scores of tested runs, in the same order of images.

    Args:
        runs: Folders of the tested runs, by name.

    Raises:
        UserError: If a run has no predictions, or they are not of the same images with the same labels as the first
            run's.
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
    named = {name: groups for name, groups in known.items() if any(groups)}
    groups = next(iter(named.values()), [""] * len(labels))
    images = [ImageRecord(path, labels[path], "", 0.0, group or "") for path, group in zip(labels, groups, strict=True)]
    scores = {name: np.array([rows[path].score for path in labels]) for name, rows in predictions.items()}
    files = {name: [rows[path].file for path in labels] for name, rows in predictions.items()}
    regrouped = [name for name, own in named.items() if _partition(own) != _partition(groups)]
    return Compared(images, scores, files, bool(known), regrouped)


def _partition(groups: Sequence[str | None]) -> list[int]:
    """Returns for each image the index of the first image of its group, or its own index if it has no group."""
    first: dict[str, int] = {}
    return [first.setdefault(group, index) if group else index for index, group in enumerate(groups)]
