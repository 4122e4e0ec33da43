"""`ccd compare`: the metrics of tested runs side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ccd_lightning.errors import UserError
from ccd_lightning.evaluation.names import MAIN
from ccd_lightning.runs import newest_run


def run_compare(words: list[str]) -> None:
    """Prints a table with a column a run."""
    parser = argparse.ArgumentParser("ccd compare", description="Metrics of tested runs side by side.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or the folder of its versions"
    )
    parser.add_argument("--all", action="store_true", help="show every metric, not only the main ones")
    arguments = parser.parse_args(words)
    results = {str(path): read_metrics(path) for path in arguments.runs}
    check_same_data(results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    for name in results:
        table.add_column(name, justify="right")
    every = {name: None for result in results.values() for name in result["metrics"]}
    for metric in every if arguments.all else MAIN:
        if metric in every:
            table.add_row(metric, *(_cell(result, metric) for result in results.values()))
    Console().print(table)
    print("in brackets: 95% intervals, of the test images drawn")


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics.json of a run, or of the newest finished run in a folder.

    Raises:
        UserError: If there is none.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run.")
    run = path if (path / "metrics.json").is_file() else newest_run(path)
    file = run / "metrics.json"
    if not file.is_file():
        raise UserError(f"{run}: not tested yet. Do it with: ccd test --ckpt_path {run}")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


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


def _cell(result: dict[str, Any], metric: str) -> str:
    if metric not in result["metrics"]:
        return f"- ({result['undefined'].get(metric, 'not measured')})"
    ends = result["intervals"].get(metric)
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return f"{result['metrics'][metric]:.3f}{interval}"
