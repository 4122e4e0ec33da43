"""Images of a few pixels, and masks that tell nothing: found by the check, and by readers where they are no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.checking import check
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.masks import open_mask
from ccd_lightning.errors import UserError

MASK, IMAGE = Path("ground_truth/polyp_subtle/0000.png"), Path("test/polyp_subtle/0000.png")


def found(root: Path) -> list[tuple[str, str, Path, str]]:
    """Level, topic, file and message of what is found, without notes."""
    findings = check(scan_folder(root)).findings
    return [(one.level, one.topic, one.path, one.message) for one in findings if one.level != "note"]


@pytest.mark.parametrize(("size", "shown"), [((1, 1), "1 x 1"), ((7, 64), "7 x 64"), ((64, 2), "64 x 2")])
def test_images_of_a_few_pixels_are_errors(size: tuple[int, int], shown: str, folder: Path) -> None:
    Image.new("RGB", size, (90, 30, 30)).save(folder / "train/good/0001.png")
    message = f"{shown} pixels: too small to show anything."
    assert ("error", "images of a few pixels", folder / "train/good/0001.png", message) in found(folder)


def test_images_of_eight_pixels_are_no_errors(folder: Path) -> None:
    Image.new("RGB", (8, 8), (90, 30, 30)).save(folder / "train/good/0001.png")
    assert not [one for one in found(folder) if one[0] == "error"]


@pytest.mark.parametrize("values", [255, 1])
def test_masks_that_mark_everything_are_warned_of(values: int, folder: Path) -> None:
    Image.new("L", (64, 64), values).save(folder / MASK)
    topics = [(level, topic) for level, topic, path, _ in found(folder) if path == folder / MASK]
    assert ("warning", "masks that cover the whole image") in topics


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_masks_whose_values_are_no_numbers_are_named(value: float, folder: Path) -> None:
    values = np.zeros((64, 64), np.float32)
    values[:9] = value
    (folder / MASK).unlink()
    file = folder / MASK.with_suffix(".tif")
    Image.fromarray(values).save(file)
    with pytest.raises(UserError, match=r"0000\.tif: the mask contains NaN or infinite values\. Write 0 and 1"):
        open_mask(file, folder / IMAGE)
    message = "the mask contains NaN or infinite values. Write 0 and 1 instead."
    assert ("error", "masks that cannot be read", file, message) in found(folder)
