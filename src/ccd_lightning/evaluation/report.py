"""What a test leaves on disk and on the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ccd_lightning.evaluation.metrics import Evaluation, ImageRecord

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
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    partial.replace(file)


def write_predictions(file: Path, records: Iterable[ImageRecord], threshold: float, labelled: bool = True) -> None:
    """Writes predictions.csv: path, label (0 or 1, where it was read), score, and decision (normal or abnormal).

    Without a threshold decisions are empty.
    """
    partial = file.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", *(["label"] * labelled), "score", "decision"))
        for record in records:
            decision = "" if math.isnan(threshold) else "abnormal" if record.score > threshold else "normal"
            writer.writerow((record.path, *([record.label] * labelled), repr(record.score), decision))
    partial.replace(file)


def print_summary(evaluation: Evaluation, console: Console | None = None) -> None:
    """Prints the metrics with their intervals, and the undefined ones with the reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95% interval")
    for name, value in evaluation.metrics.items():
        ends = evaluation.intervals.get(name)
        table.add_row(name, f"{value:.3f}", f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "")
    for name, reason in evaluation.undefined.items():
        table.add_row(name, "-", f"undefined: {reason}")
    (console or Console()).print(table)
