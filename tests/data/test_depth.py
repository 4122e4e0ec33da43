"""Images of more than 8 bits: one range for the whole set, the same in every command."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ccd_lightning import load
from ccd_lightning.cli import main
from ccd_lightning.data.checking import check
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.dataset import EpochIndex
from ccd_lightning.data.duplicates import find_pairs
from ccd_lightning.data.grey_values import describe_levels, measure_window
from ccd_lightning.data.images import load_images, read_image
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.errors import UserError
from tests.runs import CONFIGS

BASE = 32768  # of scanners that write CT with this offset
SIDE = 32


def write(path: Path, values: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def slice_of(seed: int, low: float = BASE - 1000, high: float = BASE + 1500) -> np.ndarray[Any, Any]:
    """Smooth values, different for each seed."""
    grid = np.random.default_rng(seed).uniform(0, 1, (4, 4)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(grid).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return np.asarray(low + (high - low) * (smooth - smooth.min()) / np.ptp(smooth), np.uint16)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Ten training and six test images of 16 bits around 32,768, one of them nearly black."""
    root = tmp_path / "scans"
    for index in range(10):
        write(root / f"train/good/{index}.png", slice_of(index))
    for index in range(3):
        write(root / f"test/good/{index}.png", slice_of(20 + index))
        write(root / f"test/lesion/{index}.png", slice_of(30 + index))
    return root


def fitted(root: Path, **options: Any) -> AnomalyDataModule:
    data = AnomalyDataModule(str(root), **{"size": SIDE, "batch_size": 4, **options})
    data.setup("fit")
    return data


def test_one_range_of_grey_values_holds_for_a_data_set(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = fitted(scans)
    assert data.preprocessing == Preprocessing(SIDE, None, (BASE - 1000, BASE + 1500))
    assert "10 of 10 training images have more than 8 bits: grey values from 31768 to 34268 become 0 to 255" in (
        capsys.readouterr().out
    )
    data.setup("test")
    for name in ("train", "test"):
        assert len(data.datasets[name][EpochIndex(0, 0)]["image"].unique()) > 150
    assert find_pairs(read_layout(scans)[0]) == []  # what is different does not count as one image


def test_a_dark_image_refuses_no_set(scans: Path) -> None:
    write(scans / "train/good/dark.png", slice_of(50, 0, 300))
    write(scans / "test/good/dark.png", slice_of(51, 0, 300))
    data = fitted(scans)
    data.setup("test")
    assert data.preprocessing.window == (0, BASE + 1500)


def test_single_hot_pixels_do_not_stretch_the_range(scans: Path) -> None:
    values = slice_of(3)
    values[0, 0] = 65535
    assert measure_window([write(scans / "train/good/3.png", values)], Preprocessing(SIDE))[0][1] == 65535  # type: ignore[index]
    large = np.full((1024, 1024), BASE, np.uint16)
    large[:512] += 200
    large[0, :5], large[1, :5] = 65535, 0
    assert measure_window([write(scans / "large.png", large)], Preprocessing(SIDE)) == ((BASE, BASE + 200), 1)


def test_a_crop_says_which_pixels_count(scans: Path) -> None:
    values = slice_of(0)
    values[:, :8] = 60000
    path = write(scans / "train/good/0.png", values)
    assert measure_window([path], Preprocessing(SIDE, (0.25, 0, 1, 1)))[0][1] < BASE + 2000  # type: ignore[index]


def test_images_of_8_bits_have_no_range(folder: Path) -> None:
    data = fitted(folder)
    assert data.preprocessing.window is None
    paths = [row.path for row in data.datasets["train"].rows]
    with_one = load_images(paths, Preprocessing(SIDE, None, (10, 20))).pixels
    assert np.array_equal(with_one, load_images(paths, Preprocessing(SIDE)).pixels)


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint16])
def test_a_range_that_is_given_holds_for_every_depth(kind: type[np.generic], tmp_path: Path) -> None:
    ramp = np.linspace(-100, 300, 8)[:, None].repeat(8, axis=1) + (1000 if kind is np.uint16 else 0)
    path = write(tmp_path / "a.tif", ramp.astype(kind))
    low, high = (1000, 1200) if kind is np.uint16 else (0, 200)
    expected = np.clip(np.linspace(-100, 300, 8) / 200, 0, 1) * 255
    assert np.abs(read_image(path, Preprocessing(8, None, (low, high)))[:, 0, 0] - expected).max() <= 1.5


def test_nan_pixels_are_black(tmp_path: Path) -> None:
    values = np.full((8, 8), np.nan, np.float32)
    values[:4] = 1
    path = write(tmp_path / "a.tif", values)
    assert read_image(path, Preprocessing(8, None, (0.0, 1.0)))[:, 0, 0].tolist() == [255] * 4 + [0] * 4


def test_floating_point_at_another_scale_is_reported(scans: Path) -> None:
    write(scans / "test/good/f.tif", slice_of(70).astype(np.float32) - BASE)
    data = fitted(scans)
    with pytest.raises(UserError, match=r"f\.tif: no pixel has a value within data\.window, 31768 to 34268"):
        data.setup("test")


@pytest.mark.parametrize("limits", [(5, 5), (6, 5), (float("nan"), 1), (0, float("inf"))])
def test_impossible_ranges_are_refused(limits: tuple[float, float], folder: Path) -> None:
    with pytest.raises(UserError, match=r"data\.window is .* low < high"):
        AnomalyDataModule(str(folder), window=limits)


def test_the_cache_knows_the_range(scans: Path, tmp_path: Path) -> None:
    cache, levels = tmp_path / "cache", []
    for limits in (None, (BASE, BASE + 500.0), None):
        data = fitted(scans, cache_dir=str(cache), window=limits)
        levels.append(data.datasets["train"][EpochIndex(0, 0)]["image"])
    assert torch.equal(levels[0], levels[2])
    assert not torch.equal(levels[0], levels[1])
    assert len(list(cache.glob("*.placements.npy"))) == 2


def test_without_training_images_of_16_bits_a_narrow_one_is_reported(scans: Path, folder: Path) -> None:
    shutil.copy(scans / "test/good/0.png", folder / "test/good/narrow.png")
    data = fitted(folder)
    with pytest.raises(UserError, match=r"narrow\.png: 16 bits of which few values are used .* --data\.window"):
        data.setup("test")


def test_floating_point_needs_no_window(scans: Path) -> None:
    write(scans / "train/good/f.tif", slice_of(70).astype(np.float32))
    found = {one.topic: one.level for one in check(read_layout(scans)[0]).findings}
    assert found == {"floating point": "note", "16 bits": "note"}
    assert fitted(scans).preprocessing.window == (BASE - 1000, BASE + 1500)


def test_the_check_says_how_many_grey_levels_are_left(scans: Path) -> None:
    manifest = read_layout(scans)[0]
    result = check(manifest)
    assert set(result.levels) == {row.path for row in manifest.rows}
    assert min(result.levels.values()) > 150
    assert not [one for one in result.findings if one.topic == "few grey levels"]
    wide = check(manifest, preprocessing=Preprocessing(SIDE, window=(0, 65535)))
    shown = np.rint(255 * (slice_of(0) / 65535))
    assert wide.levels[scans / "train/good/0.png"] == len(np.unique(shown)) < 16
    (warning,) = [one for one in wide.findings if one.topic == "few grey levels"]
    assert "16 of 16 images with more than 8 bits have fewer than 64" in warning.message
    assert describe_levels(wide.levels).startswith(f"{sorted(wide.levels.values())[7]} of 256 are left")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_leaks_are_found_in_any_depth(suffix: str, scans: Path) -> None:
    write(scans / f"test/good/leak.{suffix}", slice_of(4))
    with pytest.raises(UserError, match=r"train/good/4\.png and test image .*leak"):
        fitted(scans)


@pytest.mark.fit
def test_test_predict_load_and_prepare_use_the_range_of_the_fit(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--model.encoder.weights", "null", "--data.root", str(scans), "--data.size", str(SIDE)]
    logger = ["--trainer.logger.init_args.name", "mine"]
    assert main(["fit", "--config", str(CONFIGS / "padim_folder.yaml"), *words, *logger]) == 0
    expected = [BASE - 1000.0, BASE + 1500.0]
    config = yaml.safe_load(Path("runs/mine/latest/config.yaml").read_text())
    assert config["data"]["init_args"]["window"] == expected
    detector = load("runs/mine")
    assert detector.preprocessing == Preprocessing(SIDE, None, (expected[0], expected[1]))
    assert detector.preprocessing.window == tuple(expected)
    assert main(["test"]) == 0
    assert main(["predict", "--images", str(scans / "test"), "--output", "out"]) == 0
    tables = [Path("runs/mine/latest/predictions.csv"), Path("out/predictions.csv")]
    tested, predicted = (
        {row.split(",")[0]: float(row.split(",")[at]) for row in table.read_text().splitlines()[1:]}
        for table, at in zip(tables, (2, 1), strict=True)
    )
    assert predicted == pytest.approx(tested, rel=1e-4)
    image = detector.read(scans / "test/good/0.png")
    assert float(detector(image)[0]) == pytest.approx(tested[str(scans / "test/good/0.png")], rel=1e-4)
    with Image.open("out/overlays/good/0.png.png") as overlay:
        assert np.asarray(overlay.convert("L")).std() > 20  # of the image below the colours
    assert main(["data", "prepare", "--root", str(scans), "--copy", "copy", "--size", str(SIDE)]) == 0
    written = np.asarray(Image.open("copy/test/good/test__good__0.png"))
    assert np.array_equal(written, read_image(scans / "test/good/0.png", detector.preprocessing))
