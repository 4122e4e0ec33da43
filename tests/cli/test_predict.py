"""`ccd predict --images`: images without labels, through the command line."""

import csv
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ccd_lightning import load
from ccd_lightning.callbacks.predictions import ImagePredictions
from ccd_lightning.checkpoints import read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.images import read_image
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.synthetic import synthesize
from tests.processes import RANKS, run
from tests.runs import CONFIGS

PREPROCESSING = Preprocessing(64, (0.1, 0.0, 0.9, 1.0))
RUN = "runs/padim_folder/version_0"
pytestmark = pytest.mark.fit


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector, and eleven images in folders, one of which has a name used twice."""
    place = tmp_path_factory.mktemp("predict")
    synthesize(place / "set", "colonoscopy", size=64, train=14, test_good=5, test_abnormal=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = ["--data.root", "set", "--data.size", "64", "--data.crop", "[0.1, 0, 0.9, 1]", "--model.top", "0"]
        assert (
            main(["fit", "--config", str(CONFIGS / "padim_folder.yaml"), "--model.encoder.weights", "null", *words])
            == 0
        )
    for number, path in enumerate(sorted((place / "set/test").rglob("*.png"))):
        name = place / "images" / ("a/1.png" if number == 0 else "b/1.png" if number == 1 else f"ü/{number}.PNG")
        name.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((90 + number, 70)).save(name)
    return place


@pytest.fixture
def inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    return workspace


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def scores(folder: Path | str) -> dict[str, float]:
    return {row["path"]: float(row["score"]) for row in rows(Path(folder) / "predictions.csv")}


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def predict(*words: str, code: int = 0) -> None:
    assert main(["predict", "--ckpt_path", RUN, *words]) == code


def test_images_of_a_folder_are_scored_as_by_the_detector(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("--images", "images", "--output", str(tmp_path), "--maps", "npy", "--data.batch_size", "4")
    detector = load(RUN)
    paths = sorted(str(path.relative_to(inside)) for path in (inside / "images").rglob("*.*"))
    images = np.stack([read_image(Path(path), PREPROCESSING) for path in paths])
    with torch.no_grad():
        expected, maps = detector(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    predicted = scores(tmp_path)
    assert list(predicted) == paths
    assert len(paths) == 11
    assert list(predicted.values()) == pytest.approx(expected.tolist(), rel=1e-5)
    decisions = [row["decision"] for row in rows(tmp_path / "predictions.csv")]
    assert decisions == ["abnormal" if score > detector.threshold else "normal" for score in predicted.values()]
    for path, one in zip(paths, maps, strict=True):
        name = Path(path).relative_to("images")
        assert np.load(tmp_path / "maps" / f"{name}.npy") == pytest.approx(one.numpy(), rel=1e-4, abs=1e-4)
        with Image.open(path) as image, Image.open(tmp_path / "overlays" / f"{name}.png") as overlay:
            assert image.size == overlay.size
            edge = (0, 0, PREPROCESSING.box(*image.size)[0], 70)  # outside of the crop
            assert image.convert("RGB").crop(edge).tobytes() == overlay.crop(edge).tobytes()
            assert image.convert("RGB").tobytes() != overlay.tobytes()
    for row in rows(tmp_path / "regions.csv"):
        with Image.open(row["path"]) as image:
            left, _, right, _ = PREPROCESSING.box(*image.size)
            assert left <= int(row["left"]) <= float(row["x"]) <= int(row["right"]) <= right
            assert 0 <= int(row["top"]) <= float(row["y"]) <= int(row["bottom"]) <= 70
        assert float(row["peak"]) >= float(row["mean"]) > float(detector.pixel_threshold)
    outlined = {row["path"] for row in rows(tmp_path / "regions.csv") if row["outlined"] == "yes"}
    high = {path for path, one in zip(paths, maps, strict=True) if one.max() > 1.01 * detector.map_limits[1]}
    assert high <= outlined
    message = capsys.readouterr().out
    assert f"11 images scored, {decisions.count('abnormal')} of them called abnormal\n" in message
    assert "predictions.csv, regions.csv, overlays/, maps/, maps.json" in message
    assert not (tmp_path / "errors.csv").exists()


def test_colours_are_measured_by_the_held_out_images(inside: Path) -> None:
    detector, data = load(RUN), Folder("set", size=64, crop=PREPROCESSING.crop)
    data.setup("validate")
    images = torch.from_numpy(data.datasets["val"].pixels(0, 3)) / 255
    with torch.no_grad():
        maps = detector(images)[1].flatten(1).numpy()
    maxima = sorted(float(one.max()) for one in maps)
    assert len(maxima) == 3
    assert float(detector.map_limits[1]) == pytest.approx(maxima[1] + 0.9 * (maxima[2] - maxima[1]), rel=1e-4)
    assert detector.map_limits[1] == detector.threshold  # PaDiM's score is the map's maximum
    middle = sorted(np.quantile(one, 0.5, method="lower") for one in maps)[1]
    assert float(detector.map_limits[0]) == pytest.approx(middle, rel=1e-4)


def test_files_patterns_and_the_default_folders(inside: Path) -> None:
    before = len(list(Path(RUN).glob("predictions/*")))
    predict("--images", "images/?/1.png", "images/ü/7.PNG", "--overlays", "false", "--data.num_workers", "1")
    predict("--overlays=false", "--images=images/b/1.png")
    folders = [Path(RUN, "predictions", f"version_{before + number}") for number in range(2)]
    assert [list(scores(folder)) for folder in folders] == [
        ["images/a/1.png", "images/b/1.png", "images/ü/7.PNG"],
        ["images/b/1.png"],
    ]
    assert [path.name for folder in folders for path in sorted(folder.iterdir())] == [
        "predictions.csv",
        "regions.csv",
    ] * 2


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_bad_images_are_skipped(
    batch_size: int, inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree("images", tmp_path / "images")
    words = ["--images", str(images), "--data.batch_size", str(batch_size), "--output"]
    predict(*words, str(tmp_path / "good"))
    (images / "a/0.png").write_bytes((images / "a/1.png").read_bytes()[:200])
    Image.fromarray(np.full((20, 20), 300, np.uint16)).save(images / "b/2.png")
    page = Image.open(images / "a/1.png")
    page.save(images / "b/stack.tif", save_all=True, append_images=[page, page])
    capsys.readouterr()
    predict(*words, str(tmp_path / "some"), code=3)
    good = scores(tmp_path / "good")
    pages = {f"{images}/b/stack.tif[{page}]": good[f"{images}/a/1.png"] for page in range(3)}
    assert scores(tmp_path / "some") == pytest.approx(good | pages, rel=1e-5)
    errors = {row["path"]: row["reason"] for row in rows(tmp_path / "some/errors.csv")}
    assert list(errors) == [f"{images}/a/0.png", f"{images}/b/2.png"]
    assert errors[f"{images}/b/2.png"].startswith("16 bits of which few values are used (300 to 300)")
    captured = capsys.readouterr()
    assert all(f"ccd: skipped {path}: {reason}" in captured.err for path, reason in errors.items())
    assert "images: 1 stack of 3 images" in captured.out
    assert "14 images scored" in captured.out
    assert "; 2 skipped, see errors.csv" in captured.out
    drawn = [
        {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.png")} for name in ("good", "some")
    ]
    assert drawn[1] - drawn[0] == {Path(f"overlays/b/stack.tif[{page}].png") for page in range(3)}
    assert drawn[0] <= drawn[1]


def test_a_folder_of_bad_images_only_is_an_error(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("none")
    predict("--images", str(tmp_path), "--output", str(tmp_path / "out"), code=3)
    assert rows(tmp_path / "out/predictions.csv") == []
    assert len(rows(tmp_path / "out/errors.csv")) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--images", "nowhere"], "nowhere: no such file"),
        (["--images", "images/*.webp"], "images/*.webp: no such file, and no image that it matches"),
        (["--images", "--overlays", "false"], "--images names no file"),
        (["--output", "out"], "--output goes with --images"),
        (["--images", "images", "--maps", "jpg"], "--maps jpg: expected one of none, png, npy, tiff, nifti"),
        (["--images", "images", "--overlays"], "--overlays: expected one of true, false"),
        (["--images", "images", "--output", "a", "b"], "--output a b: expected one folder"),
        (
            ["--images", "images", "--output", "set/train/good/0000.png"],
            "set/train/good/0000.png: cannot be written to",
        ),
        (["--images", "images", "--data.size", "32"], "--data.size"),
        (["--images", "images", "--maxx", "1"], "maxx"),
        (["--image", "images"], "There is no option 'image'; did you mean 'images'?"),
    ],
)
def test_mistakes_on_the_command_line_are_reported(
    words: list[str], expected: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(inside.rglob("*"))
    predict(*words, code=2)
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
    assert before == sorted(inside.rglob("*"))


def test_nothing_is_overwritten(inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    words = ["--images", "images/a", "--output", str(tmp_path)]
    predict(*words)
    before = (tmp_path / "predictions.csv").read_bytes()
    predict("--images", "images/b", "--output", str(tmp_path), code=2)
    assert "predictions.csv exists already" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_bytes() == before


def test_a_run_without_limits_of_maps(inside: Path, tmp_path: Path) -> None:
    shutil.copytree(RUN, tmp_path / "unvalidated")
    file = tmp_path / "unvalidated/checkpoints/best.ckpt"
    content = read_checkpoint(file)
    del content["state_dict"]["map_limits"]  # as before there were any
    torch.save(content, file)
    shutil.rmtree(tmp_path / "unvalidated/predictions", ignore_errors=True)
    words = ["predict", "--ckpt_path", str(tmp_path / "unvalidated"), "--images", "images"]
    assert main([*words, "--maps", "png"]) == 2
    assert main([*words, "--maps", "npy"]) == 0
    written = {path.name for path in (tmp_path / "unvalidated/predictions/version_0").iterdir()}
    assert written == {"predictions.csv", "regions.csv", "maps", "maps.json"}


def test_rows_are_written_as_they_come(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after: list[int] = []
    usual = ImagePredictions.on_predict_batch_end

    def break_off(self: ImagePredictions, *arguments: Any) -> None:
        if len(after) == 2:
            raise KeyboardInterrupt
        usual(self, *arguments)
        after.append(len(scores(tmp_path)))

    monkeypatch.setattr(ImagePredictions, "on_predict_batch_end", break_off)
    before = signal.getsignal(signal.SIGINT)
    try:
        predict("--images", "images", "--output", str(tmp_path), "--data.batch_size", "3", code=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert after == [3, 6]
    assert len(scores(tmp_path)) == 6
    assert len(list((tmp_path / "overlays").rglob("*.png"))) == 6


@pytest.mark.process
def test_two_ranks_write_what_one_does(inside: Path, tmp_path: Path) -> None:
    images = shutil.copytree("images", tmp_path / "images")
    (images / "ü/bad.png").write_text("none")
    words = ["predict", "--ckpt_path", RUN, "--images", str(images), "--output", str(tmp_path / "two")]
    done = run(*words, "--data.batch_size", "2", "--data.num_workers", "1", *RANKS, code=3)
    assert "11 images scored" in done
    predict("--images", str(images), "--output", str(tmp_path / "one"), code=3)
    assert scores(tmp_path / "two") == pytest.approx(scores(tmp_path / "one"), rel=1e-5)
    assert list(scores(tmp_path / "two")) == list(scores(tmp_path / "one"))
    names = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")) for name in ("one", "two")
    ]
    assert names[0] == names[1]


def test_help_tells_of_images_and_of_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--help"])
    assert stop.value.code == 0
    message = capsys.readouterr().out
    assert "--images PLACE ..." in message
    assert "3 finished, but images that cannot be read were skipped" in message
    assert "--trainer.devices" in message
