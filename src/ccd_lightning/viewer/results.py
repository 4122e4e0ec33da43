"""Data of the page: the rows of predictions.csv, the run's threshold, and the paths of images and detector."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ccd_lightning.commands import command, expand
from ccd_lightning.data.depth import WindowOption
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import file_of
from ccd_lightning.errors import UserError
from ccd_lightning.reading import read_text
from ccd_lightning.renamed import current_config
from ccd_lightning.reporting.metrics_json import METRICS, read_metrics, tested_run
from ccd_lightning.reporting.predictions_csv import PREDICTIONS, UNLABELLED, Prediction, list_predictions
from ccd_lightning.runs import CHECKPOINTS, CONFIG, how_to_test, known_runs, run_folder

PREDICTED = "predictions"  # subfolder of a run to which `ccd predict` writes
DEPTH = 3  # depth of a run's folder below that of its fit: runs/<name>/<version>


@dataclass(frozen=True)
class ShownResults:
    """Results of a test or a prediction.

    Attributes:
        folder: Folder of predictions.csv.
        rows: Rows of predictions.csv.
        threshold: Threshold of the test. NaN if none was set, or if it must be read from the detector.
        checkpoint: Run or checkpoint file of the detector, None if unknown.
        window: Display window for images of more than 8 bits (`depth.parse_window`).
        bases: Folders to which relative paths may refer.
    """

    folder: Path
    rows: list[Prediction] = field(repr=False)
    threshold: float
    checkpoint: Path | None
    window: WindowOption
    bases: tuple[Path, ...]

    @property
    def labelled(self) -> bool:
        """Whether the images have labels, as those of a test do."""
        return self.rows[0].label != UNLABELLED

    def image(self, index: int) -> Path:
        """Returns the path of a row's image."""
        return self._find(Path(self.rows[index].file))

    def masks(self, index: int) -> list[Path]:
        """Returns the paths of a row's masks."""
        return [self._find(mask) for mask in self.rows[index].masks]

    def _find(self, path: Path) -> Path:
        """Returns the first location at which a path exists, or the path itself, so that error messages name it."""
        candidates = (base / path for base in self.bases)
        return next((candidate for candidate in candidates if file_of(candidate).is_file()), path)

    def description(self, threshold: float, maps: str) -> dict[str, Any]:
        """Returns what the page requests once: everything about all images except their pixels.

        Args:
            threshold: Threshold of the run, NaN for none.
            maps: Why there are no anomaly maps, "" if there are.
        """
        rows = self.rows
        base = os.path.dirname(rows[0].file) if len(rows) == 1 else os.path.commonpath(row.file for row in rows)
        return {
            "run": os.path.relpath(self.folder),
            "labelled": self.labelled,
            "threshold": None if math.isnan(threshold) else threshold,
            "maps": maps,
            "base": base,
            "names": [os.path.relpath(row.file, base or ".") for row in rows],
            "scores": [row.score for row in rows],
            "labels": [row.label for row in rows],
            "kinds": [row.kind for row in rows],
            "groups": [row.group or "" for row in rows],
            "percentiles": [None if math.isnan(row.percentile) else row.percentile for row in rows],
            "masks": [bool(row.masks) for row in rows],
        }


def open_results(path: Path, checkpoint: Path | None = None) -> ShownResults:
    """Opens the results in a folder.

    Args:
        path: A tested run, a folder of runs (the newest finished one is used), or a folder written by `ccd predict`.
        checkpoint: Run or checkpoint of the detector. None for that of the folder's own run.

    Raises:
        UserError: If it was neither tested nor predicted, a file is damaged, or there is no such checkpoint.
    """
    path = expand(path)
    folder = path if (path / PREDICTIONS).is_file() and not (path / CHECKPOINTS).is_dir() else tested_run(path)
    run = folder.parent.parent if folder.parent.name == PREDICTED else folder
    if checkpoint is None and (run / CHECKPOINTS).is_dir():
        checkpoint = run
    elif checkpoint is not None:
        if not checkpoint.exists():
            raise UserError(f"{checkpoint}: no such run or checkpoint.{known_runs()}")
        run = run_folder(checkpoint) if checkpoint.is_file() else checkpoint
    tested = (folder / METRICS).is_file()
    threshold = read_metrics(folder).run.get("threshold") if tested else None
    write_it = how_to_test(folder) if tested else command("predict", "--images", "DIR", "--output", folder)
    rows = list_predictions(folder, write_it)
    above = list(run.resolve().parents)[DEPTH - 1 : DEPTH]
    return ShownResults(
        folder,
        rows,
        float(threshold) if isinstance(threshold, int | float) and math.isfinite(threshold) else math.nan,
        checkpoint,
        _window(run),
        (Path(), *above),
    )


def _window(run: Path) -> WindowOption:
    """Returns the window in a run's config. None if there is none or it is unreadable: only 8-bit images are shown."""
    try:
        settings = current_config(yaml.safe_load(read_text(run / CONFIG)))["data"]["init_args"]
        return Preprocessing.from_settings(settings).window
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError, UserError):
        return None
