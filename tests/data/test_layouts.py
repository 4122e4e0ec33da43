import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.description import describe
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.errors import UserError
from tests.data.fakes import picture, spot


def test_the_common_layout_is_read(folder: Path) -> None:
    manifest = scan_folder(folder)
    kinds = Counter((row.split, row.anomaly_type) for row in manifest.rows)
    assert kinds == {
        ("train", "good"): 12,
        ("test", "good"): 5,
        ("test", "polyp_subtle"): 2,
        ("test", "polyp_moderate"): 2,
        ("test", "polyp_obvious"): 2,
    }
    for row in manifest.select("test"):
        assert bool(row.masks) == bool(row.label)
        assert all(mask.name == row.path.name for mask in row.masks)


def test_masks_may_be_missing_as_a_whole_or_named_mask(folder: Path) -> None:
    truth = folder / "ground_truth"
    for mask in truth.glob("*/*.png"):
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    assert all(row.masks for row in scan_folder(folder).select("test") if row.label)
    truth.rename(folder / "elsewhere")
    assert not any(row.masks for row in scan_folder(folder).rows)


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def test_some_masks_may_be_missing(folder: Path) -> None:
    remove(folder, "ground_truth/polyp_subtle/0000.png")
    shutil.rmtree(folder / "ground_truth/polyp_obvious")
    data = Folder(str(folder), size=32, batch_size=4)
    for stage in ("fit", "test"):
        data.setup(stage)
    assert sum(not row.masks for row in data.datasets["test"].rows if row.label) == 3
    assert "6 abnormal ones, 3 masks (3 abnormal images have none: pixel metrics leave them out)" in describe(
        scan_folder(folder)
    )
    strict = AnomalyDataModule(str(folder), size=32, require_masks=True)
    message = r"no mask for this image; 3 of 6 abnormal images have none\. .* --data\.require_masks false"
    for stage in ("fit", "test"):
        with pytest.raises(UserError, match=message):
            strict.setup(stage)
    strict.setup("predict")


def test_masks_of_a_kind_without_images_are_an_error(folder: Path) -> None:
    (folder / "ground_truth/polyp_subtle").rename(folder / "ground_truth/Polyp-Subtle")
    with pytest.raises(UserError, match=r"ground_truth/Polyp-Subtle/0000\.png: no image for this mask"):
        AnomalyDataModule(str(folder), size=32).setup("test")


def test_mistakes_name_the_file(folder: Path) -> None:
    image, mask = folder / "test/polyp_subtle/0000.png", folder / "ground_truth/polyp_subtle/0000.png"

    def refused(message: str) -> None:
        assert len(scan_folder(folder).flaws) == 1
        with pytest.raises(UserError, match=message):
            AnomalyDataModule(str(folder), size=32).setup("fit")

    content = mask.read_bytes()
    Image.new("L", (10, 20)).save(mask)
    refused(r"ground_truth/polyp_subtle/0000\.png: the mask has 10 x 20.* 64 x 64")
    mask.write_bytes(content)
    kept = image.read_bytes()
    image.unlink()
    refused(r"ground_truth/polyp_subtle/0000\.png: no image for this mask")
    image.write_bytes(kept)
    mask.write_bytes(b"nothing")
    refused(r"ground_truth/polyp_subtle/0000\.png: cannot be decoded")


def test_missing_and_empty_folders_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        scan_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="train/good: no such folder; expected"):
        scan_folder(tmp_path)
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(UserError, match="train/good: no images"):
        scan_folder(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "train/good/a.png")
    (tmp_path / "test" / "polyp").mkdir(parents=True)
    with pytest.raises(UserError, match="test/polyp: no images"):
        scan_folder(tmp_path)


def test_manifest_round_trip(folder: Path, tmp_path: Path) -> None:
    manifest = scan_folder(folder)
    table = tmp_path / "split.csv"
    manifest.write(table)
    assert Manifest.read(table, folder) == manifest
    assert str(tmp_path) not in table.read_text()


def test_mistakes_in_a_manifest_are_reported(tmp_path: Path) -> None:
    table = tmp_path / "split.csv"
    with pytest.raises(UserError, match="no such manifest"):
        Manifest.read(table)
    table.write_text("path,kind\n")
    with pytest.raises(UserError, match="column 'split' is missing"):
        Manifest.read(table)
    table.write_text("path,split,kind\na.png,training,good\n")
    with pytest.raises(UserError, match="line 2: split is 'training'"):
        Manifest.read(table)
    with pytest.raises(UserError, match=r"b\.png: training uses normal images only"):
        Manifest(tmp_path, [Row(Path("a.png"), "train"), Row(Path("b.png"), "train", "polyp")])


@pytest.mark.parametrize("inner", ["train", "train/good", "test/good", "test/polyp", "ground_truth"])
def test_the_folder_around_a_part_of_a_data_set_is_suggested(
    inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train/good/a.png", "test/good/b.png", "test/polyp/c.png"):
        picture(tmp_path / "my set" / name)
    spot(tmp_path / "my set/ground_truth/polyp/c.png")
    outer = tmp_path / "my set"
    with pytest.raises(UserError, match=rf"/{inner}: this is a part of .* --data\.root '{outer}'$"):
        read_layout(outer / inner)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^my set/{inner}: .* --data\.root 'my set'$"):
        read_layout(Path("my set") / inner)
    monkeypatch.chdir(outer)
    with pytest.raises(UserError, match=rf"^{inner}: .* --data\.root '{outer}'$"):
        read_layout(Path(inner))
    monkeypatch.chdir(outer / inner)
    with pytest.raises(UserError, match=rf"--data\.root '{outer}'$"):
        read_layout(Path())


def test_the_test_split_alone_is_no_data_set_unless_asked_for(tmp_path: Path) -> None:
    for name in ("train/good/a.png", *(f"test/good/{index}.png" for index in range(5)), "test/polyp/c.png"):
        picture(tmp_path / name)
    message = (
        rf"/test: this is a part of .* --data\.root {tmp_path}, or read this part alone: --data\.layout two_folders$"
    )
    with pytest.raises(UserError, match=message):
        read_layout(tmp_path / "test")
    manifest, name = read_layout(tmp_path / "test", "two_folders")
    assert (len(manifest.rows), name) == (6, "two_folders")


def test_a_folder_in_an_unknown_layout_is_no_part_of_another(tmp_path: Path) -> None:
    picture(tmp_path / "set/images/a.png")
    picture(tmp_path / "set/more/b.png")
    with pytest.raises(UserError, match="no known layout; there is images/, more/"):
        read_layout(tmp_path / "set")
