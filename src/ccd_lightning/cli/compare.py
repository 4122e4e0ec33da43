"""`ccd compare`: the metrics of tested runs side by side, and whether their difference is more than chance."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ccd_lightning.errors import UserError
from ccd_lightning.evaluation.names import MAIN
from ccd_lightning.runs import newest_run

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FORMATS = (".png", ".pdf", ".svg")


def run_compare(words: list[str]) -> None:
    """Prints a table with a column a run, and one of their differences from the first run."""
    parser = argparse.ArgumentParser(
        "ccd compare", description="Metrics of tested runs side by side, and a paired test of each against the first."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or the folder of its versions"
    )
    parser.add_argument("--all", action="store_true", help="show every metric, not only the main ones")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"draw the runs' ROC curves into a file ({', '.join(FORMATS)})"
    )
    arguments = parser.parse_args(words)
    output: Path | None = arguments.output
    if output and output.suffix.lower() not in FORMATS:
        raise UserError(f"{output}: the name of a picture ends in {', '.join(FORMATS)}.")
    runs = {str(path): tested_run(path) for path in arguments.runs}
    results = {name: json.loads((run / "metrics.json").read_text()) for name, run in runs.items()}
    check_same_data(results)
    print_metrics(results, every=arguments.all)
    if len(runs) == 1 and not output:
        return
    labels, scores = read_scores(runs)
    if len(runs) > 1:
        print_differences(labels, scores, grouped=any(result["data"].get("groups") for result in results.values()))
    if output:
        draw(labels, scores, output)


def print_metrics(results: Mapping[str, Mapping[str, Any]], every: bool) -> None:
    """Prints a table with a column a run."""
    table = _table("metric", results)
    known = {name: None for result in results.values() for name in result["metrics"]}
    for metric in known if every else MAIN:
        if metric in known:
            table.add_row(metric, *(_cell(result, metric) for result in results.values()))
    Console().print(table)
    print("in brackets: 95% intervals, of the test images drawn")


def print_differences(labels: Integers, scores: Mapping[str, Floats], grouped: bool) -> None:
    """Prints how each run's image metrics differ from the first run's, and DeLong's paired test of the AUROC.

    Args:
        labels: (N,), 0 or 1.
        scores: Each run's (N,), of the same images.
        grouped: Whether several images are of one patient or video.
    """
    from ccd_lightning.evaluation.intervals import delong_test  # scipy takes a second, which --help need not
    from ccd_lightning.evaluation.paired import holm, paired_differences

    if min((labels == 0).sum(), (labels == 1).sum()) < 2:
        print("no paired test: it needs at least two normal and two abnormal images")
        return
    (first, reference), *others = scores.items()
    tests = [delong_test(labels, own, reference) for _, own in others]
    ps = [test.p for test in tests]
    bootstrapped = [paired_differences(labels, own, reference) for _, own in others]
    table = _table(f"minus {first}", [name for name, _ in others])
    table.add_row("image/auroc", *(_difference(*test[:3]) for test in tests))
    table.add_row("  p", *map(_probability, ps))
    if len(tests) > 1:
        table.add_row("  p, corrected", *map(_probability, holm(ps)))
    for metric in bootstrapped[0]:
        table.add_row(metric, *(_difference(*found[metric]) for found in bootstrapped))
    print()
    Console().print(table)
    correction = f", corrected for {len(tests)} comparisons by Holm's method" if len(tests) > 1 else ""
    print(f"AUROC: DeLong's paired test, two-sided{correction}; the others: paired bootstrap")
    print("in brackets: 95% intervals, of the test images drawn; how much another seed changes is not in them")
    if grouped:
        print("images of a patient or video count as independent here: intervals are too narrow, p is too small")


def draw(labels: Integers, scores: Mapping[str, Floats], output: Path) -> None:
    """Writes a picture of the runs' ROC curves.

    Raises:
        UserError: If there is no such curve, because all images are normal or all are abnormal, or the file cannot be
            written.
    """
    if len(set(labels.tolist())) < 2:
        raise UserError(f"{output}: not drawn. A ROC curve needs normal and abnormal test images.")
    from ccd_lightning.evaluation.figures import roc_comparison_figure  # with torch and matplotlib

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        roc_comparison_figure(scores, labels).savefig(output, dpi=110, bbox_inches="tight")  # long names are wide
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error}).") from error
    print(f"\nROC curves: {output}")


def tested_run(path: Path) -> Path:
    """The folder of a tested run: the path itself, or the newest finished run in it.

    Raises:
        UserError: If there is none.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run.")
    run = path if (path / "metrics.json").is_file() else newest_run(path)
    if not (run / "metrics.json").is_file():
        raise UserError(f"{run}: not tested yet. Do it with: ccd test --ckpt_path {run}")
    return run


def read_scores(runs: Mapping[str, Path]) -> tuple[Integers, dict[str, Floats]]:
    """Labels (N,) and each run's image scores (N,), in one order.

    Args:
        runs: Folders of tested runs by name.

    Raises:
        UserError: If a run has no predictions, or they are not of the same images with the same labels as the first's.
    """
    predictions = {name: read_predictions(run) for name, run in runs.items()}
    first = next(iter(predictions))
    labels = {path: label for path, (label, _) in predictions[first].items()}
    for name, rows in predictions.items():
        if {path: label for path, (label, _) in rows.items()} != labels:
            raise UserError(
                f"{runs[name]}/predictions.csv does not list the images and labels that"
                f" {runs[first]}/predictions.csv lists. Test both runs again, on the same images."
            )
    scores = {name: np.array([rows[path][1] for path in labels]) for name, rows in predictions.items()}
    return np.array(list(labels.values()), dtype=np.int64), scores


def read_predictions(run: Path) -> dict[str, tuple[int, float]]:
    """Label and score by path, relative to the folder that holds all images, which may have moved between two tests.

    Raises:
        UserError: If predictions.csv is missing or damaged.
    """
    file = run / "predictions.csv"
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [(row["path"], int(row["label"]), float(row["score"])) for row in csv.DictReader(stream)]
        base = os.path.commonpath([path for path, _, _ in rows])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}). Write it with: ccd test --ckpt_path {run}") from error
    return {os.path.relpath(path, base): (label, score) for path, label, score in rows}


def check_same_data(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares what the runs were tested on.

    Raises:
        UserError: If it differs.
    """
    (first, expected), *others = ((name, result["data"]) for name, result in results.items())
    for name, data in others:
        if data["split"] != expected["split"]:
            raise UserError(
                f"{first} was tested on {expected['images']} images of {expected['root']}, {name} on"
                f" {data['images']} of {data['root']}: their metrics cannot be compared."
            )


def _table(title: str, names: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")  # the ends of names are what tells runs apart
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _cell(result: Mapping[str, Any], metric: str) -> str:
    if metric not in result["metrics"]:
        return f"- ({result['undefined'].get(metric, 'not measured')})"
    ends = result["intervals"].get(metric)
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return f"{result['metrics'][metric]:.3f}{interval}"


def _difference(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
