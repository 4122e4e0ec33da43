from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.metrics.intervals import delong_test
from ccd_lightning.metrics.paired import holm, paired_differences
from ccd_lightning.reporting import metrics_json
from tests.tested_runs import (
    GOOD,
    LABELS,
    OTHER,
    POOR,
    compare_lines,
    complaint,
    differences,
    interval,
    leave,
    output_without_torch,
    records,
)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_differences_from_the_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = compare_lines(leave("good", GOOD), leave("poor", POOR), capsys=capsys)
    assert next(line for line in lines if line.startswith("image/auroc ")).count("0.750 [0.625, 0.875]") == 2
    expected, rows = delong_test(LABELS, POOR, GOOD), differences(lines, "good")
    assert expected.difference < 0
    assert 0.001 < expected.p < 0.05
    assert rows["image/auroc"][1:] == interval(*expected[:3])
    assert rows["p"] == ["p", f"{expected.p:.3f}"]
    for name, found in paired_differences(records(), POOR, GOOD).items():
        assert rows[name][1:] == interval(*found)
    text = "\n".join(lines)
    assert "corrected" not in text
    assert "patient" not in text


def test_rows_are_matched_by_path_below_the_root(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = leave("first", GOOD), leave("second", POOR)
    moved = leave("moved", POOR, root="/elsewhere/data", order=slice(None, None, -1))
    rows = [differences(compare_lines(first, name, capsys=capsys), first) for name in (second, moved)]
    assert rows[0]["image/auroc"] == rows[1]["image/auroc"]


def test_several_comparisons_are_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    lines = compare_lines(leave("good", GOOD), leave("poor", POOR), leave("other", OTHER), capsys=capsys)
    rows, ps = differences(lines, "good"), [delong_test(LABELS, scores, GOOD).p for scores in (POOR, OTHER)]
    assert rows["image/auroc"][1:4] == interval(*delong_test(LABELS, POOR, GOOD)[:3])
    assert rows["p"][1:] == [f"{p:.3f}" for p in ps]
    assert rows["p, corrected"][2:] == [f"{p:.3f}" for p in holm(ps)]
    assert "corrected for 2 comparisons by Holm's method" in "\n".join(lines)


def test_small_probabilities_are_not_printed_as_zero(capsys: pytest.CaptureFixture[str]) -> None:
    rows = differences(compare_lines(leave("good", LABELS + 0.0), leave("bad", -LABELS + 0.0), capsys=capsys), "good")
    assert rows["p"][1:] == ["<", "0.001"]


@pytest.mark.parametrize("width", ["60", "80"])
def test_long_names_are_neither_cut_nor_broken(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    names = [f"a_long_name_that_many_runs_share_{end}" for end in ("first", "second", "third")]
    for name, scores in zip(names, (GOOD, POOR, OTHER), strict=True):
        leave(name, scores)
        file = Path(name, "metrics.json")
        content = json.loads(file.read_text())
        content["metrics"] |= {"image/sensitivity_at_specificity_95": 0.5, "pixel/mean_auroc": 0.5}
        content["intervals"] |= {"image/sensitivity_at_specificity_95": [0.25, 0.75], "pixel/mean_auroc": [0.25, 0.75]}
        file.write_text(json.dumps(content))
    lines = compare_lines(*names, "--all", capsys=capsys)
    rows = [line for line in lines if "[" in line]
    assert max(map(len, rows)) <= int(width)
    assert {line.split()[0] for line in rows} >= {"image/sensitivity_at_specificity_95", "pixel/mean_auroc"}
    assert sum(line.count("0.500 [0.250, 0.750]") for line in rows) == 6
    text = "\n".join(lines)
    assert "…" not in text
    assert all(end in text for end in ("first", "second", "third"))


def test_long_names_fit_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    long = leave("_".join(["a_long_name_that_many_runs_share"] * 4), OTHER)
    compare_lines(long, "--output", "roc.png", capsys=capsys)
    picture = np.asarray(Image.open("roc.png").convert("L"))
    assert (picture[:, [0, -1]] == 255).all()  # no letter is cut off at the sides


def test_one_run_alone_needs_no_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    Path(leave("alone", GOOD), "predictions.csv").unlink()
    lines = compare_lines("alone", capsys=capsys)
    assert any(line.split() == ["image/auroc", "0.750", "[0.625,", "0.875]"] for line in lines)
    assert not any("paired" in line for line in lines)
    assert any(line.startswith("image/f1") for line in compare_lines("alone", "--all", capsys=capsys))


def test_too_few_images_for_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0, 0, 0, 1])
    lines = compare_lines(leave("a", GOOD[:4], labels), leave("b", POOR[:4], labels), capsys=capsys)
    assert lines[-1] == "no paired test: it needs at least two normal and two abnormal images"


def test_predictions_of_other_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    first = leave("first", GOOD)
    fewer = leave("fewer", POOR, order=slice(20))
    assert "fewer/predictions.csv does not list the images and labels" in complaint(first, fewer, capsys=capsys)
    relabelled = Path(leave("relabelled", POOR), "predictions.csv")
    relabelled.write_text(relabelled.read_text().replace("20.png,1", "20.png,0"))
    assert "relabelled/predictions.csv does not" in complaint(first, "relabelled", capsys=capsys)


@pytest.mark.parametrize("damage", ["", "path,score\na.png,1.0\n", "path,label,score\na.png,1\n"])
def test_damaged_predictions_are_refused(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = leave("first", GOOD), leave("second", POOR)
    Path(second, "predictions.csv").write_text(damage)
    text = complaint(first, second, capsys=capsys)
    assert "second/predictions.csv: cannot be read" in text
    assert "ccd test --ckpt_path second" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("", "cannot be read (Expecting value"),
        ("\xff", "cannot be read ("),
        ("[]", "cannot be read ("),
        ('{"metrics": {"image/auroc": 0.7}, "undefined": {}}', "cannot be read (there is no 'intervals' in it)"),
        ('{"metrics": {"image/auroc": null}, "intervals": {}, "undefined": {}, "data": {}}', "cannot be read (float()"),
        ('{"metrics": {}, "intervals": {"x": [0]}, "undefined": {}, "data": {}}', "cannot be read (not enough values"),
        ('{"metrics": {}, "intervals": {}, "undefined": {}, "data": {}}', "cannot be read (there is no 'root' in it)"),
        ('{"metrics": {}, "intervals": {}, "undefined": {}, "data": 3}', "cannot be read ("),
    ],
)
def test_damaged_metrics_are_refused(damage: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = leave("first", GOOD), leave("second", POOR)
    Path(second, "metrics.json").write_bytes(damage.encode("latin-1"))
    for words in ((first, second), (second,)):
        text = complaint(*words, capsys=capsys)
        assert f"second/metrics.json: {message}" in text
        assert "Write it with: ccd test --ckpt_path second" in text


def test_runs_without_a_test_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/padim/version_0")
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"finished": "2024-01-01"}))
    assert f"{run}: not tested yet. Test it with: ccd test --ckpt_path {run}" in complaint("runs/padim", capsys=capsys)
    assert "nothing: no such run" in complaint(leave("first", GOOD), "nothing", capsys=capsys)


def test_each_run_is_looked_up_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def look_up(path: Path) -> Path:
        looked_up.append(str(path))
        return metrics_json.tested_run(path)

    monkeypatch.setattr("ccd_lightning.cli.compare.tested_run", look_up)
    runs = [leave("good", GOOD), leave("poor", POOR)]
    compare_lines(*runs, capsys=capsys)
    assert looked_up == runs
    Path("again").symlink_to("good")
    assert "again: the same run as good" in complaint(*runs, "again", capsys=capsys)


def test_curves_are_drawn_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    runs = leave("good", GOOD), leave("poor", POOR)
    before = set(Path().rglob("*"))
    compare_lines(*runs, capsys=capsys)
    assert set(Path().rglob("*")) == before
    lines = compare_lines(*runs, "--output", "figures/roc.png", capsys=capsys)
    assert lines[-1] == "ROC curves: figures/roc.png"
    assert np.asarray(Image.open("figures/roc.png").convert("L")).std() > 10
    assert "roc.txt: the name of a picture ends in .png" in complaint(*runs, "--output", "roc.txt", capsys=capsys)
    assert "good/metrics.json: File exists. Give another path" in complaint(
        *runs, "--output", "good/metrics.json/roc.png", capsys=capsys
    )
    normal = leave("normal", GOOD[:9], LABELS[:9])
    assert "needs normal and abnormal" in complaint(normal, "--output", "roc.png", capsys=capsys)


@pytest.mark.process
def test_comparing_imports_no_torch() -> None:
    runs = [leave("good", GOOD), leave("poor", POOR)]
    assert "minus good" in output_without_torch("compare", *runs)
