"""`ccd study` from end to end on a tiny encoder: 2 encoders x 2 detectors x 1 set x 2 seeds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ccd_lightning.cli import main
from ccd_lightning.metrics.paired import holm
from ccd_lightning.metrics.seeds import mean_interval, seeds_test
from ccd_lightning.reporting.comparison import read_scores
from ccd_lightning.studies.record import FILE
from tests.runs import TINY, metrics

STUDY: dict[str, Any] = {
    "sets": {"frames": {"root": "frames", "data": "SyntheticColonoscopy", "counts": [12, 5, 6]}},
    "encoders": {
        "untrained": None,
        "ccd": {
            "config": "ccd_synthetic",
            "options": {"data": {"views": {"size": 32, "patch_size": 16}, "batch_size": 6}, "trainer.max_epochs": 1},
        },
    },
    "detectors": {
        "padim": "padim_synthetic",
        "deep": {"config": "padim_synthetic", "options": {"model": {"features.layers": [2, 3], "channels": 32}}},
    },
    "seeds": [0, 1],
    "options": {f"data.{key}": value for key, value in TINY.items()},
    "published": [
        {
            "source": "A paper",
            "protocol": "other images",
            "figures": [{"set": "frames", "encoder": "ccd", "method": "PaDiM", "value": 0.972}],
        }
    ],
}
CELLS = [
    (encoder, detector, seed) for seed in (0, 1) for encoder in ("untrained", "ccd") for detector in ("padim", "deep")
]


def write(study: dict[str, Any], name: str = "tiny.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(study, sort_keys=False))
    return name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study; read only."""
    place = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["study", write(STUDY), "--data_root", "sets"]) == 0
    return place


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of it, free to be damaged; returns the study's output."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("COLUMNS", "200")
    return Path("studies/tiny")


def run(*words: str, code: int = 0, name: str = "tiny.yaml") -> None:
    assert main(["study", name, "--data_root", "sets", *words]) == code


def folder(study: Path, encoder: str, detector: str, seed: int) -> Path:
    return study / "runs/frames" / encoder / detector / f"seed_{seed}"


def rows(markdown: str, title: str) -> list[list[str]]:
    """The cells of the table below a title, without its head."""
    lines = markdown.split(f"### {title}\n")[1].split("\n##")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


@pytest.mark.fit
def test_tables_have_the_metrics_of_the_runs(study: Path) -> None:
    text = (study / "study.md").read_text()
    assert "8 of 8 cells are finished" in text
    assert "Trained on 12 normal images, tested on 5 normal and 6 abnormal ones." in text
    assert "Warning" not in text
    for title, metric in (
        ("Image AUROC", "image/auroc"),
        ("Pixel AUROC", "pixel/auroc"),
        ("Pixel AUPRO", "pixel/aupro"),
    ):
        table = rows(text, title)
        assert [row[0] for row in table] == ["untrained", "ccd"]
        for row in table:
            for detector, cell in zip(("padim", "deep"), row[1:3], strict=True):
                values = [metrics(folder(study, row[0], detector, s) / "version_0")["metrics"][metric] for s in (0, 1)]
                low, high = mean_interval(values) or (0, 0)
                assert values[0] != values[1]
                assert cell == f"{np.mean(values):.3f} [{max(low, 0):.3f}, {min(high, 1):.3f}]"
    assert [row[3] for row in rows(text, "Image AUROC")] == ["", "0.972 PaDiM [1]"]
    assert "1. A paper: other images" in text


@pytest.mark.fit
def test_differences_are_over_seeds_and_images_and_corrected(study: Path) -> None:
    tests = []
    for detector in ("padim", "deep"):
        runs = {f"{e} {s}": folder(study, e, detector, s) / "version_0" for e in ("ccd", "untrained") for s in (0, 1)}
        compared = read_scores(runs)
        first, second = (np.stack([compared.scores[f"{e} {s}"] for s in (0, 1)]) for e in ("ccd", "untrained"))
        tests.append(seeds_test(compared.labels, first, second))
    corrected = holm([test.p for test in tests])
    found = rows((study / "study.md").read_text(), "Differences between encoders")
    for row, test, p, detector in zip(found, tests, corrected, ("padim", "deep"), strict=True):
        assert row[:3] == [detector, "ccd minus untrained", "2"]
        assert row[3] == f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
        assert row[4:6] == [f"{test.p:.3f}", f"{p:.3f}"]


@pytest.mark.fit
def test_a_row_for_each_cell_and_figures_with_their_data(study: Path) -> None:
    with (study / "study.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(row["encoder"], row["detector"], int(row["seed"])) for row in table] == CELLS
    for row in table:
        place = study / row["run"]
        own = metrics(place)["metrics"]
        assert {name: float(row[name]) for name in own} == own
        assert row["status"] == "done"
        assert float(row["fit_seconds"]) > 0 < float(row["test_seconds"])
        assert int(row["memory_bytes"]) > 10**8
    assert np.asarray(Image.open(study / "figures/frames.png").convert("L")).std() > 10
    with (study / "figures/frames.csv").open(newline="") as stream:
        dots = list(csv.DictReader(stream))
    assert len(dots) == 3 * 4
    first = [row for row in table if (row["encoder"], row["detector"]) == ("untrained", "padim")]
    assert float(dots[0]["mean"]) == pytest.approx(np.mean([float(row["image/auroc"]) for row in first]))


@pytest.mark.fit
def test_each_cell_is_a_normal_run_and_pretraining_is_shared(study: Path) -> None:
    assert main(["compare", *(str(folder(study, encoder, "padim", 0)) for encoder in ("untrained", "ccd"))]) == 0
    for detector in ("padim", "deep"):
        config = yaml.safe_load((folder(study, "ccd", detector, 1) / "version_0/config.yaml").read_text())
        weights = Path(config["model"]["init_args"]["encoder"]["weights"])
        assert weights.parts[:-2] == (folder(study, "ccd", "pretraining", 1) / "version_0").parts
        assert config["seed_everything"] == 1
    log = (folder(study, "ccd", "padim", 0) / "log.txt").read_text()
    assert log.count("$ ccd fit --config") == log.count("$ ccd test --ckpt_path") == 1
    assert "The report to read" in log


@pytest.mark.fit
def test_what_is_finished_is_not_run_again(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.is_file()}
    run()
    message = capsys.readouterr().out
    assert "[1/" not in message
    assert message.splitlines()[-2:] == [
        "Tables: studies/tiny/study.md (a row per cell: studies/tiny/study.csv)",
        "Figures: studies/tiny/figures/frames.png",
    ]
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"study.md", "study.csv", "frames.png", "frames.csv"}
    shutil.rmtree(folder(study, "ccd", "padim", 1))
    run()
    message = capsys.readouterr().out
    assert "[1/1] frames, ccd, padim, seed 1\n" in message
    assert "8 of 8 cells are finished" in (study / "study.md").read_text()
    (folder(study, "untrained", "deep", 0) / "version_0/metrics.json").unlink()
    run("--dry")
    assert "to test" in capsys.readouterr().out
    run()
    assert "[1/1] frames, untrained, deep, seed 0\n" in capsys.readouterr().out
    assert (folder(study, "untrained", "deep", 0) / "log.txt").read_text().count("$ ccd fit") == 1


@pytest.mark.fit
def test_dry_prints_what_is_left_and_its_time(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for detector in ("pretraining", "padim"):
        shutil.rmtree(folder(study, "ccd", detector, 1))
    run("--dry")
    message = capsys.readouterr().out
    times = {}
    for detector in ("pretraining", "padim"):
        seconds = json.loads((folder(study, "ccd", detector, 0) / FILE).read_text())["seconds"]
        times[detector] = f"~0:00:{round(sum(seconds.values())):02}"
    lines = [line.split() for line in message.splitlines()]
    assert ["frames", "ccd", "pretraining", "1", "to", "do", times["pretraining"]] in lines
    assert ["frames", "ccd", "padim", "1", "to", "do", times["padim"]] in lines
    assert sum(line[4:5] == ["done"] for line in lines) == 8
    assert "2 runs to do, 8 done. About 0:00:" in message
    assert not folder(study, "ccd", "padim", 1).exists()
    run("--dry", "--output", "elsewhere", "--seeds", "0")
    message = capsys.readouterr().out
    assert "5 runs to do, 0 done. No similar run has finished yet" in message
    assert not Path("elsewhere").exists()


@pytest.mark.fit
def test_other_settings_are_noticed_and_redone_only_when_asked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = STUDY | {"detectors": STUDY["detectors"] | {"deep": "padim_synthetic"}, "seeds": [0]}
    write(changed)
    before = metrics(folder(study, "ccd", "deep", 0) / "version_0")
    run(code=2)
    message = capsys.readouterr().err
    assert (
        "tiny.yaml: 2 runs were made with other settings, configs or weights (frames, untrained, deep, seed 0; "
        in message
    )
    assert "--redo" in message
    run("--sets", "frames", "--detectors", "padim")  # is finished, and not concerned
    run("--redo", "--encoders", "ccd")
    assert "[1/1] frames, ccd, deep, seed 0\n" in capsys.readouterr().out
    after = metrics(folder(study, "ccd", "deep", 0) / "version_1")
    assert metrics(folder(study, "ccd", "deep", 0) / "version_0") == before
    assert after["metrics"] == metrics(folder(study, "ccd", "padim", 0) / "version_0")["metrics"] != before["metrics"]
    write(changed | {"encoders": STUDY["encoders"] | {"ccd": {**STUDY["encoders"]["ccd"], "network": "tiny_resnet"}}})
    run("--dry")
    marked = [line.split()[1:3] for line in capsys.readouterr().out.splitlines() if "changed" in line]
    assert marked == [["untrained", "deep"], ["ccd", "pretraining"], ["ccd", "padim"], ["ccd", "deep"]]


@pytest.mark.fit
def test_a_run_that_fails_is_reported_and_stops_no_other(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder(study, "ccd", "padim", 1))
    broken = STUDY["encoders"]["ccd"] | {"options": STUDY["encoders"]["ccd"]["options"] | {"data.views.patch_size": 60}}
    write(STUDY | {"encoders": {"untrained": None, "bad": broken, "ccd": STUDY["encoders"]["ccd"]}})
    run("--seeds", "1", code=3)
    message = capsys.readouterr()
    assert "[1/4] frames, bad, pretraining, seed 1\n    failed: data.views does not fit images of 64 px" in message.out
    assert "[2/4] frames, bad, padim, seed 1\n    failed: not run, because its pretraining failed\n" in message.out
    assert "[4/4] frames, ccd, padim, seed 1\n    image AUROC" in message.out
    assert "ccd: failed: frames, bad, pretraining, seed 1: data.views does not fit" in message.err
    assert "ccd: 3 runs failed; the same command runs them again." in message.err
    text = (study / "study.md").read_text()
    assert "- frames, bad, pretraining, seed 1: data.views does not fit" in text
    assert "8 of 12 cells are finished" in text
    run("--seeds", "1", "--encoders", "bad", "--dry")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["frames", "bad", "pretraining", "1", "failed", "?"] in lines


@pytest.mark.fit
def test_reports_can_be_written_without_images(study: Path) -> None:
    for name in ("study.md", "study.csv"):
        (study / name).unlink()
    shutil.rmtree(folder(study, "ccd", "deep", 1))
    shutil.rmtree("sets")
    run("--report")
    text = (study / "study.md").read_text()
    assert "7 of 8 cells are finished" in text
    assert "(1 of 2 seeds)" in rows(text, "Image AUROC")[1][2]
    alone = metrics(folder(study, "ccd", "deep", 0) / "version_0")
    low, high = alone["intervals"]["image/auroc"]
    assert rows(text, "Image AUROC")[1][2].startswith(f"{alone['metrics']['image/auroc']:.3f} [{low:.3f}, {high:.3f}]*")
    assert rows(text, "Differences between encoders")[1][2] == "1"
    assert not folder(study, "ccd", "deep", 1).exists()


@pytest.mark.fit
def test_other_numbers_of_images_are_reported(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(STUDY | {"sets": {"frames": STUDY["sets"]["frames"] | {"counts": [13, 5, 6]}}})
    run("--report")
    warning = "frames: 12 training images, 5 normal and 6 abnormal test images, but the study expects 13, "
    assert f"ccd: warning: {warning}" in capsys.readouterr().err
    assert f"**Warning:** {warning}" in (study / "study.md").read_text()
