"""A file is one image: stacks and animations are refused by every reader, previews are no pages."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccd_lightning.data.checking import check
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.file_info import inspect
from ccd_lightning.data.image_files import FileBatches
from ccd_lightning.data.images import read_image, read_mask
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.errors import UserError

SMALL = Preprocessing(16)


def pages(path: Path, count: int, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    shape = (32, 32, 3) if mode == "RGB" else (32, 32)
    kind = np.uint16 if mode == "I;16" else np.uint8
    first, *others = [Image.fromarray(rng.integers(0, 256, shape).astype(kind)) for _ in range(count)]
    options: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
    first.save(path, **options)
    return path


@pytest.mark.parametrize("reader", [read_image, read_mask, lambda path, _: inspect(path)])
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp", "a.gif"])
def test_several_pages_are_refused(name: str, reader: Callable[[Path, Preprocessing], object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name}: 3 pages .* Split it into one file per image"):
        reader(pages(tmp_path / name, 3), SMALL)
    reader(pages(tmp_path / name, 1), SMALL)


def test_a_stack_of_16_bits_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tif: 5 pages"):
        read_image(pages(tmp_path / "a.tif", 5, "I;16"), SMALL)


def test_previews_are_no_pages(tmp_path: Path) -> None:
    image, other = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other])
    preview = other.resize((8, 8))
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller version of another page
    image.save(tmp_path / "a.tif", save_all=True, append_images=[preview])
    for name in ("a.jpg", "a.tif"):
        with Image.open(tmp_path / name) as opened:
            assert opened.n_frames == 2  # type: ignore[attr-defined]
        assert read_image(tmp_path / name, SMALL)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)
        inspect(tmp_path / name)


def test_fit_test_check_and_predict_agree(folder: Path) -> None:
    data = AnomalyDataModule(str(folder), size=32)
    stack = pages(folder / "test/good/stack.tif", 4)
    told = r"stack\.tif: 4 pages"
    with pytest.raises(UserError, match=told):
        data.setup("test")
    (finding,) = (one for one in check(read_layout(folder)[0]).findings if one.path == stack)
    assert (finding.level, finding.message[:7]) == ("error", "4 pages")
    batch = FileBatches([str(stack), str(folder / "test/good/0001.png")], SMALL, 2)[0]
    assert [reason[:7] for reason in batch["reason"]] == ["4 pages", ""]
    shutil.move(stack, folder / "train/good/stack.tif")
    with pytest.raises(UserError, match=told):
        data.setup("fit")
