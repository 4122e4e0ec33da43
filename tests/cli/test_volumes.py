"""Volumes and stacks go the whole way: fit, test and predict, and give the scores of the same images as files."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.cli import main
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.data.synthetic import synthesize
from tests.data.test_stacks import stack, volume
from tests.runs import CONFIGS, metrics

pytestmark = pytest.mark.fit
Scores = dict[str, float]


def regroup(source: Path, target: Path, write: Callable[[Path, Any], object], suffix: str) -> None:
    """Joins the images of each folder, grey, into one file or two, and their masks likewise."""
    for folder in sorted({path.parent for path in source.rglob("*.png")}):
        pages = np.array([np.asarray(Image.open(path).convert("L")) for path in sorted(folder.glob("*.png"))])
        parts = {"a": pages[:7], "b": pages[7:]} if len(pages) > 7 else {"a": pages}
        for name, part in parts.items():
            write(target / folder.relative_to(source) / f"{folder.name}_{name}{suffix}", part)


def run(place: Path) -> Scores:
    """Fits, tests and predicts; the scores by page, of the test, in the order of the manifest."""
    words = ["--data.root", "set", "--data.size", "64", "--model.top", "0", "--model.encoder.weights", "null"]
    # All files but one image each: which are held out must not depend on how images are stored.
    assert main(["fit", "--config", str(CONFIGS / "padim_folder.yaml"), *words, "--data.groups", "false"]) == 0
    assert main(["test"]) == 0
    (found,) = place.glob("runs/*/version_0/predictions.csv")
    return scores(found)


def scores(file: Path) -> Scores:
    with file.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: float(row["score"]) for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("originals")
    synthesize(place, "colonoscopy", size=64, train=14, test_good=5, test_abnormal=6)
    return place


@pytest.fixture(scope="module")
def expected(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The scores of the same images as PNG files."""
    place = tmp_path_factory.mktemp("png")

    def write(path: Path, pages: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, page in enumerate(pages):
            Image.fromarray(page).save(path.with_name(f"{path.stem}_{number}.png"))

    regroup(originals, place / "set", write, ".png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return list(run(place).values())


@pytest.mark.parametrize(("write", "suffix"), [(volume, ".nii.gz"), (stack, ".tif")])
def test_stacks_are_fitted_tested_and_predicted(
    write: Callable[[Path, Any], object],
    suffix: str,
    originals: Path,
    expected: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    regroup(originals, tmp_path / "set", write, suffix)
    monkeypatch.chdir(tmp_path)
    found = run(tmp_path)
    assert "of 25 images" in capsys.readouterr().out
    paths = [row.path.relative_to(tmp_path) for row in read_layout(tmp_path / "set")[0].select("test")]
    assert [Path(path).name for path in found] == [path.name for path in paths]
    assert list(found.values()) == pytest.approx(expected, rel=1e-5)
    (folder,) = tmp_path.glob("runs/*/version_0")
    assert "pixel/auroc" in metrics(folder)["metrics"]
    assert main(["predict", "--images", "set/test", "--output", "out"]) == 0
    predicted = scores(tmp_path / "out/predictions.csv")
    assert {Path(path).name: score for path, score in predicted.items()} == pytest.approx(
        {Path(path).name: score for path, score in found.items()}, rel=1e-5
    )
    assert len(list((tmp_path / "out/overlays").rglob(f"*{suffix}[[]*].png"))) == len(found)
    one = next(iter(predicted))
    assert main(["predict", "--images", one, "--output", "one"]) == 0
    assert scores(tmp_path / "one/predictions.csv") == pytest.approx({one: predicted[one]}, rel=1e-5)
