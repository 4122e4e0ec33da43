"""The synthetic data sets: what is painted, the folder it is written to, and how little gets one far on it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from ccd_lightning.cli import main
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.synthetic import SETS, baselines, folder, render, synthesize
from ccd_lightning.data.synthetic.eye import Eye
from ccd_lightning.data.synthetic.noise import Scene
from ccd_lightning.data.synthetic.wall import Wall
from ccd_lightning.errors import UserError

ABNORMAL = [(name, kind) for name, chosen in SETS.items() for kind in chosen.kinds]
EVERY = [(name, kind) for name, chosen in SETS.items() for kind in ("good", *chosen.kinds)]
AREA = {"polyp": (0.01, 0.08), "lesion": (0.004, 0.05), "cup": (0.001, 0.03)}  # of the image
FEW: dict[str, Any] = {"size": 32, "train": 4, "test_good": 3, "test_abnormal": 7}


def scene(name: str, kind: str, seed: int = 0, size: int = 128) -> Scene:
    return render(name, kind, np.random.default_rng(seed), size)


def change(name: str, kind: str, seed: int) -> npt.NDArray[np.int_]:
    """How much an abnormal image differs from its normal twin, (S, S): the largest over the colours."""
    abnormal, normal = (scene(name, this, seed).image.astype(int) for this in (kind, "good"))
    return np.asarray(np.abs(abnormal - normal).max(axis=-1))


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_same_generator_same_scene(name: str, kind: str) -> None:
    first, again, other = (scene(name, kind, seed, 64) for seed in (3, 3, 4))
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("name", SETS)
def test_normal_masks_are_empty(name: str) -> None:
    assert not any(scene(name, "good", seed, 48).mask.any() for seed in range(10))


@pytest.mark.parametrize(("name", "kind"), ABNORMAL)
def test_change_is_where_the_mask_says(name: str, kind: str) -> None:
    for seed in range(15):
        mask, difference = scene(name, kind, seed).mask, change(name, kind, seed)
        beside = binary_dilation(mask, iterations=3)  # the lens' blur
        assert difference[~beside].max() <= 5
        assert (difference[mask] > 2).mean() > 0.7


@pytest.mark.parametrize(("name", "kind"), ABNORMAL)
def test_masks_are_visible_and_of_sensible_area(name: str, kind: str) -> None:
    low, high = AREA[kind.split("_")[0]]
    for seed in range(15):
        mask = scene(name, kind, seed).mask
        assert low < mask.mean() < high
        place = (Wall if name == "colonoscopy" else Eye)(np.random.default_rng(seed), 128)
        assert place.field[mask].min() > 0.1


@pytest.mark.parametrize(
    ("name", "family"), [("colonoscopy", "polyp"), ("fundus", "lesion"), ("fundus", "cup")], ids=lambda value: value
)
def test_lesions_of_higher_grades_change_images_more(name: str, family: str) -> None:
    subtle, moderate, obvious = (
        np.mean([change(name, f"{family}_{grade}", seed).mean() for seed in range(15)])
        for grade in ("subtle", "moderate", "obvious")
    )
    assert subtle * 1.2 < moderate
    assert moderate * 1.2 < obvious


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_structure_scales_with_the_size(name: str, kind: str) -> None:
    for seed in range(4):
        small, large, other = (scene(name, kind, *which) for which in ((seed, 64), (seed, 256), (seed + 100, 64)))
        shrunk = np.asarray(Image.fromarray(large.image).resize((64, 64), Image.Resampling.BOX), dtype=float)
        assert np.abs(shrunk - small.image).mean() < 0.4 * np.abs(other.image.astype(float) - small.image).mean()
        assert small.mask.mean() == pytest.approx(large.mask.mean(), rel=0.35)


def test_unknown_names_are_reported() -> None:
    with pytest.raises(UserError, match=r"no such synthetic data set\. There are colonoscopy, fundus"):
        scene("chest", "good")
    with pytest.raises(UserError, match=r"no such kind in the set fundus\. It has good, lesion_subtle"):
        scene("fundus", "polyp_subtle")


@pytest.mark.process
def test_import_is_light() -> None:
    code = "import sys, ccd_lightning.data.synthetic; print({'scipy', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "colonoscopy"
    synthesize(root, "colonoscopy", **FEW)
    return root


def read_all(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_folder_has_the_common_layout(made: Path) -> None:
    rows = scan_folder(made).rows
    kinds = [row.anomaly_type for row in rows if row.split == "test"]
    assert sum(row.split == "train" for row in rows) == 4
    assert Counter(kinds) == {"good": 3, "polyp_subtle": 3, "polyp_moderate": 2, "polyp_obvious": 2}
    for path in (made / "ground_truth").rglob("*.png"):
        mask = np.asarray(Image.open(path))
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) == {0, 255}
    record = json.loads((made / "synthesis.json").read_text())
    assert record == {"name": "colonoscopy", "seed": 0, "version": folder.VERSION, **FEW}


def test_folder_is_a_function_of_the_seed(made: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", "colonoscopy", **FEW)
    synthesize(tmp_path / "other", "colonoscopy", **FEW, seed=1)
    first, again, other = read_all(made), read_all(tmp_path / "again"), read_all(tmp_path / "other")
    assert again == first
    assert other.keys() == first.keys()
    assert all(other[name] != content for name, content in first.items() if not name.startswith("ground_truth"))
    images = [content for name, content in first.items() if not name.startswith("ground_truth")]
    assert len(set(images)) == len(images)


def test_image_does_not_depend_on_the_counts(made: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "fewer", "colonoscopy", size=32, train=2, test_good=1, test_abnormal=3)
    all_of_them, some = read_all(made), read_all(tmp_path / "fewer")
    del some["synthesis.json"]
    assert len(some) == 2 + 1 + 2 * 3
    assert all(all_of_them[name] == content for name, content in some.items())


def test_same_folder_is_left_alone(made: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    synthesize(made, "colonoscopy", **FEW)
    assert stamps == {path: path.stat().st_mtime_ns for path in made.rglob("*")}


def test_other_parameters_are_refused(made: Path) -> None:
    before = read_all(made)
    with pytest.raises(UserError, match="made with seed 0, but seed 5 is asked for"):
        synthesize(made, "colonoscopy", **FEW, seed=5)
    with pytest.raises(UserError, match="made with name colonoscopy, but name fundus"):
        synthesize(made, "fundus", **FEW)
    assert read_all(made) == before


@pytest.mark.parametrize("content", ["", "[]", "notes"])
def test_foreign_folder_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    if content:
        (tmp_path / "synthesis.json").write_text(content)
    with pytest.raises(UserError, match="contains files that are not of a synthetic data set") as caught:
        synthesize(tmp_path, "fundus", **FEW)
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("mine")
    with pytest.raises(UserError, match="contains files that are not"):
        synthesize(tmp_path / "set", "fundus", **FEW)


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--size is 8, but must be 32 or more"):
        synthesize(tmp_path / "set", "fundus", size=8)
    with pytest.raises(UserError, match="--train is -1, but must be 0 or more"):
        synthesize(tmp_path / "set", "fundus", train=-1)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Scene:
        assert len(list(tmp_path.iterdir())) == 1  # what is unfinished is beside the folder, not in its place
        assert not (tmp_path / "set").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "set", "fundus", **FEW)
    assert list(tmp_path.iterdir()) == []


def test_folder_made_meanwhile_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"

    def overtaken(name: str, kind: str, rng: np.random.Generator, size: int) -> Scene:
        if not root.exists():
            monkeypatch.undo()
            synthesize(root, "fundus", progress=False, **FEW)  # older versions of rich draw no bar within a bar
        return render(name, kind, rng, size)

    monkeypatch.setattr(folder, "render", overtaken)
    synthesize(root, "fundus", **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("grey", [False, True])
def test_baselines_detect_images_of_another_brightness(tmp_path: Path, grey: bool) -> None:
    rng = np.random.default_rng(0)
    for place, level in (("train/good", 60), ("test/good", 60), ("test/bright", 200)):
        (tmp_path / place).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(level - 40, level + 40, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels[..., 0] if grey else pixels).save(tmp_path / place / f"{index}.png")
    assert baselines(tmp_path) == {"nearest_pixel": 1.0, "mean_colour": 1.0}


@pytest.mark.parametrize("few", [{"train": 1}, {"test_good": 0}, {"test_abnormal": 0}], ids=str)
def test_baselines_of_too_few_images_are_refused(tmp_path: Path, few: dict[str, int]) -> None:
    synthesize(tmp_path / "set", "fundus", **(FEW | few))
    with pytest.raises(UserError, match="set: the baselines need two training images"):
        baselines(tmp_path / "set")


@pytest.mark.slow  # draws all images of both sets, and fails only where their drawing is changed
@pytest.mark.parametrize("name", SETS)
def test_default_split_is_no_toy(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(tmp_path / name, name, progress=False)
    assert capsys.readouterr().out == ""
    found = baselines(tmp_path / name)
    assert 0.4 < found["nearest_pixel"] <= 0.65
    assert 0.4 < found["mean_colour"] <= 0.60


def test_the_command_makes_a_set_and_says_how_hard_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = [f"--{key}={value}" for key, value in FEW.items()]
    assert main(["data", "synthesize", "--name=fundus", *few, "--baselines"]) == 0
    first, _, *lines = capsys.readouterr().out.strip().splitlines()
    assert first == f"data/synthetic_fundus: {sum(FEW.values()) - FEW['size']} images of {FEW['size']} px"
    found = baselines(tmp_path / "data/synthetic_fundus")
    assert [line.split() for line in lines] == [[name, f"{value:.3f}"] for name, value in found.items()]
