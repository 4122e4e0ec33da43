"""What marks lesions: mask images of all sorts, several of one image, COCO files and YOLO labels, volumes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.checking import check
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.masks import grey_share, open_masks
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.errors import UserError
from tests.data.fakes import picture


def mask(path: Path, top: int, left: int, high: Any = 255, low: Any = 0, kind: str = "uint8") -> Path:
    """Writes 32 px with a square of 8 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(square(top, left, high, low).astype(kind)).save(path)
    return path


def square(top: int, left: int, high: Any = 1, low: Any = 0) -> Any:
    values = np.full((32, 32), low)
    values[top : top + 8, left : left + 8] = high
    return values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images to train on, and normal and abnormal ones to test on, without masks."""
    for name in ("train/good/0", "train/good/1", "test/good/2", "test/lesion/a", "test/lesion/b"):
        picture(tmp_path / f"{name}.png")
    return tmp_path


def marked(root: Path) -> dict[str, Any]:
    """What is marked in each abnormal image, by its name."""
    manifest = read_layout(root)[0]
    assert [str(flaw) for flaw in manifest.flaws] == []
    return {row.path.stem: open_masks(row.masks, row.path) for row in manifest.rows if row.masks}


def test_masks_of_every_mode_are_read(tmp_path: Path) -> None:
    expected = square(4, 6) > 0
    indexed = Image.fromarray(square(4, 6, 3).astype(np.uint8)).convert("P")
    indexed.putpalette([9] * 768)  # colours that say nothing
    indexed.save(tmp_path / "palette.png")
    mask(tmp_path / "one.png", 4, 6, 1)
    mask(tmp_path / "bright.png", 4, 6, 255)
    mask(tmp_path / "deep.png", 4, 6, 65535, 0, "uint16")
    mask(tmp_path / "edges.png", 4, 6, 240, 30)
    labels = square(4, 6, 2)
    labels[4:8, 6:10] = 7  # another lesion of the same file
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray(expected).save(tmp_path / "bits.png")
    for path in tmp_path.iterdir():
        assert np.array_equal(open_masks([path], path), expected), path.name


def numbered(count: int) -> Any:
    """128 px with regions numbered from 1 to a count, each of 4 px and apart from the others."""
    values = np.zeros((128, 128), np.uint8)
    for number in range(count):
        row, column = divmod(number, 16)
        values[8 * row : 8 * row + 4, 8 * column : 8 * column + 4] = number + 1
    return values


@pytest.mark.parametrize("count", [3, 15, 16, 20, 200, 255])
def test_every_numbered_region_counts(count: int, tmp_path: Path) -> None:
    values = numbered(count)
    for kind in ("uint8", "uint16", "int32"):
        Image.fromarray(values.astype(kind)).save(file := tmp_path / f"{kind}.tif")
        assert np.array_equal(open_masks([file], file), values > 0), kind
    assert grey_share(tmp_path / "uint8.tif") == 0


def heat(width: float, top: float) -> Any:
    """128 px of a smooth spot with all whole numbers from 0 to a top."""
    rows, columns = np.mgrid[-64:64, -64:64]
    return (top * np.exp(-(rows**2 + columns**2) / (2 * width**2))).round().astype(np.uint8)


@pytest.mark.parametrize(("width", "top"), [(25, 100), (25, 30), (12, 100), (25, 255)])
def test_a_smooth_map_is_not_numbered(width: float, top: float, tmp_path: Path) -> None:
    values = heat(width, top)
    Image.fromarray(values).save(file := tmp_path / "a.png")
    assert np.array_equal(open_masks([file], file), values > top / 2)


@pytest.mark.parametrize("width", [2, 4, 12, 40])
def test_a_soft_border_is_not_numbered(width: float, tmp_path: Path) -> None:
    rows, columns = np.mgrid[-512:512, -512:512]
    values = (127.5 - 127.5 * np.tanh((np.hypot(rows + 0.37, columns + 0.21) - 300) / width)).round().astype(np.uint8)
    assert len(np.unique(values)) == 256
    Image.fromarray(values).save(file := tmp_path / "a.png")
    assert np.array_equal(open_masks([file], file), values > 127)


@pytest.mark.parametrize("background", [0, 1])
def test_every_class_of_a_palette_counts_however_dark(background: int, tmp_path: Path) -> None:
    """As of PASCAL VOC's colours the first has 128 and the eighth 64."""
    indices = square(4, 6, 2, background)
    indices[20:24, 20:24] = 8
    colours = np.zeros((256, 3), np.uint8)
    colours[[2, 8]] = (128, 0, 0), (64, 0, 0)
    colours[1 - background] = 9, 99, 9  # which no pixel has
    indexed = Image.fromarray(indices.astype(np.uint8))
    indexed.putpalette(colours.tobytes())
    indexed.save(file := tmp_path / "a.png")
    assert np.array_equal(open_masks([file], file), indices != background)


def test_several_masks_of_an_image_are_joined(root: Path) -> None:
    """As IDRiD and ISIC have them: a folder for each sort of lesion, and its sign after the image's name."""
    mask(root / "test/lesion/masks/1. Microaneurysms/a_MA.png", 0, 0)
    mask(root / "test/lesion/masks/3. Hard Exudates/a_EX.png", 20, 20)
    mask(root / "test/lesion/masks/b_attribute_globules.png", 4, 4)
    found = marked(root)
    assert np.array_equal(found["a"], (square(0, 0) + square(20, 20)) > 0)
    assert np.array_equal(found["b"], square(4, 4) > 0)


@pytest.mark.parametrize("place", ["ground_truth", "masks", "test/masks"])
def test_folders_of_lesions_beside_the_splits(place: str, root: Path) -> None:
    for folder, top in (("EX", 0), ("MA", 20)):
        for name in "ab":
            mask(root / place / folder / f"{name}.png", top, 3)
    expected = (square(0, 3) + square(20, 3)) > 0
    assert all(np.array_equal(one, expected) for one in marked(root).values())
    assert len(marked(root)) == 2


def test_a_mask_goes_with_the_longest_name_that_begins_its_own(root: Path) -> None:
    picture(root / "test/lesion/a_1.png")
    mask(root / "ground_truth/lesion/a_1_EX.png", 0, 0)
    mask(root / "ground_truth/lesion/a_MA.png", 9, 9)
    mask(root / "ground_truth/lesion/ab.png", 9, 9)
    manifest = read_layout(root)[0]
    assert [(row.path.stem, [one.stem for one in row.masks]) for row in manifest.rows if row.masks] == [
        ("a", ["a_MA"]),
        ("a_1", ["a_1_EX"]),
    ]
    assert [flaw.path.stem for flaw in manifest.flaws] == ["ab"]


def test_masks_of_different_sizes_are_not_joined(root: Path) -> None:
    first, second = mask(root / "a_MA.png", 0, 0), root / "a_EX.png"
    Image.new("L", (8, 8)).save(second)
    with pytest.raises(UserError, match=r"a_EX\.png: the mask has 8 x 8 pixels, but .*a_MA\.png .* has 32 x 32"):
        open_masks([first, second], root / "test/lesion/a.png")


def coco(file: Path, *names: str, **size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    described = [{"id": n, "file_name": name, "width": 32, "height": 32} | size for n, name in enumerate(names)]
    regions = [{"image_id": 0, "segmentation": [[6, 4, 14, 4, 14, 12, 6, 12]]}]
    file.write_text(json.dumps({"images": described, "annotations": regions}))


@pytest.mark.parametrize("place", ["annotations", "ground_truth", ".", "test", "test/lesion", "test/lesion/labels"])
def test_coco_files_are_found_in_the_common_layout(place: str, root: Path) -> None:
    coco(root / place / "instances.json", "a.png", "b.png", "elsewhere.png")
    (root / place / "other.json").write_text("{}")
    found = marked(root)
    assert np.array_equal(found["a"], square(4, 6) > 0)
    assert not found["b"].any()  # it is named there, and nothing in it is marked
    coco(root / place / "instances.json", "lesion/b.png")
    assert list(marked(root)) == ["b"]


def test_coco_does_not_mark_another_image_of_the_same_name(root: Path) -> None:
    picture(root / "test/other/a.png")
    coco(root / "annotations/instances.json", "test/lesion/a.png")
    assert [row.path.parent.name for row in scan_folder(root).rows if row.masks] == ["lesion"]


@pytest.mark.parametrize("place", ["test/lesion", "test/lesion/labels", "labels/lesion", "labels"])
def test_yolo_labels_are_found_in_the_common_layout(place: str, root: Path) -> None:
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / "a.txt").write_text("0 0.3125 0.25 0.25 0.25\n")
    (root / place / "b.txt").write_text("")
    (root / place / "classes.txt").write_text("lesion\n")
    found = marked(root)
    assert np.array_equal(found["a"], square(4, 6) > 0)
    assert not found["b"].any()


def test_tables_name_several_masks_and_annotations(root: Path) -> None:
    mask(root / "one.png", 0, 0)
    mask(root / "two.png", 20, 20)
    mask(root / "odd|name.png", 9, 9)
    coco(root / "instances.json", "a.png")
    (root / "b.txt").write_text("0 0.3125 0.25 0.25 0.25")
    for cell, expected in (
        ("one.png|two.png", square(0, 0) + square(20, 20)),
        ("odd|name.png", square(9, 9)),
        ("instances.json", square(4, 6)),
        ("b.txt|two.png", square(4, 6) + square(20, 20)),
    ):
        (root / "split.csv").write_text(f"path,split,kind,mask\ntest/lesion/a.png,test,lesion,{cell}\n")
        manifest = read_layout(root / "split.csv")[0]
        (row,) = manifest.rows
        assert np.array_equal(open_masks(row.masks, row.path), expected > 0)
        manifest.write(root / "again.csv")
        assert Manifest.read(root / "again.csv").rows == [row]
    (root / "split.csv").write_text("path,split,kind,mask\ntest/lesion/a.png,test,lesion,one.png|gone.png\n")
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        read_layout(root / "split.csv")


def test_check_reads_every_sort_of_mask(root: Path) -> None:
    coco(root / "annotations/instances.json", "a.png", width=64)
    mask(root / "ground_truth/lesion/b_MA.png", 0, 0, 0)
    picture(root / "test/lesion/c.png")
    (root / "test/lesion/c.txt").write_text("0 7 7 7 7")
    found = {(one.topic, one.other.stem): one.message for one in check(read_layout(root)[0]).findings if one.other}
    assert "a.png has 64 x 32 pixels there" in found["masks that cannot be read", "a"]
    assert "line 1: a number is not between 0 and 1" in found["masks that cannot be read", "c"]
    assert ("empty masks", "b") in found
