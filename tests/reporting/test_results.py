from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ccd_lightning.metrics.detection import Evaluation, ImageRecord
from ccd_lightning.reporting.results import print_summary, write_metrics, write_predictions


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        {"image/specificity": 0.75, "image/auroc": 0.91234}, {"image/auroc": (0.85, 0.96)}, {"pixel/auroc": "no masks"}
    )


def test_metrics_file_has_the_documented_content(tmp_path: Path, evaluation: Evaluation) -> None:
    file = tmp_path / "metrics.json"
    write_metrics(file, evaluation, {"images": 7}, {"seed": 3})
    assert json.loads(file.read_text()) == {
        "metrics": {"image/auroc": 0.91234, "image/specificity": 0.75},
        "intervals": {"image/auroc": [0.85, 0.96]},
        "undefined": {"pixel/auroc": "no masks"},
        "data": {"images": 7},
        "run": {"seed": 3},
    }


def test_metrics_file_is_the_same_bytes_in_any_order(tmp_path: Path, evaluation: Evaluation) -> None:
    backwards = Evaluation(dict(reversed(evaluation.metrics.items())), evaluation.intervals, evaluation.undefined)
    write_metrics(tmp_path / "a.json", evaluation, {"x": 1, "y": 2}, {})
    write_metrics(tmp_path / "b.json", backwards, {"y": 2, "x": 1}, {})
    text = (tmp_path / "a.json").read_text()
    assert text == (tmp_path / "b.json").read_text()
    assert text.startswith('{\n  "data": {')


def test_what_is_no_number_leaves_the_old_metrics_file(tmp_path: Path, evaluation: Evaluation) -> None:
    file = tmp_path / "metrics.json"
    write_metrics(file, evaluation, {}, {})
    before = file.read_text()
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(file, Evaluation({"image/auroc": float("nan")}), {}, {})
    assert file.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_predictions_come_back_to_the_bit(tmp_path: Path) -> None:
    scores = np.array([0.1, 1e-7, 12345.678, 2.5, 3.4e38], dtype=np.float32)
    groups = ["p, 1", "p, 1", "", "ü", ""]
    paths = ["a.png", 'b, "quoted".png', "ü/d e.png", "at threshold.png", "e.png"]
    records = [
        ImageRecord(path, i % 2, "x", float(score), group)
        for i, (path, score, group) in enumerate(zip(paths, scores, groups, strict=True))
    ]
    file = tmp_path / "predictions.csv"
    write_predictions(file, iter(records), 2.5, np.array([1.0, 2.0, 2.5]))
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "label", "score", "percentile", "decision", "group"]
    assert [row["group"] for row in rows] == groups
    assert [row["path"] for row in rows] == paths
    assert [row["label"] for row in rows] == ["0", "1", "0", "1", "0"]
    assert np.array_equal(np.array([float(row["score"]) for row in rows], dtype=np.float32), scores)
    assert [row["percentile"] for row in rows] == ["12.500", "12.500", "87.500", "75.000", "87.500"]
    assert [row["decision"] for row in rows] == ["normal", "normal", "abnormal", "normal", "abnormal"]


def test_interrupted_predictions_leave_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    write_predictions(file, [ImageRecord("a.png", 0, "good", 1.0)], 2.0, np.empty(0))
    before = file.read_text()

    def broken() -> object:
        yield ImageRecord("b.png", 0, "good", 1.0)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_predictions(file, broken(), 2.0, np.empty(0))  # type: ignore[arg-type]
    assert file.read_text() == before


def test_summary_shows_values_intervals_and_reasons(evaluation: Evaluation) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    evaluation.metrics |= {"image/f1": 0.5, "image/auroc/polyp": 0.8, "pixel/auroc/polyp": 0.7}
    print_summary(evaluation, console)
    lines = {line.split()[0]: line.split() for line in console.export_text().splitlines() if line.strip()}
    assert lines["image/auroc"] == ["image/auroc", "0.912", "0.850", "to", "0.960"]
    assert lines["image/specificity"] == ["image/specificity", "0.750"]
    assert "image/f1" not in lines
    assert lines["image/auroc/polyp"] == ["image/auroc/polyp", "0.800"]
    assert lines["pixel/auroc"] == ["pixel/auroc", "-", "undefined:", "no", "masks"]
