"""Image scores of several tested runs, brought into one order."""

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
        images: N images, with their paths relative to the folder that holds all, labels and groups.
        scores: Each run's (N,), in the order of the images.
        files: Each run's N paths, in the order of the images, as its test wrote them.
        groups_known: Whether any run tells groups, even if there are none.
        regrouped: Runs that group images otherwise than `images` does, which has the groups of the first run that tells
            any. Names of groups do not matter: those of DICOM files are others on another machine.
    """

    images: list[ImageRecord]
    scores: dict[str, Floats]
    files: dict[str, list[str]]
    groups_known: bool
    regrouped: list[str]

    @property
    def labels(self) -> Integers:
        """The images' labels, (N,)."""
        return np.array([image.label for image in self.images], dtype=np.int64)


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
    named = {name: groups for name, groups in known.items() if any(groups)}
    groups = next(iter(named.values()), [""] * len(labels))
    images = [ImageRecord(path, labels[path], "", 0.0, group or "") for path, group in zip(labels, groups, strict=True)]
    scores = {name: np.array([rows[path].score for path in labels]) for name, rows in predictions.items()}
    files = {name: [rows[path].file for path in labels] for name, rows in predictions.items()}
    regrouped = [name for name, own in named.items() if _partition(own) != _partition(groups)]
    return Compared(images, scores, files, bool(known), regrouped)


def _partition(groups: Sequence[str | None]) -> list[int]:
    """For each image the index of the first one of its group; its own where it is of none."""
    first: dict[str, int] = {}
    return [first.setdefault(group, index) if group else index for index, group in enumerate(groups)]
