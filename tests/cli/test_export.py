"""`ccd export`, from a fitted run to what the example makes of the file."""

import csv
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ccd_lightning import load
from ccd_lightning.cli import main
from ccd_lightning.cli.export import images_to_try
from ccd_lightning.data.images import read_image
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.errors import UserError
from ccd_lightning.modules.padim import PaDiM
from tests.runs import CONFIGS, PADIM, ROOT

FIT = [
    *(*PADIM, "--model.encoder.weights=null", "--data.crop=[0.1, 0.2, 0.9, 1]", "--model.channels=20"),
    "--seed_everything=2",  # by which some images are called normal and some abnormal
]
pytestmark = pytest.mark.fit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tested run, its exported file, and a run that was not validated."""
    place = tmp_path_factory.mktemp("export")
    (place / "configs").symlink_to(CONFIGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main([*FIT, "--trainer.limit_val_batches=0", "--trainer.logger.init_args.name", "undecided"]) == 0
        assert main(FIT) == 0
        assert main(["test"]) == 0
        assert main(["export"]) == 0
    return place


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def predictions() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("runs/padim_synthetic/latest/predictions.csv").read_text().splitlines()))


def test_a_loaded_detector_reads_files_as_the_run_did() -> None:
    detector, rows = load("runs/padim_synthetic"), predictions()
    images = detector.read(*(row["path"] for row in rows))
    assert images.shape == (11, 3, 64, 64)
    scores, _ = detector(images)
    assert scores.tolist() == pytest.approx([float(row["score"]) for row in rows], rel=1e-4)
    with pytest.raises(UserError, match="has no image size"):
        PaDiM().read(rows[0]["path"])


@pytest.mark.process
def test_the_example_needs_the_file_alone(tmp_path: Path) -> None:
    rows = [next(row for row in predictions() if row["decision"] == decision) for decision in ("normal", "abnormal")]
    paths = [str(Path(row["path"]).resolve()) for row in rows]
    model = Path("runs/padim_synthetic/latest/detector.onnx").resolve()
    copies = []
    for number, path in enumerate(paths):
        copies.append(str(tmp_path / f"{number}.png"))
        shutil.copy(path, copies[-1])
    words = [sys.executable, "-W", "error", str(ROOT / "examples/score_onnx.py"), str(model), *copies]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    for line, copy, row in zip(done.stdout.splitlines(), copies, rows, strict=True):
        name, score, decision = line.split()
        assert (name, decision) == (copy, row["decision"])
        assert float(score) == pytest.approx(float(row["score"]), rel=1e-4)
        overlay = Image.open(tmp_path / f"{Path(copy).stem}_map.png")
        assert overlay.size == (64, 64)
        assert main(["predict", "--images", copy, "--output", str(tmp_path / row["decision"])]) == 0
        with Image.open(tmp_path / row["decision"] / "overlays" / f"{Path(copy).name}.png") as predicted:
            difference = np.asarray(overlay, np.int64) - np.asarray(predicted)
        assert (np.abs(difference) > 2).mean() < 0.005  # onnxruntime rounds otherwise


def test_the_check_is_on_test_images_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "here.pt2"
    words = ["export", "--format", "torch", "--input", "float", "--output", str(file), "--ckpt_path"]
    assert main([*words, "runs/padim_synthetic"]) == 0
    said = capsys.readouterr().out
    assert "images (batch, 3, 64, 64) of float32, 0 to 1 -> score, decision and map" in said
    assert "Checked against torch on 3 test images" in said
    images = torch.rand(2, 3, 64, 64)
    found, expected = torch.export.load(file).module()(images), load("runs/padim_synthetic")(images)
    assert torch.allclose(found["score"], expected[0])
    shutil.copy("runs/padim_synthetic/latest/checkpoints/best.ckpt", tmp_path / "moved.ckpt")
    assert main([*words, str(tmp_path / "moved.ckpt")]) == 0
    assert "on 3 images of noise (the run's test images are not available)" in capsys.readouterr().out


@pytest.mark.parametrize("root", ["archive", "archive/set/images", "archive/set/images/table.csv"])
def test_test_images_are_found_where_the_split_says(root: str, tmp_path: Path) -> None:
    images = tmp_path / "archive/set/images"
    shutil.copytree("data/synthetic_colonoscopy", images)
    split, _ = read_layout(images)
    split.write(images / "table.csv")
    split, _ = read_layout(tmp_path / root)
    (tmp_path / "run").mkdir()
    split.write(tmp_path / "run/manifest.csv")
    settings = {"data": {"init_args": {"root": str(tmp_path / root)}}}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(settings))
    found, content, origin = images_to_try(tmp_path / "run", Preprocessing(64))
    assert content.tolist() == [[0, 0, 64, 64]] * 3
    assert origin == "3 test images"
    paths = [row.path for row in split.select("test")]
    assert torch.equal(found[0], torch.tensor(read_image(paths[0], Preprocessing(64))).permute(2, 0, 1))
    paths[0].unlink()
    assert images_to_try(tmp_path / "run", Preprocessing(64))[2].startswith("3 images of noise")


def test_a_run_without_a_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--format=torch", "--ckpt_path", "runs/undecided", "--output", str(tmp_path / "it.pt2")]
    assert main(words) == 0
    assert "-> score and map (the run has no threshold)" in capsys.readouterr().out


@pytest.mark.parametrize(("form", "difference"), [("onnx", 0.5), ("torch", float("nan"))])
def test_a_file_that_scores_differently_is_removed(
    form: str, difference: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ("it.onnx" if form == "onnx" else "it.pt2")
    monkeypatch.setattr("ccd_lightning.export.greatest_difference", lambda *_: difference)
    assert main(["export", "--ckpt_path", "runs/padim_synthetic", "--format", form, "--output", str(file)]) == 2
    message = capsys.readouterr().err
    assert f"differently from torch, by {difference:.1e} of the maps' range" in message
    assert "not written" in message
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name == "onnxruntime" else there(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main(["export"]) == 2
    assert "ONNX needs onnxruntime. Install it with: pip install 'onnx>=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "it.pt2"], "it.pt2: --output must be a file in a folder that exists, named *.onnx"),
        (["--output", "nowhere/it.onnx"], "nowhere/it.onnx: --output must be a file in a folder that exists"),
        (["--ckpt_path", "runs/nothing"], "runs/nothing: no such run or checkpoint"),
    ],
)
def test_mistakes_are_reported(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words]) == 2
    assert message in capsys.readouterr().err
