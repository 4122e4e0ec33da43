from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ccd_lightning.errors import UserError
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.reporting.predictions_csv import Prediction, list_predictions, read_predictions, write_predictions


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
    assert list(rows[0]) == ["path", "label", "score", "percentile", "decision", "group", "kind", "mask"]
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


@pytest.mark.parametrize("groups", [["p, 1", "ü"], ["", ""]])
def test_what_is_written_is_read(tmp_path: Path, groups: list[str]) -> None:
    paths, scores = ["/data/good/ü, 1.png", '/data/a "polyp"/2.png'], [0.1 + 0.2, 3.4e38]
    rows = list(zip(paths, (0, 1), scores, groups, strict=True))
    records = [ImageRecord(path, label, "polyp", score, group) for path, label, score, group in rows]
    masks = {paths[1]: (Path("/data/m/1.png"), Path("/data/m/ü 2.png"))}
    write_predictions(tmp_path / "predictions.csv", records, float("nan"), np.array([0.0, 1.0]), masks=masks)
    read = {row[0].removeprefix("/data/"): Prediction(*row, "polyp") for row in rows}
    found = read_predictions(tmp_path)
    assert [row.percentile for row in found.values()] == [50.0, 83.333]
    assert [row.masks for row in found.values()] == [(), masks[paths[1]]]
    assert {path: row._replace(masks=(), percentile=0.0) for path, row in found.items()} == {
        path: row._replace(percentile=0.0) for path, row in read.items()
    }


def test_predictions_without_labels_are_read_for_the_viewer_alone(tmp_path: Path) -> None:
    records = [ImageRecord("b.png", -1, "", 2.0), ImageRecord("a.png", -1, "", 1.0)]
    write_predictions(tmp_path / "predictions.csv", records, 1.5, np.empty(0), labelled=False)
    found = list_predictions(tmp_path, "ccd predict")
    assert [(row.file, row.label, row.score, row.kind) for row in found] == [
        ("b.png", -1, 2.0, ""),
        ("a.png", -1, 1.0, ""),
    ]
    with pytest.raises(UserError, match="no column 'label'"):
        read_predictions(tmp_path)
