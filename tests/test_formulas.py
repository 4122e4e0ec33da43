"""No table that the project writes holds a cell that a spreadsheet would compute."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.cli import main
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.metrics.records import ImageRecord
from ccd_lightning.reporting.predictions_csv import read_predictions, write_predictions
from ccd_lightning.writing import FORMULA

EVIL = ["=HYPERLINK(A1).png", "+1.png", "-2+3.png", "@SUM(A1).png", "\tx.png", "plain.png"]


def dangerous(file: Path) -> list[str]:
    with file.open(newline="") as stream:
        return [value for row in csv.reader(stream) for value in row if value.startswith(FORMULA)]


def test_manifests_have_no_formulas_and_are_read_back(tmp_path: Path) -> None:
    rows = [Row(tmp_path / name, "test", f"={index}" if index else "good", (), "-g") for index, name in enumerate(EVIL)]
    Manifest(tmp_path, rows).write(tmp_path / "table.csv")
    assert not dangerous(tmp_path / "table.csv")
    assert Manifest.read(tmp_path / "table.csv").rows == rows


def test_predictions_have_no_formulas_and_are_read_back(tmp_path: Path) -> None:
    records = [ImageRecord(name, index % 2, "", float(index)) for index, name in enumerate(EVIL)]
    write_predictions(tmp_path / "predictions.csv", records, 0.5, np.array([1.0]))
    assert not dangerous(tmp_path / "predictions.csv")
    assert list(read_predictions(tmp_path)) == EVIL


def test_findings_of_a_data_check_are_no_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(EVIL[:4]):
        for folder in ("train/good", "test/good", "test/-kind"):
            path = tmp_path / "set" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number * 20).save(path)
    assert main(["data", "check", "--root", "set"]) == 2
    assert not dangerous(tmp_path / "data_check/findings.csv")
