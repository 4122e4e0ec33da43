"""Each page of a file is an image: in every layout, in tables, for fit, test, check, prepare and predict."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ccd_lightning.cli import main
from ccd_lightning.data import images, stacks
from ccd_lightning.data.checking import check
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.dataset import EpochIndex
from ccd_lightning.data.description import describe
from ccd_lightning.data.division import image_keys
from ccd_lightning.data.duplicates import find_pairs, shared_groups
from ccd_lightning.data.file_info import inspect
from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.image_files import FileBatches, look_for
from ccd_lightning.data.images import load_images, read_image
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.data.masks import open_masks
from ccd_lightning.data.pairing import compare_sizes
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.data.sources import axis_of, page_of, split_page
from ccd_lightning.data.stacks import expand_files, expand_stacks
from ccd_lightning.data.thumbnails import cached_infos
from ccd_lightning.errors import UserError
from tests.data.fakes import picture
from tests.dicom_files import dicom

SMALL = Preprocessing(16)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def noise(count: int, seed: int = 0, side: int = 32) -> Any:
    """(count, side, side) uint8: coarse, so that thumbnails differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)
    return coarse.repeat(side // 8, axis=1).repeat(side // 8, axis=2)


def stack(path: Path, pixels: Any) -> Path:
    """Writes (count, height, width) as pages or frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = map(Image.fromarray, pixels)
    options: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
    first.save(path, **options | ({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def volume(path: Path, pixels: Any) -> Path:
    """Writes (count, height, width) as axial slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(pixels).transpose(2, 1, 0), LPS), path)
    return path


def spots(count: int, marked: tuple[int, ...]) -> Any:
    """Masks of so many pages, of which some mark a square."""
    masks = np.zeros((count, 32, 32), np.uint8)
    masks[list(marked), 8:16, 8:20] = 255
    return masks


def data_set(root: Path) -> Path:
    """Two volumes and a stack to train on; a volume, a stack and an image to test on; masks of two of them."""
    holed = noise(6, 1)
    holed[[0, 5]] = 3  # two empty slices
    volume(root / "train/good/one.nii.gz", holed)
    volume(root / "train/good/two.nii", noise(4, 2))
    stack(root / "train/good/three.tif", noise(3, 3))
    volume(root / "test/good/four.nii.gz", noise(3, 4))
    volume(root / "test/lesion/five.nii.gz", noise(4, 5))
    volume(root / "ground_truth/lesion/five_seg.nii.gz", spots(4, (1, 2)) // 255)
    stack(root / "test/lesion/six.tif", noise(2, 6))
    stack(root / "ground_truth/lesion/six.tif", spots(2, (0, 1)))
    picture(root / "test/lesion/seven.png")
    return root


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp", "a.gif", "a.nii", "a.nii.gz"])
def test_each_page_of_every_format_is_read(name: str, tmp_path: Path) -> None:
    pixels = noise(3)
    file = (volume if ".nii" in name else stack)(tmp_path / name, pixels)
    assert read_header(file)[:2] == ((32, 32), 3)
    for page, expected in enumerate(pixels):
        found = read_image(page_of(file, page), Preprocessing(32))
        assert np.abs(found.astype(int) - expected[:, :, None]).max() <= 1
    with pytest.raises(UserError, match=rf"{name}: 3 .* one image is expected. Name one"):
        read_image(file, SMALL)
    with pytest.raises(UserError, match=rf"{name}\[3\]: no such"):
        read_image(page_of(file, 3), SMALL)


def test_names_of_pages(tmp_path: Path) -> None:
    assert split_page(page_of(Path("a/b.tif"), 3)) == (Path("a/b.tif"), 3)
    assert page_of(Path("a.nii.gz"), 7, axis=0) == Path("a.nii.gz[x7]")
    assert axis_of(Path("a.nii.gz[y7]")) == 1
    assert split_page(Path("a.nii.gz[y7]")) == (Path("a.nii.gz"), 7)
    assert axis_of(Path("a[x].tif")) == 2
    assert split_page(file := picture(tmp_path / "a.png[3]x.png").rename(tmp_path / "a.png[3]")) == (file, None)
    with pytest.raises(UserError, match="an axis can be named of a NIfTI volume alone"):
        read_picture(page_of(stack(tmp_path / "b.tif", noise(2)), 1, axis=0))


def test_pages_of_different_sizes_are_reported(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise(1, side=side)[0]) for side in (32, 64))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    assert [read_header(page_of(tmp_path / "a.tif", page)).size for page in (0, 1)] == [(32, 32), (64, 64)]


def test_previews_are_no_pages(tmp_path: Path) -> None:
    image, other = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other])
    preview = other.resize((8, 8))
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller version of another page
    image.save(tmp_path / "a.tif", save_all=True, append_images=[preview])
    assert expand_files([str(tmp_path / name) for name in ("a.jpg", "a.tif")])[0] == [
        str(tmp_path / name) for name in ("a.jpg", "a.tif")
    ]
    for name in ("a.jpg", "a.tif"):
        with Image.open(tmp_path / name) as opened:
            assert opened.n_frames == 2  # type: ignore[attr-defined]
        assert read_image(tmp_path / name, SMALL)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)
        inspect(tmp_path / name)


def test_a_folder_of_stacks_becomes_its_pages(tmp_path: Path) -> None:
    manifest, layout = read_layout(data_set(tmp_path))
    assert manifest.flaws == []
    names = Counter(split_page(row.path)[0].name for row in manifest.rows)
    assert names == {"one.nii.gz": 4, "two.nii": 4, "three.tif": 3, "four.nii.gz": 3, "five.nii.gz": 2, "six.tif": 2,
                     "seven.png": 1}  # fmt: skip
    assert [row.path.name for row in manifest.rows if "one" in row.path.name] == [
        f"one.nii.gz[{n}]" for n in range(1, 5)
    ]
    assert [row.masks[0].name for row in manifest.rows if row.masks] == [
        "five_seg.nii.gz[1]", "five_seg.nii.gz[2]", "six.tif[0]", "six.tif[1]",
    ]  # fmt: skip
    groups = {row.path.name.partition("[")[0]: row.group for row in manifest.rows}
    assert groups["one.nii.gz"] == "train/good/one.nii.gz"
    assert groups["seven.png"] is None
    message = describe(manifest, layout)
    assert "4 volumes and 2 stacks of 18 images" in message
    assert "left out: 2 empty slices, 2 pages of abnormal files without a lesion in their masks" in message
    assert not any(row.group for row in read_layout(tmp_path, groups=False)[0].rows)
    assert expand_stacks(manifest).rows == manifest.rows


def test_volumes_are_cut_along_the_axis_that_is_asked_for(tmp_path: Path) -> None:
    voxels = noise(4, 5)
    volume(tmp_path / "train/good/a.nii", voxels)
    data = AnomalyDataModule(str(tmp_path), size=(4, 32), axis=1)
    rows = data.manifest().rows
    assert [row.path.name for row in rows] == [f"a.nii[y{number}]" for number in range(32)]
    found = read_image(rows[5].path, Preprocessing((4, 32)))[:, :, 0]
    assert np.array_equal(found, voxels[::-1, 31 - 5])  # the front is above in axial slices, the head in these
    with pytest.raises(UserError, match=r"data\.axis is 3, but must be 0"):
        AnomalyDataModule(str(tmp_path), axis=3).manifest()


def test_the_patient_in_a_header_wins_over_names_and_a_column_over_both(tmp_path: Path) -> None:
    names = ["train/good/vol1_a.dcm", "train/good/x.dcm", "test/good/vol2_a.dcm", "test/good/vol3_a.dcm"]
    for index, name in enumerate(names):
        dicom(tmp_path / name, noise(1, index)[0], PatientID="one" if index < 3 else "")
    groups = [row.group for row in read_layout(tmp_path)[0].rows]
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert groups[3] is not None
    assert all(group and group.startswith("patient-") for group in groups[:3])
    table = tmp_path / "set.csv"
    for column, expected in (("", groups), (",group", list("abcd"))):
        ends = "abcd" if column else " " * 4
        lines = [
            f"{name},{name.split('/')[0]},good" + (f",{ends[n]}" if column else "") for n, name in enumerate(names)
        ]
        table.write_text("\n".join([f"path,split,kind{column}", *lines]))
        assert [row.group for row in read_layout(table)[0].rows] == expected


def test_drawn_splits_keep_the_patient_in_headers_together(tmp_path: Path) -> None:
    for index in range(16):
        path = tmp_path / f"normal/vol{index}_a.dcm"
        dicom(path, noise(1, index)[0], PatientID=f"P{index % 4}")
    dicom(tmp_path / "abnormal/vol99_a.dcm", noise(1, 99)[0], PatientID="P0")
    manifest = read_layout(tmp_path, "two_folders")[0]
    assert len({row.group for row in manifest.rows}) == 4
    assert not shared_groups(manifest)


def test_named_pages_of_a_file_are_a_group(tmp_path: Path) -> None:
    volume(tmp_path / "a/one.nii.gz", noise(4))
    lines = [f"a/one.nii.gz[{index}],{'train' if index < 2 else 'test'},good" for index in range(4)]
    (tmp_path / "set.csv").write_text("\n".join(["path,split,kind", *lines]))
    manifest = read_layout(tmp_path / "set.csv")[0]
    assert {row.group for row in manifest.rows} == {"a/one.nii.gz"}
    assert len(shared_groups(manifest)) == 1
    assert {row.group for row in read_layout(tmp_path / "set.csv", groups=False)[0].rows} == {None}


def test_dicom_files_are_images_by_content_and_groups_by_patient(tmp_path: Path) -> None:
    for number in range(4):
        dicom(tmp_path / f"train/good/IM{number:04d}", noise(1, number)[0], PatientID=f"CANARY{number // 2}")
    dicom(tmp_path / "train/good/1.2.840.7", noise(1, 7)[0], PatientID="CANARY7")
    dicom(tmp_path / "train/good/cine.dcm", noise(3, 8), PatientID="CANARY1")
    dicom(tmp_path / "train/good/DICOMDIR", noise(1, 9)[0])
    (tmp_path / "train/good/notes").write_text("no image")
    manifest, layout = read_layout(tmp_path)
    names = [row.path.name for row in manifest.rows]
    assert names == ["1.2.840.7", "IM0000", "IM0001", "IM0002", "IM0003", *(f"cine.dcm[{n}]" for n in range(3))]
    groups = [row.group for row in manifest.rows]
    assert len(set(groups)) == 3
    assert groups[3] == groups[4] == groups[5] == groups[7]
    assert all(group and group.startswith("patient-") for group in groups)
    message = describe(manifest, layout)
    assert "1 stack of 3 images" in message
    assert "grouped by patient: 3 groups" in message
    assert "CANARY" not in message
    for row in manifest.rows:
        assert read_image(row.path, SMALL).shape == (16, 16, 3)
    assert not any(row.group for row in read_layout(tmp_path, groups=False)[0].rows)


def test_a_split_that_is_drawn_keeps_patients_together(tmp_path: Path) -> None:
    for number in range(16):
        dicom(tmp_path / f"normal/{number:02d}.dcm", noise(1, number)[0], PatientID=f"CANARY{number % 4}")
    dicom(tmp_path / "abnormal/a.dcm", noise(1, 99)[0], PatientID="CANARY0")
    manifest = read_layout(tmp_path)[0]
    train, test = ({row.group for row in manifest.select(split)} for split in ("train", "test"))
    assert train.isdisjoint(test)
    assert len(train | test) == 4


def test_tables_name_files_or_pages(tmp_path: Path) -> None:
    data_set(tmp_path)
    lines = [
        "train/good/one.nii.gz,train,good,",
        "train/good/two.nii[2],train,good,",
        "test/good/four.nii.gz,test,good,",
        "test/lesion/six.tif[1],test,lesion,ground_truth/lesion/six.tif",
    ]
    (tmp_path / "split.csv").write_text("\n".join(["path,split,kind,mask", *lines]))
    manifest, _ = read_layout(tmp_path / "split.csv")
    assert [row.path.name for row in manifest.select("train")] == [
        *(f"one.nii.gz[{n}]" for n in range(1, 5)),
        "two.nii[2]",
    ]
    assert [mask.name for row in manifest.rows for mask in row.masks] == ["six.tif[1]"]
    manifest.write(tmp_path / "again.csv")
    assert [row.path for row in read_layout(tmp_path / "again.csv")[0].rows] == [row.path for row in manifest.rows]
    (tmp_path / "twice.csv").write_text(
        "path,split,kind\ntrain/good/one.nii.gz,train,good\ntrain/good/one.nii.gz[2],train,good"
    )
    with pytest.raises(UserError, match=r"one\.nii\.gz\[2\]: this image is in the table twice"):
        read_layout(tmp_path / "twice.csv")
    (tmp_path / "gone.csv").write_text("path,split,kind\ntrain/good/gone.tif[2],train,good")
    with pytest.raises(UserError, match=r"gone\.tif: no such file, but"):
        read_layout(tmp_path / "gone.csv")


def test_masks_have_as_many_pages_and_the_same_size(tmp_path: Path) -> None:
    data_set(tmp_path)
    stack(tmp_path / "ground_truth/lesion/six.tif", spots(3, (0,)))
    volume(tmp_path / "ground_truth/lesion/five_seg.nii.gz", np.ones((4, 16, 16), np.uint8))
    flaws = sorted(map(str, read_layout(tmp_path)[0].flaws))
    assert len(flaws) == 2
    assert "five_seg.nii.gz: the mask has 16 x 16 pixels, its image" in flaws[0]
    assert "six.tif: the mask has 3 pages, its image" in flaws[1]
    lines = ["test/lesion/six.tif,test,lesion,ground_truth/lesion/six.tif", "train/good/two.nii,train,good,"]
    (tmp_path / "split.csv").write_text("\n".join(["path,split,kind,mask", *lines]))
    (flaw,) = read_layout(tmp_path / "split.csv")[0].flaws
    assert "six.tif: the mask has 3 pages, but a mask of 2 pages is expected for its image" in str(flaw)


def test_a_slice_and_its_mask_reach_the_test(tmp_path: Path) -> None:
    data = AnomalyDataModule(str(data_set(tmp_path)), size=32)
    data.setup("test")
    dataset = data.datasets["test"]
    items = {Path(row.path).name: dataset[EpochIndex(0, index)] for index, row in enumerate(dataset.rows)}
    item = items["five.nii.gz[2]"]
    assert np.array_equal(item["image"][0], noise(4, 5)[2])
    assert np.array_equal(item["mask"], spots(4, (2,))[2] > 0)
    data.setup("fit")
    held_out = {row.path.name for row in data.datasets["val"].rows}
    assert held_out == {f"three.tif[{n}]" for n in range(3)}  # no file of the share's size or less: the smallest
    assert len(data.datasets["train"]) == 8


def test_check_prepare_and_caches_know_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = data_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    manifest = read_layout(root)[0]
    assert {finding.level for finding in check(manifest).findings} <= {"note", "warning"}
    leak = stack(root / "test/good/leak.tif", np.stack([noise(1, 9)[0], noise(3, 3)[1]]))
    (pair,) = find_pairs(read_layout(root)[0])
    assert (pair.train.name, pair.test, pair.is_leak) == ("three.tif[1]", page_of(leak, 1), True)
    leak.unlink()
    assert main(["data", "prepare", "--root", "set", "--copy", "small", "--size", "16", "--output", "small.csv"]) == 0
    copied = read_layout(tmp_path / "small", str(tmp_path / "small.csv"))[0]
    assert len(copied.rows) == len(manifest.rows)
    for old, new in zip(manifest.rows, copied.rows, strict=True):
        assert np.array_equal(read_image(old.path, SMALL), read_image(new.path, SMALL))
        assert (new.path.suffix, new.group, len(new.masks)) == (".png", old.group, len(old.masks))
    paths = [row.path for row in manifest.rows]
    assert set(cached_infos(paths, tmp_path / "cache")) == set(paths)
    first = load_images(paths, SMALL, tmp_path / "cache").pixels
    assert np.array_equal(load_images(paths, SMALL, tmp_path / "cache").pixels, first)
    assert len(set(image_keys(manifest.rows, root))) == len(paths)
    kept = image_keys(manifest.rows, root)
    shutil.move(root, tmp_path / "moved")
    assert image_keys(read_layout(tmp_path / "moved")[0].rows, tmp_path / "moved") == kept


def test_predict_takes_pages_and_leaves_empty_slices_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set(tmp_path)
    monkeypatch.chdir(tmp_path)
    files, _ = look_for(["train/good", "test/lesion/six.tif[1]", "train/good/three.tif[2]"])
    paths, left_out = expand_files(files)
    assert left_out == "2 empty slices"
    assert len(paths) == 12
    assert paths[-1] == "test/lesion/six.tif[1]"
    batch = FileBatches(["test/lesion/six.tif[1]", "test/lesion/six.tif[2]"], SMALL, 2)[0]
    assert [reason[:12] for reason in batch["reason"]] == ["", "no such page"]


def test_a_volume_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = volume(tmp_path / "a.nii.gz", noise(3))
    assert len(expand_files([str(file)])[0]) == 3
    with monkeypatch.context() as patch:
        patch.setattr(
            "ccd_lightning.data.formats.nifti.occupied_slices", lambda *_: pytest.fail("looked through again")
        )
        assert len(expand_files([str(file)])[0]) == 3
    volume(file, noise(5))
    assert len(expand_files([str(file)])[0]) == 5


def test_a_damaged_file_stays_one_row_with_its_reason(tmp_path: Path) -> None:
    data_set(tmp_path)
    content = (tmp_path / "train/good/one.nii.gz").read_bytes()
    (tmp_path / "train/good/one.nii.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "train/good/three.tif").write_bytes(b"II*\0")
    errors = {one.path.name: one.message for one in check(read_layout(tmp_path)[0]).findings if one.level == "error"}
    assert set(errors) == {"one.nii.gz[0]", "three.tif"}
    assert "cannot be read as NIfTI" in errors["one.nii.gz[0]"]


def test_long_reading_shows_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = list[tuple[str, int]]()

    def progress(items: Any, what: str, total: int) -> Any:
        reported.append((what, total))
        return items

    monkeypatch.setattr(images, "progress", progress)
    assert images.in_parallel(str, [1, 2, 3], "Counting") == ["1", "2", "3"]
    assert reported == []
    monkeypatch.setattr(images, "PATIENCE", -1.0)
    assert images.in_parallel(str, [1, 2, 3], "Counting") == ["1", "2", "3"]
    assert reported == [("Counting", 3)]


def test_files_of_one_image_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [picture(tmp_path / name) for name in ("a.png", "a.jpg", "a.bmp")]
    monkeypatch.setattr(stacks, "read_header", lambda path: pytest.fail(f"{path} is opened"))
    assert expand_files(list(map(str, paths))) == (list(map(str, paths)), "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_regular_file_is_refused_before_it_is_opened(folder: Path) -> None:
    for name in ("a.png", "a.tif", "a.nii.gz", "noname"):
        os.mkfifo(pipe := folder / "test/good" / name)  # opening it would wait for ever
        for reader in (read_header, read_picture, inspect):
            with pytest.raises(UserError, match=rf"{name}: cannot be read \(not a regular file\)"):
                reader(pipe)
    os.mkfifo(folder / "test/good/a.txt")
    os.mkfifo(folder / "test/instances.json")
    with pytest.raises(UserError, match=r"instances\.json: cannot be read \(not a regular file\)"):
        read_layout(folder)
    (folder / "test/instances.json").unlink()
    found = check(read_layout(folder)[0]).findings
    assert {one.path.name for one in found if "not a regular file" in one.message} == {"a.png", "a.tif", "a.nii.gz"}


def test_rows_without_pages_stay_as_they_are(tmp_path: Path) -> None:
    rows = [Row(picture(tmp_path / f"{n}.png"), "train", group="patient1") for n in range(3)]
    assert expand_stacks(Manifest(tmp_path, rows)).rows == rows


@pytest.mark.parametrize(
    ("affine", "what"),
    [
        (np.eye(4), "orientation"),
        (np.diag([-1.0, -1.0, 1.01, 1.0]), "place"),
        (LPS + np.outer([0, 0, 1, 0], [0, 0, 0, 0.01]), "place"),
    ],
)
def test_a_mask_that_lies_elsewhere_in_the_body_is_reported(affine: Any, what: str, tmp_path: Path) -> None:
    image, mask = volume(tmp_path / "test/lesion/a.nii", noise(3)), tmp_path / "ground_truth/lesion/a.nii"
    picture(tmp_path / "train/good/b.png")
    voxels = spots(3, (1,)).transpose(2, 1, 0)
    mask.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), mask)
    message = f"another {what} in the body than that of its image {image}"
    (flaw,) = read_layout(tmp_path)[0].flaws
    assert (flaw.path, message in flaw.message) == (mask, True)
    table = tmp_path / "table.csv"
    lines = [
        "path,split,kind,mask",
        "train/good/b.png,train,good,",
        "test/lesion/a.nii,test,lesion,ground_truth/lesion/a.nii",
    ]
    table.write_text("\n".join(lines))
    (flaw,) = read_layout(tmp_path, str(table))[0].flaws
    assert (flaw.path, message in flaw.message) == (mask, True)
    with pytest.raises(UserError, match=rf"a\.nii: .*another {what}"):
        open_masks([page_of(mask, 1)], page_of(image, 1))


def test_a_mask_may_be_stored_in_another_order_than_its_image(tmp_path: Path) -> None:
    image, mask = volume(tmp_path / "a.nii", noise(3)), tmp_path / "mask.nii"
    marked = nibabel.Nifti1Image(spots(3, (1,)).transpose(2, 1, 0), LPS + np.eye(4)[:, [3, 0, 1, 2]] * 1e-5)
    turned = marked.as_reoriented(nibabel.orientations.axcodes2ornt("SRA"))
    nibabel.save(turned, mask)
    assert list(compare_sizes(image, mask)) == []
    assert np.array_equal(open_masks([page_of(mask, 1)], page_of(image, 1)), spots(3, (1,))[1] > 0)


def test_the_pages_of_a_file_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stack(tmp_path / "a.tif", noise(12))
    steps, real = list[int](), TiffImagePlugin.TiffImageFile._seek

    def seek(self: Any, frame: int) -> None:
        steps.append(frame)
        real(self, frame)

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "_seek", seek)
    for page in range(12):
        assert np.array_equal(np.asarray(read_picture(page_of(file, page)).image), noise(12)[page])
    assert len(steps) <= 2 * 12 + 30  # opened and gone to a page, twelve times; counted once
    stack(file, noise(2))  # another file of this name
    assert read_header(file).pages == 2
