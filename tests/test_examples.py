"""The examples run: each as its own text says, but on tiny images."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ccd_lightning import load
from ccd_lightning.cli import main
from tests.runs import ROOT, metrics

FIT = ["--data.size=64", "--data.batch_size=6", "--trainer.max_epochs=1"]
RANDOM = "--model.encoder.weights=null"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.fit
def test_a_detector_of_ones_own_is_fitted_tested_and_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "Folder", "--data.root", str(folder), *FIT[:2], RANDOM, "--trainer.logger.init_args.name=own"]
    assert main(["fit", "--model", "own_detector.MeanDirection", *words]) == 0
    assert "Next: ccd test --trust\n" in capsys.readouterr().out
    assert json.loads(Path("runs/own/latest/run.json").read_text())["epochs"] == 1  # which nothing asked for
    assert main(["test"]) == 2  # it is not one of the package's
    assert main(["test", "--trust"]) == 0
    assert 0 <= metrics("runs/own/latest")["metrics"]["pixel/auroc"] <= 1
    detector = load("runs/own", trust=True)
    whole = torch.rand(2, 3, 64, 64)
    scores, maps = detector(whole)
    assert scores.shape == (2,)
    assert maps.shape == (2, 64, 64)
    boxes = torch.tensor([[0, 0, 64, 64], [8, 0, 56, 64]])
    margins = detector(whole, boxes)[1]
    assert not margins[1, :8].any()
    torch.testing.assert_close(margins[0], maps[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_classes_of_the_tone_curve_are_powers(dtype: torch.dtype) -> None:
    from own_family import ToneCurve

    images = torch.full((4, 3, 2, 2), 0.25)
    given = images if dtype == torch.float32 else (images * 255).round().to(dtype)
    found = ToneCurve(2.0)(given, torch.arange(4))
    assert found.dtype == dtype
    expected = torch.tensor([0.25, 0.5, 0.0625, 0.00390625])
    scale, tolerance = (1, 1e-6) if dtype == torch.float32 else (255, 1)
    torch.testing.assert_close(found[:, 0, 0, 0].float(), expected * scale, atol=tolerance, rtol=0)


@pytest.mark.fit
def test_a_family_of_ones_own_is_learned_from(folder: Path) -> None:
    words = ["--data.root", str(folder), *FIT, "--data.num_workers=0", "--data.views.size=32"]
    family = ["--data.views.family", "own_family.ToneCurve", "--data.views.patch_size=16"]
    assert main(["fit", "--config", "ccd_folder", *words, *family]) == 0


@pytest.mark.fit
def test_a_pretraining_of_ones_own_gives_an_encoder(folder: Path) -> None:
    words = ["--data", "Folder", "--data.root", str(folder), *FIT, "--trainer.logger.init_args.name=rotation"]
    assert main(["fit", "--model", "own_pretraining.RotationPrediction", *words]) == 0
    weights = ["--model.encoder.weights", "runs/rotation"]
    assert main(["fit", "--config", "neighbours_folder", "--data.root", str(folder), "--data.size=64", *weights]) == 0


@pytest.mark.fit
def test_a_layout_of_ones_own_keeps_patients_apart(tmp_path: Path) -> None:
    from own_layout import NamedFiles

    rng, root = np.random.default_rng(0), tmp_path / "flat"
    (root / "masks").mkdir(parents=True)
    names = [f"p{patient:02d}_normal_{number}.png" for patient in range(12) for number in (0, 1)]
    names += ["p50_polyp_0.png", "p50_normal_1.png", "p51_polyp_0.png"]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / name)
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(root / "masks/p50_polyp_0.png")
    manifest = NamedFiles(str(root)).manifest()
    tested = {row.path.name: row for row in manifest.select("test")}
    assert {row.group for row in tested.values()} == {"p00", "p05", "p10", "p50", "p51"}
    assert tested["p50_normal_1.png"].label == 0
    assert len(tested["p50_polyp_0.png"].masks) == 1
    assert not {row.group for row in manifest.select("train")} & {row.group for row in tested.values()}
    assert len(manifest.rows) == len(names)
    assert main(["data", "check", "--root", str(root), "--layout", "own_layout.NamedFiles"]) == 0
    words = ["--data", "own_layout.NamedFiles", "--data.root", str(root), *FIT, RANDOM]
    assert main(["fit", "--config", "neighbours_folder", *words]) == 0
    assert main(["test"]) == 2  # its data module is not one of the package's
    assert main(["test", "--trust"]) == 0
    assert main(["predict", "--images", str(root), "--overlays=false", "--output=out"]) == 0  # which needs none
    assert len(Path("out/predictions.csv").read_text().splitlines()) == 1 + len(names)


def test_a_table_of_ones_own_becomes_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from own_table import write_split

    rng, lines = np.random.default_rng(0), ["file,patient,finding"]
    for patient in range(12):
        for number, finding in enumerate(("", "polyp" if patient > 9 else "")):
            name = f"{patient}_{number}.png"
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / name)
            lines.append(f"{name},p{patient:02},{finding}")
    (tmp_path / "findings.csv").write_text("\n".join(lines))
    write_split(tmp_path / "findings.csv", tmp_path / "split.csv")
    assert main(["data", "check", "--root", "split.csv"]) == 0
    message = capsys.readouterr().out
    assert "16 training images, 6 normal test images, 2 abnormal ones, 0 masks" in message
    assert "grouped by patient: 12 groups" in message
    assert "0 errors, 0 warnings" in message


@pytest.mark.fit
def test_a_network_of_ones_own_is_an_encoder(folder: Path) -> None:
    import own_encoder  # noqa: F401  (registers the network)

    words = ["--data.root", str(folder), *FIT, RANDOM, "--model.encoder.name=narrow_resnet"]
    assert main(["fit", "--config", "neighbours_folder", *words]) == 0
    assert main(["test"]) == 0
    assert load("runs/neighbours_folder").encoder.channels[-1] == 128


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*run with no optimizer.*")
@pytest.mark.filterwarnings("ignore:.*The number of training batches.*", "ignore:No ImageNet weights of:UserWarning")
def test_arrays_need_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy_arrays

    numpy_arrays.main(16, 64, tmp_path / "weights.pt")
    first, second = capsys.readouterr().out.splitlines()[-2:]
    usual, odd = (float(line.split("score ")[1].split(",")[0]) for line in (first, second))
    assert odd > usual
    row, column = (int(number) for number in second.rpartition("(")[2].rstrip(")").split(", "))
    assert 24 <= row < 56  # the square, and what is blurred around it
    assert 24 <= column < 56
    assert (tmp_path / "weights.pt").is_file()


@pytest.mark.slow  # a fit of many images at 128 px, which the other examples cover in parts
@pytest.mark.fit
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    content = json.loads((ROOT / "examples/folder_to_report.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "cell", "exec"), names)
    assert (tmp_path / "runs/neighbours_folder/latest/report.html").is_file()
    assert len(names["scores"]) == 4
    assert not any(cell.get("outputs") for cell in content["cells"])  # as they would be somebody's images


@pytest.fixture
def served(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the example server, which serves an exported PaDiM."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx2")
    from fastapi.testclient import TestClient

    monkeypatch.chdir(workspace)
    assert main(["export", "--ckpt_path", "runs/padim_synthetic"]) == 0
    monkeypatch.setenv("MODEL", "runs/padim_synthetic/latest/detector.onnx")
    import serve

    with TestClient(serve.app) as client:
        yield client


@pytest.mark.export
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra export is not installed")
def test_the_server_answers_as_predict_does(served: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = workspace / "data/synthetic_colonoscopy/test/polyp_obvious/0000.png"
    detector = load(workspace / "runs/padim_synthetic")
    answer = served.post("/score", content=file.read_bytes()).json()
    expected = float(detector.score_files(file)[0])
    assert answer["score"] == pytest.approx(expected, rel=1e-3)
    assert answer["decision"] == ("abnormal" if expected > float(detector.threshold) else "normal")
    assert answer["threshold"] == pytest.approx(float(detector.threshold), rel=1e-5)
    overlay = served.post("/overlay", content=file.read_bytes())
    assert overlay.headers["content-type"] == "image/png"
    assert overlay.content.startswith(b"\x89PNG")
    assert served.get("/health").json()["model"].endswith("PaDiM")
    broken = served.post("/score", content=b"no image")
    assert broken.status_code == 400
    import serve

    monkeypatch.setattr(serve, "LARGEST", 8)
    assert served.post("/score", content=b"far too large").status_code == 413
