from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccd_lightning.metrics.records import Evaluation
from ccd_lightning.reporting.metrics_json import Results, read_metrics, write_metrics


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


def test_a_metric_that_is_not_finite_leaves_the_old_file(tmp_path: Path, evaluation: Evaluation) -> None:
    file = tmp_path / "metrics.json"
    write_metrics(file, evaluation, {}, {})
    before = file.read_text()
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(file, Evaluation({"image/auroc": float("nan")}), {}, {})
    assert file.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_what_is_written_is_read(tmp_path: Path, evaluation: Evaluation) -> None:
    evaluation.metrics |= {"image/average_precision": 1 / 3, "image/auroc/polyp": 1e-12}
    evaluation.intervals["image/auroc/polyp"] = (0.0, 2 / 3)
    data = {"root": "ü/data", "images": 7, "split": "0123", "groups": 0, "size_bounds": [0.1, 0.2]}
    write_metrics(tmp_path / "metrics.json", evaluation, data, {"seed": None})
    assert read_metrics(tmp_path) == Results(evaluation, data, {"seed": None})
