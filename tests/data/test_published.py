import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ccd_lightning.cli import main
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import LAG, Folder, HyperKvasir
from ccd_lightning.data.description import describe
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.naming import group_of
from ccd_lightning.data.random_split import draw_split
from ccd_lightning.data.recognition import LAYOUTS, read_layout
from ccd_lightning.errors import UserError
from tests.data.fakes import FAKES, authors, hyper_kvasir, isic2018, lag, medianomaly, picture, two_folders
from tests.dicom_files import dicom
from tests.runs import CONFIGS


def sizes(manifest: Manifest) -> tuple[int, int, int, int]:
    counts = [
        sum(row.split == split and row.label == label for row in manifest.rows)
        for split, label in (("train", 0), ("test", 0), ("test", 1))
    ]
    return counts[0], counts[1], counts[2], sum(bool(row.masks) for row in manifest.rows)


@pytest.mark.parametrize("name", FAKES)
def test_each_layout_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    make, expected = FAKES[name]
    make(tmp_path)
    manifest, layout = read_layout(tmp_path)
    assert layout == name
    assert sizes(manifest) == expected
    assert sizes(read_layout(tmp_path, name, masks=False)[0]) == (*expected[:3], 0)
    assert [one.name for one in LAYOUTS if one.matches(tmp_path)] == [name]
    assert len({row.path for row in manifest.rows}) == sum(expected[:3])
    assert all(row.path.is_file() for row in manifest.rows)


def test_kvasir_s_polyps_are_the_segmented_ones_and_nothing_else_is_normal(tmp_path: Path) -> None:
    hyper_kvasir(tmp_path)
    for junk in ("__MACOSX/segmented-images/masks/._cju0.jpg", "__MACOSX/segmented-images/images/._cju0.jpg"):
        picture(tmp_path / junk, 0)
    picture(tmp_path / "segmented-images/images/._cju0.jpg", 0)
    rows = read_layout(tmp_path)[0].rows
    assert {row.path.parent.name for row in rows if not row.label} == {"cecum", "ileum", "bbps-2-3"}
    assert {row.anomaly_type for row in rows if row.label} == {"polyp"}
    assert all([mask.stem for mask in row.masks] == [row.path.stem] for row in rows if row.label)
    nested = tmp_path / "unpacked" / "hyper-kvasir"
    nested.mkdir(parents=True)
    for folder in ("labeled-images", "segmented-images"):
        shutil.move(tmp_path / folder, nested / folder)
    assert sizes(read_layout(tmp_path)[0]) == FAKES["hyper_kvasir"][1]
    shutil.copytree(nested / "segmented-images", tmp_path / "Kvasir-SEG")
    assert sizes(read_layout(tmp_path)[0]) == FAKES["hyper_kvasir"][1]
    shutil.move(nested / "segmented-images", tmp_path / "again")
    with pytest.raises(UserError, match=r"images and masks are in .*Kvasir-SEG, .*again; leave one"):
        read_layout(tmp_path)


def test_splits_are_drawn_by_seed_and_names_alone(tmp_path: Path) -> None:
    lag(tmp_path)
    first, again, other = (read_layout(tmp_path, seed=seed)[0].rows for seed in (0, 0, 1))
    assert first == again
    assert {row.path for row in first if row.split == "test"} != {row.path for row in other if row.split == "test"}

    def tested(root: Path) -> set[str]:
        return {row.path.name for row in read_layout(root)[0].rows if row.split == "test" and not row.label}

    before = tested(tmp_path)
    shutil.copytree(tmp_path, tmp_path.parent / "elsewhere" / "Archive" / "LAG")
    assert tested(tmp_path.parent / "elsewhere") == before
    picture(tmp_path / "non_glaucoma/image/9999.jpg", 1)
    assert len(tested(tmp_path) ^ before) <= 2


def test_the_folders_above_an_image_do_not_move_it(tmp_path: Path) -> None:
    hyper_kvasir(tmp_path)
    before = {row.path.name for row in read_layout(tmp_path)[0].rows if row.split == "train"}
    for name in ("anatomical-landmarks/cecum", "anatomical-landmarks/ileum", "quality-of-mucosal-views/bbps-2-3"):
        shutil.move(tmp_path / "labeled-images/lower-gi-tract" / name, tmp_path / Path(name).name)
    assert {row.path.name for row in read_layout(tmp_path)[0].rows if row.split == "train"} == before


def test_a_video_is_on_one_side(tmp_path: Path) -> None:
    two_folders(tmp_path)
    for seed in range(5):
        splits: dict[str, set[str]] = {}
        manifest = read_layout(tmp_path, seed=seed)[0]
        for row in manifest.rows:
            splits.setdefault(str(row.group), set()).add(row.split)
        assert len(splits) == 8
        assert sizes(manifest) == (18, 6, 6, 0)
        assert all(len(split) == 1 for split in splits.values())
    here = Path("video9")
    assert group_of(here / "Patient_012-3.png", here) == "patient_012"
    assert group_of(here / "normal" / "Subject7" / "03.png", here) == "subject7"
    assert group_of(here / "cju0qkwl35piu.jpg", here) is None
    frames = [here / f"video1_{index}.png" for index in range(90)] + [here / f"{index}.png" for index in range(10)]
    rows = draw_split(here, frames, 0.25, 0)
    assert sum(row.split == "test" for row in rows) == 10  # not all of the one long video
    with pytest.raises(UserError, match=r"of 1 patients or videos, by their names \(case_2020, \.\.\.\)"):
        draw_split(here, [here / f"case_2020_{index}.png" for index in range(9)], 0.25, 0)


def test_patients_in_headers_are_drawn_alike_on_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(24):
        dicom(tmp_path / f"set/normal/{index:02}.dcm", np.full((8, 8), index, np.uint8), PatientID=f"P{index // 2}")
    picture(tmp_path / "set/abnormal/a.png", 0)
    splits, names = list[list[tuple[str, str]]](), set[str | None]()
    for machine in range(4):
        monkeypatch.setenv("CCD_SALT_FILE", str(tmp_path / f"salt{machine}"))
        rows = read_layout(tmp_path / "set", "two_folders")[0].rows
        splits.append([(row.path.name, row.split) for row in rows])
        names |= {row.group for row in rows if not row.label}
    assert len(names) == 4 * 12
    assert all(split == splits[0] for split in splits)
    assert len({rows[index].split for index in range(24)}) == 2


@pytest.mark.filterwarnings("ignore")
def test_held_out_images_are_of_other_videos(tmp_path: Path) -> None:
    two_folders(tmp_path)
    for seed in range(3):
        data = Folder(str(tmp_path), size=32, seed=seed, validation=0.4)
        data.setup("fit")
        train, held_out = ({row.group for row in data.datasets[split].rows} for split in ("train", "val"))
        assert held_out
        assert not train & held_out


def test_masks_among_the_images_are_no_images(tmp_path: Path) -> None:
    two_folders(tmp_path)
    picture(tmp_path / "Abnormal/masks/video0_frame0.png", 0)
    assert sizes(read_layout(tmp_path)[0]) == (*FAKES["two_folders"][1][:3], 1)


def test_attention_maps_are_all_there_or_none(tmp_path: Path) -> None:
    lag(tmp_path)
    (tmp_path / "suspicious_glaucoma/attention_map/0002.jpg").unlink()
    (flaw,) = read_layout(tmp_path)[0].flaws
    assert re.search(r"0002\.jpg: no attention map for this image", str(flaw))
    shutil.rmtree(tmp_path / "suspicious_glaucoma/attention_map")
    assert sizes(read_layout(tmp_path)[0])[3] == 0


def test_what_is_not_known_is_reported_with_what_there_is(tmp_path: Path) -> None:
    picture(tmp_path / "scans" / "a.png", 0)
    with pytest.raises(UserError) as caught:
        read_layout(tmp_path)
    assert f"{tmp_path}: no known layout; there is scans/." in str(caught.value)
    for layout in LAYOUTS:
        assert f"{layout.name:12} {layout.shape}" in str(caught.value)
    with pytest.raises(UserError, match=r"data\.layout is 'kvasir', but must be auto, .* hyper_kvasir"):
        read_layout(tmp_path, "kvasir")
    with pytest.raises(UserError, match="not of the layout authors, which is train_set"):
        read_layout(tmp_path, "authors")
    for folder in ("train_set", "test_set"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match="train_set: no images in this folder"):
        read_layout(tmp_path)


def test_damaged_packings_are_reported(tmp_path: Path) -> None:
    medianomaly(tmp_path)
    (tmp_path / "images/n3.png").unlink()
    with pytest.raises(UserError, match=r"images/n3\.png: no such file, but .*data\.json names it"):
        read_layout(tmp_path)
    for content in ("nothing", "{}", "[]", json.dumps({"train": [], "test": {}})):
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(UserError, match=r"data\.json: not \{\"train\""):
            read_layout(tmp_path)


def test_isic_s_diagnoses_are_kinds_and_only_naevi_are_normal(tmp_path: Path) -> None:
    isic2018(tmp_path)
    manifest = read_layout(tmp_path)[0]
    kinds = Counter((row.split, row.anomaly_type) for row in manifest.rows)
    assert kinds == {("train", "good"): 14, ("test", "good"): 6, ("test", "mel"): 4, ("test", "vasc"): 2}
    assert manifest.left_out == ("4 images in ISIC2018_Task3_Training_Input",)
    table = tmp_path / "ISIC2018_Task3_Test_GroundTruth/ISIC2018_Task3_Test_GroundTruth.csv"
    (tmp_path / "ISIC2018_Task3_Test_Input/ISIC_0034524.jpg").unlink()
    with pytest.raises(UserError, match=r"ISIC_0034524\.jpg: no such file, but .*Test_GroundTruth\.csv names it"):
        read_layout(tmp_path)
    for content in ("", "image,NV\n", "name,NV\nISIC_0034525,1.0\n", "image,NV\nISIC_0034525,0.0\n"):
        table.write_text(content)
        if content in ("", "image,NV\n"):  # no lines
            assert not read_layout(tmp_path)[0].select("test")
        else:
            with pytest.raises(UserError, match=r"Test_GroundTruth\.csv: not a table with the columns image"):
                read_layout(tmp_path)
    table.unlink()
    with pytest.raises(UserError, match=r"Test_GroundTruth\.csv: not a table"):
        read_layout(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_written_split_can_be_given_again(tmp_path: Path) -> None:
    root = tmp_path / "lag"
    lag(root)
    data = LAG(str(root), size=32, split_seed=3)
    data.setup("fit")
    assert data.split
    table = tmp_path / "published.csv"
    data.split.write(table)
    again, name = read_layout(root, str(table), seed=0)
    assert name == f"manifest {table}"
    assert again.rows == data.split.rows
    shutil.move(table, root / "split.csv")
    assert read_layout(root / "split.csv")[0].rows == data.split.rows
    assert read_layout(root / "split.csv", str(root / "split.csv"))[0].rows == data.split.rows
    assert sizes(read_layout(root / "split.csv", masks=False)[0])[3] == 0
    shutil.rmtree(root / "suspicious_glaucoma/attention_map")
    with pytest.raises(UserError, match=r"attention_map/0000\.jpg: no such file, but .*split\.csv names it"):
        read_layout(root / "split.csv")


def test_sizes_that_are_not_the_paper_s_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authors(tmp_path)
    message = "16 training images, 5 normal and 6 abnormal test images, where the paper has 1600, 500 and 1000"
    with pytest.warns(UserWarning, match=message):
        HyperKvasir(str(tmp_path), size=32).setup("fit")
    assert f"data: {tmp_path} (authors): 16 training images, 5 normal test images, 6 abnormal ones, 0 masks" in (
        capsys.readouterr().out
    )
    assert describe(Folder(str(tmp_path), size=32).manifest()).startswith("16 training images")


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layout", "config"),
    [
        ("hyper_kvasir", "padim_kvasir"),
        ("authors", "padim_liu"),
        ("lag", "padim_lag"),
        ("medianomaly", "padim_lag"),
        ("isic2018", "padim_folder"),
        ("two_folders", "padim_folder"),
    ],
)
def test_published_layouts_are_fitted_and_tested(
    layout: str, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = FAKES[layout]
    make(tmp_path / "set")
    small = ["--data.root=set", "--data.size=32", "--data.batch_size=8", "--data.num_workers=0", "--data.split_seed=3"]
    assert main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *small, "--model.encoder.weights=null"]) == 0
    assert main(["test"]) == 0
    run = Path("runs") / config / "latest"
    found = json.loads((run / "metrics.json").read_text())
    assert found["data"]["images"] == expected[1] + expected[2]
    assert ("pixel/auroc" in found["metrics"]) == bool(expected[3])
    written = Manifest.read(run / "manifest.csv", tmp_path / "set")
    assert sizes(written) == expected
    before = (run / "metrics.json").read_text()
    if layout in ("hyper_kvasir", "lag"):  # whose split is drawn, of images of as many groups
        assert main(["test", "--data.root=set", "--data.split_seed=0"]) == 2
        message = capsys.readouterr().err
        assert re.search(r"set/.* is a test image, but was used for training, like \d+ others", message)
        assert "--data.layout runs/" in message
    again = ["--data.root=set", "--data.split_seed=0", f"--data.layout={run / 'manifest.csv'}"]
    assert main(["test", *again]) == 0
    assert json.loads(before)["data"] == json.loads((run / "metrics.json").read_text())["data"]


def test_the_embedded_sets_need_no_recognition(folder: Path) -> None:
    data = AnomalyDataModule(str(folder), size=64)
    data.setup("test")
    assert data.split
    assert sizes(data.split) == (12, 5, 6, 6)


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_with_its_own_split_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(CONFIGS)
    lag(tmp_path / "set")
    small = ["--data.root=set", "--data.size=32", "--data.batch_size=8", "--data.num_workers=0", "--data.split_seed=3"]
    views = [
        "--data.views.size=16",
        "--data.views.patch_size=16",
        "--data.views.cutout_size=0",
        "--model.encoder.weights=null",
    ]
    words = ["fit", "--config", "configs/ccd_lag.yaml", *small, *views]
    assert main([*words, "--trainer.max_epochs=1"]) == 0
    command = "ccd fit --config neighbours_lag --data.root set --data.split_seed 3 --data.size 32"
    assert f"Next: {command}\n" in capsys.readouterr().out
    picture(tmp_path / "set/non_glaucoma/image/9999.jpg", 1)
    assert main([*words, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 2
    assert "images were added, removed or moved to the other split since the run began" in capsys.readouterr().err
    (tmp_path / "set/non_glaucoma/image/9999.jpg").unlink()
    assert main([*words, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0


def test_tables_as_people_write_them(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{index}.png", index) for index in range(3)]
    table = tmp_path / "table.csv"
    table.write_text(
        "path,split,kind\n0.png,train, Normal \n1.png , test,good\n2.png,test,polyp\n", encoding="utf-8-sig"
    )
    manifest, _ = read_layout(table)
    assert [(row.path, row.anomaly_type) for row in manifest.rows] == list(
        zip(paths, ("good", "good", "polyp"), strict=True)
    )
    for content, message in (
        ("path,split,kind\n0.png,train,good\n0.png,test,good\n", "0.png: this image is in the table twice"),
        ("path,split,kind\n0.png,train,\n", "table.csv, line 2: there is no kind"),
        ("path,split,kind\n,train,good\n", "table.csv, line 2: there is no path"),
        ("path,split,kind\n0.png,train\n", "table.csv, line 2: there is no kind"),
        ("path,split,kind\n9.png,train,good\n", "9.png: no such file, but .*table.csv names it"),
    ):
        table.write_text(content)
        with pytest.raises(UserError, match=message):
            read_layout(table)
    table.write_bytes("path,split,kind\nä.png,train,good\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"table\.csv: not in UTF-8"):
        read_layout(table)


@pytest.mark.fit
@pytest.mark.filterwarnings("ignore")
def test_from_files_through_both_stages_to_igd_s_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = FAKES["hyper_kvasir"]
    make(tmp_path / "set")
    small = ["--data.root=set", "--data.size=32", "--data.batch_size=8", "--data.num_workers=0"]
    views = ["--data.views.size=16", "--data.views.patch_size=16", "--model.encoder.weights=null"]
    once = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    for branch in ([], ["--data.views.tile=16"]):
        config = "ccd_kvasir_local" if branch else "ccd_kvasir"
        assert main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *small, *views, *branch, *once]) == 0
    scales = ["--model.global_scale.size=32", "--model.global_scale.width=8", "--model.local_scale.width=8"]
    igd = [*scales, "--model.latent_size=16"]
    assert main(["fit", "--config", str(CONFIGS / "igd_kvasir.yaml"), *small, *igd, *once]) == 0
    assert main(["test"]) == 0
    found = json.loads(Path("runs/igd_kvasir/latest/metrics.json").read_text())
    assert found["data"]["images"] == expected[1] + expected[2]
    assert 0 <= found["metrics"]["image/auroc"] <= 1
