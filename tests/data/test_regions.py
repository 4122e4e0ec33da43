"""Masks keep their areas and lose no lesion, at whatever size."""

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ccd_lightning.cli import main
from ccd_lightning.data.masks import read_mask
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.regions import resize_regions
from tests.data.fakes import picture

Bools = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def disc(height: int, width: int, row: float, column: float, diameter: float) -> Bools:
    rows, columns = np.ogrid[:height, :width]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= diameter**2 / 4)


@pytest.mark.parametrize("size", [7, 32, 50, 128])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (96, 333)])
def test_no_lesion_vanishes_wherever_it_is(height: int, width: int, size: int) -> None:
    rng = np.random.default_rng(0)
    for diameter, _ in product((1, 2, 6), range(20)):
        row, column = rng.uniform(0, height - 1), rng.uniform(0, width - 1)
        mask = disc(height, width, round(row), round(column), diameter)
        found = np.argwhere(resize_regions(mask, (size, size)))
        assert len(found)
        expected = (round(row) + 0.5) / height * size, (round(column) + 0.5) / width * size
        assert np.abs(found.mean(axis=0) + 0.5 - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "one"])
def test_a_file_keeps_a_lesion_that_is_smaller_than_a_pixel(mode: str, tmp_path: Path) -> None:
    mask = disc(1024, 1024, 500, 508, 6)
    values: dict[str, np.ndarray[Any, Any]] = {"I;16": mask.astype(np.uint16) * 65535, "one": mask.astype(np.uint8)}
    image = Image.fromarray(values.get(mode, mask.astype(np.uint8) * 255))
    (image.convert("P") if mode == "P" else image).save(tmp_path / "a.png")
    for preprocessing in (Preprocessing(128), Preprocessing(16), Preprocessing(128, (0.25, 0.25, 0.75, 1))):
        assert 1 <= read_mask([tmp_path / "a.png"], tmp_path / "a.png", preprocessing).sum() <= 2
    assert not read_mask(
        [tmp_path / "a.png"], tmp_path / "a.png", Preprocessing(128, (0, 0, 0.4, 1))
    ).any()  # the lesion is not in there


@pytest.mark.parametrize("size", [32, 50, 64, 100, 300])
def test_areas_of_large_lesions_are_kept_on_average(size: int) -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(100):
        (top, bottom), (left, right) = (sorted((rng.integers(0, 60), rng.integers(68, 128))) for _ in range(2))
        mask = np.zeros((128, 128), np.bool_)
        mask[top:bottom, left:right] = True
        ratios.append(resize_regions(mask, (size, size)).mean() / mask.mean())
    assert np.mean(ratios) == pytest.approx(1, abs=0.006)


def test_many_lesions_stay_as_many() -> None:
    mask = np.zeros((512, 512), np.bool_)
    mask[4::32, 9::32] = True  # one pixel of each of 256 cells
    small = resize_regions(mask, (64, 64))
    assert ndimage.label(small, np.ones((3, 3)))[1] == 256
    assert small.sum() == 256


def test_a_small_lesion_beside_a_large_one_has_a_pixel_of_its_own() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[:, :31] = True
    mask[35:37, 33:35] = True
    assert resize_regions(mask, (8, 8))[4, 4]


def test_resizing_twice_loses_nothing() -> None:
    mask = disc(1024, 1024, 301, 707, 5) | disc(1024, 1024, 900, 100, 3)
    for sizes in ((512, 256, 128, 64, 32), (100, 70, 33), (37, 200, 20)):
        found = mask
        for _, size in pairwise((1024, *sizes)):
            found = resize_regions(found, (size, size))
        assert ndimage.label(found, np.ones((3, 3)))[1] == 2


def test_full_and_empty_masks_stay_so() -> None:
    assert resize_regions(np.ones((30, 47), np.bool_), (16, 16)).all()
    assert not resize_regions(np.zeros((30, 47), np.bool_), (16, 16)).any()


def test_check_counts_the_lesions_that_are_small_at_working_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"train/good/{index}" for index in range(3)] + ["test/good/3", "test/lesion/4", "test/lesion/5"]
    for name in names:
        picture(Path(f"set/{name}.png"))
    with Image.open("set/test/lesion/4.png") as image:
        width, height = image.size
    Path("set/ground_truth/lesion").mkdir(parents=True)
    large = np.zeros((height, width), np.uint8)
    large[: height // 2, : width // 2] = 255
    both = large.copy()
    both[-2, -2] = 255
    Image.fromarray(large).save("set/ground_truth/lesion/4.png")
    Image.fromarray(both).save("set/ground_truth/lesion/5.png")
    assert main(["data", "check", "--root", "set", "--size", str(width)]) == 0
    message = capsys.readouterr().out
    assert f"lesions: 3, of which 1 less than 2 px across at {width} px; the smallest 5% are at most" in message
    assert f"set/ground_truth/lesion/5.png: 1 of 2 lesions less than 2 px across at {width} px." in message
    assert main(["data", "check", "--root", "set", "--size", str(2 * width)]) == 0
    assert "of which 0 less than" in capsys.readouterr().out
    assert main(["data", "check", "--root", "set", "--size", "64", "--crop", "0", "0", "0.5", "0.5"]) == 0
    assert "lesions: 2, of which 0 less than" in capsys.readouterr().out
