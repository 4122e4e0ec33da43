"""Folders as people have them: names, masks, patients and depths."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ccd_lightning.cli import main
from ccd_lightning.cli.saved_config import keep_split
from ccd_lightning.data.checking import check
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.description import describe
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.recognition import read_layout
from ccd_lightning.errors import UserError
from tests.data.fakes import picture, spot


def pictures(root: Path, **folders: int) -> None:
    """Writes images 0.png, 1.png, ... into folders whose names have "__" for "/"."""
    for folder, count in folders.items():
        for index in range(count):
            picture(root / folder.replace("__", "/") / f"{index}.png")


def counts(manifest: Manifest) -> dict[tuple[str, str], int]:
    return dict(Counter((row.split, row.anomaly_type) for row in manifest.rows))


@pytest.mark.parametrize("train", ["good", "Good", "NORMAL", "healthy", "No_Finding"])
@pytest.mark.parametrize("test", ["good", "Normal", "HEALTHY", "negative", "control"])
def test_normal_images_have_any_of_their_names(train: str, test: str, tmp_path: Path) -> None:
    pictures(tmp_path, **{f"train__{train}": 4, f"test__{test}": 2, "test__lesion": 3})
    manifest, layout = read_layout(tmp_path)
    assert layout == "folders"
    assert counts(manifest) == {("train", "good"): 4, ("test", "good"): 2, ("test", "lesion"): 3}


@pytest.mark.parametrize("split", ["train", "test"])
def test_two_names_of_normal_in_one_split_are_refused(split: str, tmp_path: Path) -> None:
    pictures(tmp_path, train__good=2, test__good=2, test__lesion=2)
    pictures(tmp_path, **{f"{split}__Normal": 2})
    with pytest.raises(UserError, match=f"{split}: normal images are in 'Normal' and in 'good'"):
        read_layout(tmp_path)


def test_two_folders_of_normal_images_are_refused_in_the_other_layout(tmp_path: Path) -> None:
    pictures(tmp_path, normal=8, Healthy=2, abnormal=2)
    with pytest.raises(UserError, match="normal images are in 'Healthy' and in 'normal'"):
        read_layout(tmp_path)


def test_two_folders_may_hold_several_kinds_and_masks(tmp_path: Path) -> None:
    pictures(tmp_path, Normal_images=8, Tumor=2, polyp=3)
    assert counts(read_layout(tmp_path)[0]) == {
        ("train", "good"): 6,
        ("test", "good"): 2,
        ("test", "tumor"): 2,
        ("test", "polyp"): 3,
    }
    for path in (*tmp_path.glob("Tumor/*.png"), *tmp_path.glob("polyp/*.png")):
        spot(path.with_name(f"{path.stem}_mask.png"))
    assert sum(bool(row.masks) for row in read_layout(tmp_path)[0].rows if row.label) == 5


def test_some_masks_are_enough_in_two_folders(tmp_path: Path) -> None:
    pictures(tmp_path, normal=8, Tumor=4)
    for path in sorted(tmp_path.glob("Tumor/*.png"))[:3]:
        spot(path.with_name(f"{path.stem}_mask.png"))
    assert sum(bool(row.masks) for row in read_layout(tmp_path)[0].rows) == 3


def test_a_kind_that_is_called_after_a_mask_keeps_its_images(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=4, test__good=2, test__scratch=3, test__missing_label=3)
    found = read_layout(tmp_path)[0]
    assert counts(found)["test", "missing_label"] == 3
    assert not [row for row in found.rows if row.masks]


def test_a_manifest_of_the_inner_folder_is_found_from_the_outer_one(tmp_path: Path) -> None:
    pictures(tmp_path, outer__inner__train__good=4, outer__inner__test__good=2)
    manifest, _ = read_layout(tmp_path / "outer")
    manifest.write(tmp_path / "split.csv")
    again, _ = read_layout(tmp_path / "outer", str(tmp_path / "split.csv"))
    assert {row.path for row in again.rows} == {row.path for row in manifest.rows}


@pytest.mark.parametrize(
    ("kind", "message"), [("good", "there are no abnormal test images"), ("lesion", "there are no normal test images")]
)
def test_a_test_of_one_sort_is_reported_before_the_fit(kind: str, message: str, tmp_path: Path) -> None:
    pictures(tmp_path, train__good=8)
    pictures(tmp_path, **{f"test__{kind}": 3})
    with pytest.warns(UserWarning, match=message):
        Folder(str(tmp_path), size=32).setup("fit")
    (finding,) = check(read_layout(tmp_path)[0]).findings
    assert (finding.level, finding.topic) == ("warning", "test set without normal or without abnormal images")


def masks_of(root: Path) -> dict[str, str]:
    """Of each abnormal image its mask, both by their paths below the root."""
    manifest = read_layout(root)[0]
    assert manifest.flaws == []
    return {
        str(row.path.relative_to(root)): "|".join(str(mask.relative_to(root)) for mask in row.masks)
        for row in manifest.rows
        if row.label
    }


def test_medianomaly_s_packing_of_brats(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / f"train/BraTS2021_0000{index}_flair_60.png")
        picture(tmp_path / f"test/normal/BraTS2021_0001{index}_flair_60.png")
        picture(tmp_path / f"test/tumor/BraTS2021_0002{index}_flair_60.png")
        spot(tmp_path / f"test/annotation/BraTS2021_0002{index}_seg_60.png")
    manifest = read_layout(tmp_path)[0]
    assert counts(manifest) == {("train", "good"): 3, ("test", "good"): 3, ("test", "tumor"): 3}
    assert masks_of(tmp_path) == {
        f"test/tumor/BraTS2021_0002{index}_flair_60.png": f"test/annotation/BraTS2021_0002{index}_seg_60.png"
        for index in range(3)
    }
    assert manifest.left_out == ()


def test_bmad_s_packing(tmp_path: Path) -> None:
    pictures(tmp_path, train__good__img=6, test__good__img=3, test__Ungood__img=2)
    pictures(tmp_path, valid__good__img=4, valid__Ungood__img=5)
    for name in ("test/good/label/0", "test/Ungood/label/0", "test/Ungood/label/1", "valid/Ungood/label/0"):
        spot(tmp_path / f"{name}.png")
    manifest = read_layout(tmp_path)[0]
    assert counts(manifest) == {("train", "good"): 6, ("test", "good"): 3, ("test", "Ungood"): 2}
    assert masks_of(tmp_path) == {f"test/Ungood/img/{i}.png": f"test/Ungood/label/{i}.png" for i in (0, 1)}
    assert describe(manifest).endswith("2 masks; left out: 9 images in valid, 2 masks")


# BMAD's archives: the folders of a set, of its validation images and of its masks.
BMAD = {
    "Brain_AD/BraTS2021_slice": ("train/good", "test/{}/img", "valid/{}/img", "test/{}/label"),
    "Brain_AD/Brain": ("train/good/img", "test/{}/img", "valid/{}/img", "test/{}/anomaly_mask"),
    "Liver_AD/hist_DIY": ("train/good", "test/img/{}", "valid/img/{}", "test/label/{}"),
    "Retina_RESC_AD/RESC": ("Train/train/good", "Test/test/{}", "Val/val/{}", "Test/test_label/{}"),
    "Retina_OCT2017_AD/OCT2017": ("train/good", "test/{}", "val/{}", ""),
    "Chest_AD/Chest-RSNA": ("train/good", "test/{}", "val/{}", ""),
    "Histopathology_AD/camelyon16_256": ("train/good", "test/{}/img", "valid/{}/img", ""),
}


@pytest.mark.parametrize("name", BMAD)
def test_bmad_s_archives(name: str, tmp_path: Path) -> None:
    train, test, valid, label = BMAD[name]
    root = tmp_path / name
    pictures(root, **{train: 6, test.format("good"): 3, test.format("Ungood"): 2})
    pictures(root, **{valid.format("good"): 4, valid.format("Ungood"): 5})
    for kind in ("good", "Ungood") if label else ():
        spot(root / label.format(kind) / "0.png")
    manifest, layout = read_layout(tmp_path / name.split("/")[0])  # the archive holds one folder
    assert layout == "folders"
    assert counts(manifest) == {("train", "good"): 6, ("test", "good"): 3, ("test", "Ungood"): 2}
    assert manifest.flaws == []
    used = {row.path.relative_to(root).parts[0] for row in manifest.rows}
    assert not used & {"valid", "val", "Val"}  # whose abnormal images a threshold must not see
    masks = {row.path.name: row.masks for row in manifest.rows if row.masks}
    assert masks == ({"0.png": (root / label.format("Ungood") / "0.png",)} if label else {})
    assert any(part.startswith("9 images in val") for part in map(str.lower, manifest.left_out))


def test_a_folder_of_images_that_is_no_split_of_kinds_is_a_kind(tmp_path: Path) -> None:
    """Only where it holds normal images in a folder of theirs is it the split."""
    pictures(tmp_path, train__good=4, test__images=3)
    assert counts(read_layout(tmp_path)[0]) == {("train", "good"): 4, ("test", "images"): 3}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("test/lesion/benign (1).png", "test/lesion/benign (1)_mask.png"),
        ("test/lesion/ISIC_0000.jpg", "test/lesion/ISIC_0000_segmentation.png"),
        ("test/lesion/a.png", "test/lesion/a_gt.png"),
        ("test/lesion/a.png", "test/lesion/a_label.tif"),
        ("test/lesion/a.png", "test/lesion/masks/a.png"),
        ("test/lesion/images/a.png", "test/lesion/Labels/a.png"),
        ("test/lesion/a.png", "test/lesion_mask/a_seg.png"),
        ("test/lesion/a.png", "test/segmented/a_seg.png"),
        ("test/lesion/a.png", "ground_truth/lesion/a.png"),
        ("test/lesion/a.png", "ground_truth/Lesion/a_mask.png"),
        ("test/lesion/a_seg.png", "ground_truth/lesion/a_seg.png"),
        ("test/lesion/patient1/a.png", "ground_truth/lesion/patient1/a.png"),
        ("test/lesion/patient1/a.png", "ground_truth/lesion/a.png"),
        ("test/lesion/a.png", "ground_truth/test/lesion/a.png"),
        ("test/lesion/a.png", "masks/a.png"),
        ("test/lesion/a_image.png", "annotations/a_mask.png"),
    ],
)
def test_masks_are_known_by_folder_or_name(image: str, mask: str, tmp_path: Path) -> None:
    pictures(tmp_path, train__good=4, test__good=2)
    picture(tmp_path / image)
    spot(tmp_path / mask)
    assert masks_of(tmp_path) == {image: mask}
    manifest = read_layout(tmp_path)[0]
    assert counts(manifest) == {("train", "good"): 4, ("test", "good"): 2, ("test", "lesion"): 1}
    assert counts(read_layout(tmp_path, masks=False)[0]) == counts(manifest)
    assert manifest.left_out == ()


def test_masks_of_the_same_name_go_with_the_image_of_their_kind_and_folder(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=4, test__good=2)
    expected = {}
    for place in ("ulcer/p1", "ulcer/p2", "polyp/p1"):
        picture(tmp_path / f"test/{place}/0.png")
        spot(tmp_path / f"ground_truth/{place}/0.png")
        expected[f"test/{place}/0.png"] = f"ground_truth/{place}/0.png"
    assert masks_of(tmp_path) == dict(sorted(expected.items()))


def test_masks_that_do_not_fit_are_flaws(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=4, test__good=2, test__lesion=2)
    for name in ("0_mask", "1_mask", "7_mask"):
        spot(tmp_path / f"test/lesion/{name}.png")
    (flaw,) = (str(flaw) for flaw in read_layout(tmp_path)[0].flaws)
    assert "test/lesion/7_mask.png: no image for this mask" in flaw
    with pytest.raises(UserError, match=r"7_mask\.png: no image for this mask"):
        AnomalyDataModule(str(tmp_path), size=32).setup("test")


def test_masks_of_another_kind_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=4, test__good=2, test__lesion=2)
    for name in ("lesion/0", "lesion/1", "ulcer/0"):
        spot(tmp_path / f"ground_truth/{name}.png")
    (flaw,) = read_layout(tmp_path)[0].flaws
    assert str(flaw).startswith(
        f"{tmp_path}/ground_truth/ulcer/0.png: no image for this mask in {tmp_path}/test/ulcer."
    )


def test_masks_of_normal_images_are_not_trained_on(tmp_path: Path) -> None:
    for split, kind in (("train", "normal"), ("test", "normal"), ("test", "benign")):
        for index in range(3):
            picture(tmp_path / f"{split}/{kind}/{kind} ({index}).png")
            spot(tmp_path / f"{split}/{kind}/{kind} ({index})_mask.png")
    manifest = read_layout(tmp_path)[0]
    assert counts(manifest) == {("train", "good"): 3, ("test", "good"): 3, ("test", "benign"): 3}
    assert describe(manifest).endswith("3 masks; left out: 6 masks")


def test_names_like_masks_without_their_images_are_images(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=2, test__good=2)
    for index in range(3):
        picture(tmp_path / f"test/lesion/x{index}_label_1.png")
    assert counts(read_layout(tmp_path)[0])["test", "lesion"] == 3


def test_a_patient_on_both_sides_is_refused(tmp_path: Path) -> None:
    for index in range(12):
        picture(tmp_path / f"train/good/patient{index // 2}_{index % 2}.png")
        picture(tmp_path / f"test/good/patient{9 + index // 2}_{index % 2}.png")
        picture(tmp_path / f"test/lesion/patient{9 + index // 2}/{index}.png")
    assert "12 groups" in describe(read_layout(tmp_path)[0])
    Folder(str(tmp_path), size=32, validation=0.4).setup("fit")
    picture(tmp_path / "test/good/patient0_2.png")
    with pytest.raises(UserError, match=r"are both of patient0.*--data\.groups false"):
        Folder(str(tmp_path), size=32, validation=0.4).setup("fit")
    with pytest.raises(UserError, match="are both of patient0"):
        AnomalyDataModule(str(tmp_path), size=32, validation=0.4).setup("fit")
    Folder(str(tmp_path), size=32, validation=0.4, groups=False).setup("fit")


def test_the_first_line_tells_the_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path, train__good=4, test__good=2, test__lesion=2)
    for split, patient in (("train", 1), ("train", 2), ("test", 3)):
        for index in range(3):
            picture(tmp_path / f"{split}/good/patient{patient}_{index}.png")
    Folder(str(tmp_path), size=32).setup("test")
    assert "; grouped by patient: 3 groups and 8 images of none\n" in capsys.readouterr().out
    Folder(str(tmp_path), size=32, groups=False).setup("test")
    assert "grouped" not in capsys.readouterr().out


def test_the_data_commands_know_groups_and_how_to_leave_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train/good", "test/good", "test/lesion"):
        for index in range(3):
            picture(tmp_path / f"set/{split}/patient{index}_{split[-1]}.png")
    assert main(["data", "check", "--root", "set"]) == 2
    assert "patients or videos in both splits: 3" in capsys.readouterr().out
    assert main(["data", "check", "--root", "set", "--no_groups"]) == 0
    assert main(["data", "prepare", "--root", "set", "--no_groups", "--output", "all.csv"]) == 0
    assert len(read_layout(tmp_path / "set", "all.csv")[0].select("train")) == 3
    assert not any(row.group for row in read_layout(tmp_path / "set", "all.csv")[0].rows)


def test_a_table_without_a_column_of_groups_has_them_by_name(tmp_path: Path) -> None:
    lines = [f"{split}/patient{index}.png,{split},good" for split in ("train", "test") for index in range(2)]
    for line in lines:
        picture(tmp_path / line.split(",")[0])
    (tmp_path / "table.csv").write_text("\n".join(["path,split,kind", *lines]))
    assert [row.group for row in read_layout(tmp_path / "table.csv")[0].rows] == ["patient0", "patient1"] * 2
    assert not any(row.group for row in read_layout(tmp_path / "table.csv", groups=False)[0].rows)
    (tmp_path / "table.csv").write_text("\n".join(["path,split,kind,group", *(f"{line}," for line in lines)]))
    assert not any(row.group for row in read_layout(tmp_path / "table.csv")[0].rows)


def test_a_run_is_not_resumed_with_other_groups(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"set/train/good/patient{index // 2}_{index}.png")
    grouped, alone = (scan_folder(tmp_path / "set", groups=groups) for groups in (True, False))
    keep_split(alone, tmp_path / "manifest.csv")
    with pytest.raises(UserError, match=r"not grouped by patient or video as they were .*--data\.layout"):
        keep_split(grouped, tmp_path / "manifest.csv")
    keep_split(read_layout(tmp_path / "set", str(tmp_path / "manifest.csv"))[0], tmp_path / "manifest.csv")


def test_one_patient_alone_cannot_be_divided(tmp_path: Path) -> None:
    for index in range(8):
        picture(tmp_path / f"train/good/case_2020_{index}.png")
    pictures(tmp_path, test__good=2, test__lesion=2)
    with pytest.raises(
        UserError, match=r"of 1 patients, videos or files; --data\.groups false treats every image separately"
    ):
        Folder(str(tmp_path), size=32).setup("fit")


def test_images_beside_and_below_folders_are_read(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=2, train__good__patient7=3, train__good__a__b__c=1)
    pictures(tmp_path, test__good=1, test__lesion__x=2, test__lesion=1)
    shutil.move(tmp_path / "train/good/a", tmp_path / "elsewhere")
    (tmp_path / "train/good/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    shutil.rmtree(tmp_path / "elsewhere" / "b" / "none", ignore_errors=True)
    manifest = scan_folder(tmp_path)
    assert counts(manifest) == {("train", "good"): 6, ("test", "good"): 1, ("test", "lesion"): 3}
    assert {row.group for row in manifest.rows} == {None, "patient7"}


def test_loops_of_links_end(tmp_path: Path) -> None:
    pictures(tmp_path, train__good__a=2, test__good=1, test__lesion=1)
    for link, target in (("a/self", "a"), ("up", ".."), ("root", "../.."), ("twice", "a")):
        (tmp_path / "train/good" / link).symlink_to((tmp_path / "train/good" / target).resolve())
    manifest = read_layout(tmp_path)[0]
    assert counts(manifest) == {("train", "good"): 2, ("test", "good"): 1, ("test", "lesion"): 1}
    assert manifest.left_out == ()


def test_whole_splits_behind_links(tmp_path: Path) -> None:
    pictures(tmp_path / "store", a=3, b=2, c=2)
    for link, target in (("train/good", "a"), ("test/good", "b"), ("test/lesion", "c")):
        (tmp_path / "set" / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / link).symlink_to(tmp_path / "store" / target)
    manifest = read_layout(tmp_path / "set")[0]
    assert counts(manifest) == {("train", "good"): 3, ("test", "good"): 2, ("test", "lesion"): 2}
    assert manifest.left_out == ()


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_beside_the_folders_of_a_split_are_refused(split: str, tmp_path: Path) -> None:
    pictures(tmp_path, train__good=2, test__good=2, test__lesion=2)
    picture(tmp_path / split / "stray.png")
    with pytest.raises(UserError, match=rf"{split}: 1 image beside the folders \(stray\.png"):
        read_layout(tmp_path)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    pictures(tmp_path, train__NORMAL=3, train__PNEUMONIA=4, test__NORMAL=2, test__PNEUMONIA=2, val__NORMAL=1)
    for name in ("a.mha", "b.mha", "c.mha.gz", "notes.txt", "Thumbs.db", ".DS_Store", ".hidden.png"):
        (tmp_path / "train/NORMAL" / name).touch()
    spot(tmp_path / "test/NORMAL/0_mask.png")
    manifest = read_layout(tmp_path)[0]
    assert counts(manifest)["train", "good"] == 3
    assert manifest.left_out == (
        "4 images in train/PNEUMONIA",
        "1 image in val",
        "1 mask",
        "3 files of types that are not read (.mha (2), .mha.gz (1))",
    )


def test_a_folder_of_files_that_are_not_read_is_reported(tmp_path: Path) -> None:
    pictures(tmp_path, train__good=3, test__good=2)
    (tmp_path / "test/lesion").mkdir()
    (tmp_path / "test/lesion/a.mha").touch()
    with pytest.raises(UserError, match=r"test/lesion: no images .*but 1 file of types that are not read \(\.mha\)"):
        read_layout(tmp_path)


@pytest.mark.parametrize("refused", ["train", "train/good", "train/good/deep", "test", "test/polyp"])
def test_a_folder_that_cannot_be_listed_is_reported(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, train__good__deep=3, test__good=2, test__polyp=2)

    def refuse(original: Callable[..., Any]) -> Callable[..., Any]:
        def listing(path: Any = ".") -> Any:
            if Path(path) == tmp_path / refused:
                raise PermissionError(13, "Permission denied", str(path))
            return original(path)

        return listing

    for name in ("scandir", "listdir"):  # pathlib uses one or the other
        monkeypatch.setattr(f"os.{name}", refuse(getattr(os, name)))
    with pytest.raises(UserError, match=rf"/{refused}: this folder cannot be read \(Permission denied\)"):
        read_layout(tmp_path)


def test_the_size_of_a_mask_is_compared_in_every_layout(tmp_path: Path) -> None:
    pictures(tmp_path, normal=8, abnormal=1)
    Image.new("L", (8, 8), 255).save(tmp_path / "abnormal/0_mask.png")
    (flaw,) = read_layout(tmp_path)[0].flaws
    assert "the mask has 8 x 8 pixels" in str(flaw)
