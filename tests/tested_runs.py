"""Folders of tested runs, without a test, and what `ccd compare` says of them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ccd_lightning.cli import main
from ccd_lightning.metrics.records import ImageRecord

LABELS = np.array([0] * 9 + [1] * 12)
RNG = np.random.default_rng(5)
GOOD, POOR, OTHER = (RNG.normal(size=21) + shift * LABELS for shift in (2.5, 0.9, 1.5))


def leave(
    name: str,
    scores: NDArray[np.float64],
    labels: NDArray[np.int64] = LABELS,
    root: str = "data",
    order: slice = slice(None),
    groups: Sequence[object] | None = None,
    counted: int | None = 0,
) -> str:
    """Makes the folder of a tested run; without groups as an older version left it."""
    run = Path(name)
    run.mkdir()
    content: dict[str, Any] = {
        "metrics": {"image/auroc": 0.75, "image/f1": 0.5},
        "intervals": {"image/auroc": [0.625, 0.875]},
        "undefined": {"pixel/auroc": "no masks"},
        "data": {"root": root, "images": len(labels), "split": "same"},
    }
    if counted is not None:  # the oldest runs do not say
        content["data"]["groups"] = counted
    (run / "metrics.json").write_text(json.dumps(content))
    rows = [
        (f"{root}/test/{'polyp' if label else 'good'}/{index:02}.png", label, repr(float(score)))
        for index, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    with (run / "predictions.csv").open("w", newline="") as stream:
        if groups is None:
            csv.writer(stream).writerows([("path", "label", "score"), *rows[order]])
        else:
            grouped = [(*row, group) for row, group in zip(rows, groups, strict=True)]
            csv.writer(stream).writerows([("path", "label", "score", "group"), *grouped[order]])
    return name


def records(groups: Sequence[str] = ("",) * 21) -> list[ImageRecord]:
    rows = enumerate(zip(LABELS.tolist(), groups, strict=True))
    return [ImageRecord(str(index), label, "", 0.0, group) for index, (label, group) in rows]


def compare_lines(*words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that the command prints."""
    capsys.readouterr()
    assert main(["compare", *words]) == 0
    return capsys.readouterr().out.splitlines()


def output_without_torch(*words: str) -> str:
    """What a command prints in a process of its own, in which it imports neither torch nor what comes with it."""
    code = (
        "import sys; from ccd_lightning.cli import main\n"
        f"try: main({[*words]!r})\nexcept SystemExit as end: assert not end.code\n"  # as help ends
        "sys.exit(bool({'torch', 'lightning', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What it says when it fails as it should."""
    assert main(["compare", *words]) == 2
    return capsys.readouterr().err


def differences(lines: list[str], first: str) -> dict[str, list[str]]:
    """The words of each row of the second table."""
    start = next(place for place, line in enumerate(lines) if line.startswith(f"minus {first}"))
    end = next(place for place, line in enumerate(lines) if line.startswith("image/auroc: DeLong's paired test"))
    return {line[: len("image/sensitivity_at_specificity_95")].strip(): line.split() for line in lines[start:end]}


def interval(value: float, low: float, high: float) -> list[str]:
    return [f"{value:+.3f}", f"[{low:+.3f},", f"{high:+.3f}]"]
