"""What a test leaves on disk and on the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ccd_lightning.metrics.calibration import normal_percentile
from ccd_lightning.metrics.detection import Evaluation, ImageRecord
from ccd_lightning.metrics.names import MAIN
from ccd_lightning.metrics.types import Floats
from ccd_lightning.writing import atomic_write

METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"


def write_metrics(file: Path, evaluation: Evaluation, data: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Writes metrics.json: "metrics", "intervals", "undefined" (name to reason), "data" and "run"."""
    content = {
        "metrics": evaluation.metrics,
        "intervals": {name: list(ends) for name, ends in evaluation.intervals.items()},
        "undefined": evaluation.undefined,
        "data": dict(data),
        "run": dict(run),
    }
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


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
    with atomic_write(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
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
    label, group = ([str(record.label)], [record.group]) if labelled else ([], [])
    return [record.path, *label, repr(record.score), place, decision, *group]


def print_summary(evaluation: Evaluation, console: Console | None = None, note: str = "") -> None:
    """Prints the main metrics with their intervals, and the undefined ones of them with the reason.

    Main are `names.MAIN`, the image AUROC of each part of the abnormal images, and what pretraining measures.

    Args:
        evaluation: To print.
        console: Where to; None for stdout.
        note: Printed below.
    """
    console = console or Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95% interval")
    parts = [name for name in evaluation.metrics if name.startswith(("image/auroc/", "pretext/"))]
    for name in chain(MAIN, parts):
        if name in evaluation.metrics:
            ends = evaluation.intervals.get(name)
            interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
            table.add_row(name, f"{evaluation.metrics[name]:.3f}", interval)
        elif name in evaluation.undefined:
            table.add_row(name, "-", f"undefined: {evaluation.undefined[name]}")
    console.print(table)
    if note:
        console.print(note, soft_wrap=True, highlight=False)
