"""metrics.json, written by a test and read by `ccd compare`. Files may be old, damaged or moved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccd_lightning.commands import expand
from ccd_lightning.errors import UserError
from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.reading import read_text
from ccd_lightning.runs import how_to_test, known_runs, newest_run
from ccd_lightning.writing import atomic_write

METRICS = "metrics.json"


class Results(NamedTuple):
    """Content of metrics.json.

    Attributes:
        evaluation: The metrics.
        data: Folder, number and digest of the test images: "root", "images", "split" and more.
        run: The model, its threshold and more. Empty in older files.
    """

    evaluation: Evaluation
    data: dict[str, Any]
    run: dict[str, Any]


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
        partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_metrics(run: Path) -> Results:
    """Reads the metrics of a tested run.

    Raises:
        UserError: If metrics.json is damaged or incomplete.
    """
    file = run / METRICS
    try:
        content = json.loads(read_text(file))
        evaluation = Evaluation(
            {name: float(value) for name, value in content["metrics"].items()},
            {name: (float(low), float(high)) for name, (low, high) in content["intervals"].items()},
            dict(content["undefined"]),
        )
        values = [*evaluation.metrics.values(), *(end for ends in evaluation.intervals.values() for end in ends)]
        if not all(map(math.isfinite, values)):
            raise ValueError("a metric is not a finite number")
        data = content["data"] | {key: content["data"][key] for key in ("root", "images", "split")}
        run_facts = dict(content.get("run", {}))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"there is no {error} in it" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: cannot be read ({reason}). Write it with: {how_to_test(run)}") from error
    return Results(evaluation, data, run_facts)


def tested_run(path: Path) -> Path:
    """Returns the folder of a tested run: the path itself, or the newest finished run in it.

    Raises:
        UserError: If there is none.
    """
    path = expand(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such run.{known_runs()}")
    run = path if (path / METRICS).is_file() else newest_run(path)
    if not (run / METRICS).is_file():
        raise UserError(f"{run}: not tested yet. Test it with: {how_to_test(run)}")
    return run


def check_same_data(tested: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that runs were tested on the same data.

    Args:
        tested: Section "data" of metrics.json, by the run's name.

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
