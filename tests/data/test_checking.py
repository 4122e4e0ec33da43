import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from ccd_lightning.cli import main
from ccd_lightning.data.checking import Check, check
from ccd_lightning.data.findings import by_topic
from ccd_lightning.data.images import read_image
from ccd_lightning.data.lesion_sizes import describe_lesions
from ccd_lightning.data.masks import read_mask
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.recognition import read_layout
from tests.data.fakes import FAKES, hyper_kvasir, lag, picture, spot, two_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten training images, three normal and three abnormal test images with masks."""
    for split, kind, count in (("train", "good", 10), ("test", "good", 3), ("test", "polyp", 3)):
        for index in range(count):
            picture(tmp_path / "set" / split / kind / f"{index}.png")
    for index in range(3):
        spot(tmp_path / f"set/ground_truth/polyp/{index}.png")
    return tmp_path / "set"


def checked(root: Path) -> Check:
    return check(read_layout(root)[0])


def topics(root: Path) -> dict[tuple[str, str], list[Path]]:
    return {key: [one.path for one in found] for key, found in by_topic(checked(root).findings).items()}


def test_nothing_is_wrong_with_a_sound_set(root: Path) -> None:
    assert topics(root) == {}


def damage(root: Path) -> Path:
    path = root / "test/good/1.png"
    path.write_bytes(path.read_bytes()[:400])
    return path


def float_pixels(root: Path) -> Path:
    Image.fromarray(np.arange(64, dtype=np.float32).reshape(8, 8)).save(root / "train/good/f.tif")
    return root / "train/good/f.tif"


def no_mask(root: Path) -> Path:
    (root / "ground_truth/polyp/1.png").unlink()
    return root / "test/polyp/1.png"


def no_image(root: Path) -> Path:
    (root / "test/polyp/1.png").unlink()
    return root / "ground_truth/polyp/1.png"


def wrong_mask_size(root: Path) -> Path:
    Image.new("L", (20, 32), 255).save(root / "ground_truth/polyp/1.png")
    return root / "ground_truth/polyp/1.png"


def cut_mask(root: Path) -> Path:
    path = root / "ground_truth/polyp/1.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def empty_mask(root: Path) -> Path:
    Image.new("L", (32, 32)).save(root / "ground_truth/polyp/1.png")
    return root / "ground_truth/polyp/1.png"


def grey_mask(root: Path) -> Path:
    Image.fromarray(np.linspace(0, 255, 32, dtype=np.uint8)[:, None].repeat(32, 1)).save(
        root / "ground_truth/polyp/1.png"
    )
    return root / "ground_truth/polyp/1.png"


def twice(root: Path) -> Path:
    shutil.copy(root / "train/good/2.png", root / "train/good/z.png")
    return root / "train/good/z.png"


def leak(root: Path) -> Path:
    shutil.copy(root / "train/good/2.png", root / "test/good/z.png")
    return root / "train/good/2.png"


def mirrored(root: Path) -> Path:
    path = root / "test/polyp/2.png"
    ImageOps.mirror(Image.open(root / "train/good/4.png")).save(path)
    return root / "train/good/4.png"


def turned(root: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(root / "train/good/0.png").rotate(90).save(root / "train/good/e.jpg", exif=exif)
    return root / "train/good/e.jpg"


def wide(root: Path) -> Path:
    Image.open(root / "train/good/0.png").rotate(90).resize((64, 32)).save(root / "train/good/0.png")
    return root / "train/good/0.png"


def deep_colour(root: Path) -> Path:
    values = np.asarray(Image.open(root / "train/good/0.png").rotate(180).convert("RGB")).astype(np.uint16) * 257
    tifffile.imwrite(root / "train/good/d.tif", values, photometric="rgb")
    return root / "train/good/d.tif"


def saved_as(mode: str, suffix: str = "tif") -> Callable[[Path], Path]:
    def save(root: Path) -> Path:
        path = root / f"train/good/m.{suffix}"
        image = Image.open(root / "train/good/0.png").rotate(180)
        if mode == "I;16":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
        else:
            image.convert(mode).save(path)
        return path

    return save


@pytest.mark.parametrize(
    ("spoil", "level", "topic"),
    [
        (damage, "error", "images that cannot be read"),
        (float_pixels, "note", "floating point"),
        (no_mask, "warning", "no mask"),
        (no_image, "error", "masks that do not match images"),
        (wrong_mask_size, "error", "masks that do not match images"),
        (cut_mask, "error", "masks that cannot be read"),
        (empty_mask, "warning", "empty masks"),
        (grey_mask, "warning", "grey masks"),
        (twice, "warning", "duplicate files within a split"),
        (leak, "error", "duplicates across splits"),
        (mirrored, "error", "duplicates across splits"),
        (turned, "warning", "EXIF orientation"),
        (wide, "warning", "odd shapes"),
        (deep_colour, "note", "16 bits per colour"),
        (saved_as("L"), "note", "grey"),
        (saved_as("P", "png"), "note", "palette"),
        (saved_as("CMYK"), "note", "CMYK"),
        (saved_as("RGBA", "png"), "note", "alpha"),
        (saved_as("I;16", "png"), "note", "16 bits"),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(
    spoil: Callable[[Path], Path], level: str, topic: str, root: Path
) -> None:
    path = spoil(root)
    assert topics(root) == {(level, topic): [path]}


def test_the_measured_window_serves_where_content_is_found(root: Path) -> None:
    for path in root.glob("*/*/*.png"):
        if "ground_truth" not in path.parts:
            deep = np.zeros((32, 32), np.uint16)
            deep[4:28, 4:28] = 1000 + 10 * np.asarray(Image.open(path).convert("L"), np.uint16)[4:28, 4:28]
            Image.fromarray(deep).save(path)  # 12 bits of 16
    found = check(read_layout(root)[0], preprocessing=Preprocessing(32, "auto"))
    assert not [one for one in found.findings if one.level != "note"]
    assert len(found.lesions) == 3


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (Preprocessing(32, (0.5, 0.5, 1, 1)), "no lesion is in the used part of the image (2 outside of it)."),
        (Preprocessing(32, (0, 0, 1, 0.5)), "1 of 2 lesions are outside of the used part of the image."),
        (Preprocessing((8, 32), fit="crop"), "no lesion is in the used part of the image (2 outside of it)."),
        (Preprocessing(32, (0, 0, 0.5, 1)), None),
    ],
)
def test_lesions_outside_of_the_used_part_are_counted(
    preprocessing: Preprocessing, message: str | None, root: Path
) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[2:8, 2:8] = mask[24:30, 2:8] = 255
    Image.fromarray(mask).save(root / "ground_truth/polyp/1.png")
    found = by_topic(check(read_layout(root)[0], preprocessing=preprocessing).findings)
    ours = [one for one in found.get(("warning", "lesions outside"), []) if one.path.name == "1.png"]
    assert [one.message for one in ours] == [message] * bool(message)


def without_training(root: Path) -> None:
    shutil.rmtree(root / "train")


def unknown_name(root: Path) -> None:
    (root / "train/good").rename(root / "train/Normals_2024")


def without_test(root: Path) -> None:
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "ground_truth")


def misnamed_test(root: Path) -> None:
    (root / "test").rename(root / "testing")
    shutil.rmtree(root / "ground_truth")


TRAINING, TESTING, LEFT = ("error", "no training images"), ("warning", "no test images"), ("warning", "images left out")


@pytest.mark.parametrize(
    ("spoil", "expected", "said"),
    [
        (without_training, [TRAINING], ["nothing can be fitted"]),
        (unknown_name, [TRAINING, LEFT], ["10 images in train/Normals_2024."]),
        (without_test, [TESTING], ["`ccd test` needs normal images in test/good"]),
        (misnamed_test, [TESTING, LEFT], ["6 images in testing."]),
    ],
)
def test_an_incomplete_folder_is_reported(
    spoil: Callable[[Path], None],
    expected: list[tuple[str, str]],
    said: list[str],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(root.parent)
    spoil(root)
    assert set(topics(root)) == set(expected)
    errors = expected.count(TRAINING)
    assert main(["data", "check", "--root", "set"]) == 2 * errors
    message = capsys.readouterr()
    for part in said:
        assert part in message.out
    counts = f"{errors} error{'s' * (not errors)}, {len(expected) - errors} warning"
    assert counts in (message.err if errors else message.out)
    assert ("add normal images to train on" in message.err) == bool(errors)


@pytest.mark.parametrize(
    ("own", "options", "advice"),
    [
        ((96, 96), {"size": 256}, "The images have 96 x 96 px; enlarging them does not help"),
        ((96, 96), {"size": 32}, "To see them as large as they are in the images: --data.size 96"),
        ((300, 300), {"size": 224}, "To see them as large as they are in the images: --data.size 288"),
        ((300, 300), {"size": 224, "crop": (0, 0, 0.5, 1)}, "enlarging them does not help"),
        ((300, 600), {"size": (64, 128)}, "To see them at 8 px: --data.size '[256, 512]'"),
        ((300, 600), {"size": 64, "fit": "letterbox"}, "To see them at 8 px: --data.size 256"),
        ((2000, 2000), {"size": 256}, "To see them at 8 px: --data.size 1024 --data.tiles '{side: 256}'"),
    ],
)
def test_no_size_above_that_of_the_images_is_suggested(
    own: tuple[float, float], options: dict[str, Any], advice: str
) -> None:
    assert describe_lesions([2.0] * 3, Preprocessing(**options), own).endswith(advice)


def test_one_fault_does_not_hide_another(root: Path) -> None:
    paths = [no_mask(root), damage(root), leak(root)]
    found = topics(root)
    assert {path for some in found.values() for path in some} == set(paths)
    assert checked(root).count("error") == 2


def test_the_command_writes_a_report_and_exits_with_2(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root.parent)
    assert main(["data", "check", "--root", "set"]) == 0
    assert "0 errors, 0 warnings, 0 notes: data_check/findings.csv" in capsys.readouterr().out
    leaking = mirrored(root)
    assert main(["data", "check", "--root", "set"]) == 2
    message = capsys.readouterr()
    assert "sizes: 32 x 32 (16)" in message.out
    assert (
        "set/train/good/4.png: this training image and the test image set/test/polyp/2.png look the same, if one"
        " is mirrored (thumbnails of 32 px correlate by 1.000)." in message.out
    )
    assert (
        "set: 1 error, 0 warnings, 0 notes: data_check/findings.csv, data_check/pairs.png. These errors would"
        in message.err
    )
    with (root.parent / "data_check/findings.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert Path(row["path"]).resolve() == leaking
    assert row["other"] == "set/test/polyp/2.png"
    assert list(row) == ["level", "topic", "path", "other", "message"]
    with Image.open(root.parent / "data_check/pairs.png") as sheet:
        assert sheet.size == (3 * (2 * 192 + 24), 192 + 3 * 14 + 12)


def test_a_table_is_checked_without_opening_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.png").touch()
    rows = ["path,split,kind,group", "a.png,train,good,p1", "b.png,test,good,p1", "c.png,test,polyp,p2"]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    assert main(["data", "check", "--root", "table.csv", "--table_only"]) == 2
    assert (
        "patients or videos in both splits: 1\n           a.png: this training image and the test image b.png"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "data_check/pairs.png").exists()


@pytest.mark.parametrize("name", FAKES)
def test_published_layouts_are_sound(name: str, tmp_path: Path) -> None:
    FAKES[name][0](tmp_path)
    assert {key for key in topics(tmp_path) if key[0] == "error"} == set()


def test_prepare_leaves_out_what_is_tested_on_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root.parent)
    gone = {leak(root), mirrored(root)}
    assert main(["data", "prepare", "--root", "set", "--output", "sound.csv"]) == 0
    message = capsys.readouterr().out
    assert "2 training images left out" in message
    assert "Next: ccd fit --config ccd_folder --data.root set --data.layout sound.csv" in message
    before, after = read_layout(root)[0], read_layout(root, "sound.csv")[0]
    assert {row.path for row in before.rows} - {row.path for row in after.rows} == gone
    assert main(["data", "check", "--root", "set", "--layout", "sound.csv"]) == 0
    assert main(["data", "prepare", "--root", "set", "--output", "sound.csv"]) == 2
    assert "sound.csv: this file exists already" in capsys.readouterr().err
    assert main(["data", "prepare", "--root", "set", "--output", "all.csv", "--keep_leaks"]) == 0
    assert read_layout(root, "all.csv")[0].rows == before.rows


def test_prepare_leaves_out_a_tested_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{index}.png,{'test' if index > 8 else 'train'},good,p{index // 2}" for index in range(12)]
    (tmp_path / "table.csv").write_text("\n".join(["path,split,kind,group", *lines]))
    for index in range(12):
        picture(tmp_path / f"{index}.png")
    assert main(["data", "prepare", "--root", "table.csv", "--output", "sound.csv"]) == 0
    kept = read_layout(tmp_path / "sound.csv")[0]
    assert [row.path.stem for row in kept.select("train")] == [str(index) for index in range(8)]
    assert len(kept.select("test")) == 3


def test_prepare_writes_images_at_working_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    hyper_kvasir(tmp_path / "raw")
    words = [
        "--root",
        "raw",
        "--copy",
        "small",
        "--size",
        "16",
        "--crop",
        "0.25",
        "0",
        "1",
        "1",
        "--output",
        "small.csv",
    ]
    assert main(["data", "prepare", *words]) == 0
    assert "--data.root small --data.layout small.csv" in capsys.readouterr().out
    before, after = read_layout(tmp_path / "raw")[0].rows, read_layout(tmp_path / "small", "small.csv")[0].rows
    assert sorted(after, key=lambda row: row.path) == sorted(
        read_layout(tmp_path / "small")[0].rows, key=lambda row: row.path
    )
    assert [(row.split, row.anomaly_type, row.group) for row in before] == [
        (row.split, row.anomaly_type, row.group) for row in after
    ]
    preprocessing = Preprocessing(16, (0.25, 0, 1, 1))
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(read_image(old.path, preprocessing), np.asarray(Image.open(new.path)))
        if old.masks and new.masks:
            assert np.array_equal(
                read_mask(old.masks, old.path, preprocessing), read_mask(new.masks, new.path, Preprocessing(16))
            )
    assert main(["data", "prepare", "--root", "raw", "--copy", "small", "--output", "other.csv"]) == 2
    assert "small: this folder exists already" in capsys.readouterr().err


def test_list_names_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lag(tmp_path / "lag")
    two_folders(tmp_path / "liu")
    (tmp_path / "hyper_kvasir").mkdir()
    assert main(["data", "list", "--root", str(tmp_path)]) == 0
    message = capsys.readouterr().out
    assert f"{tmp_path}/lag: 15 training images, 5 normal test images, 6 abnormal ones, 6 masks (lag)" in message
    assert "\n  --config ccd_lag, padim_lag or igd_lag\n" in message
    assert f"{tmp_path}/liu: 18 training images" in message
    assert f"{tmp_path}/hyper_kvasir: no known layout; there is nothing." in message
    assert f"{tmp_path}/synthetic_colonoscopy: not found\n" in message
