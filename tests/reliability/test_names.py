"""Names of files that are not UTF-8, as long as a file system takes, or with signs that tables and shells use."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from ccd_lightning.data.manifest import Manifest
from ccd_lightning.errors import UserError
from ccd_lightning.writing import NAME_BYTES, beside, open_table, short_name
from tests.reliability.trials import attempt

NAMES = [
    b"pol\xffyp\xe9.png",  # Latin-1, as in archives made on Windows
    b"n" * 251 + b".png",
    ("é" * 125 + ".png").encode(),
    b"two\nlines.png",
    b"=cmd()|.png",
    b"\x1b[31ma[0] $x$ %s {} 'b'.png",
]
KIND = "pol\udcffyp $x$"
ROOT = Path("data/synthetic_colonoscopy")
SMALL = ["--data.size", "64", "--data.batch_size", "6", "--model.encoder.weights", "null"]
FIT = ["fit", "--config", "padim_folder", "--data.root", str(ROOT), *SMALL]
RUN = "runs/padim_synthetic/version_0"


@pytest.fixture
def place(workspace: Path) -> Path:
    """A workspace whose images have such names, and an abnormal kind with a name that is not UTF-8."""
    (ROOT / "test/polyp_subtle").rename(ROOT / "test" / KIND)
    (ROOT / "ground_truth/polyp_subtle").rename(ROOT / "ground_truth" / KIND)
    for folder in ("train/good", "test/good", f"test/{KIND}"):
        for image, name in zip(sorted((ROOT / folder).iterdir()), map(os.fsdecode, NAMES), strict=False):
            if (mask := ROOT / "ground_truth" / Path(folder).name / image.name).is_file():
                mask.rename(mask.with_name(name))
            image.rename(image.with_name(name))
    return workspace


@pytest.mark.fit
def test_fit_with_any_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(["data", "prepare", "--root", str(ROOT), "--output", "split.csv"], capsys, (0,))
    attempt([*FIT, "--data.layout", "split.csv", "--data.cache_dir", "cache"], capsys, (0,))
    attempt([*FIT, "--data.cache_dir", "cache"], capsys, (0,))


def test_test_and_compare_with_any_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (RUN, "runs/igd_synthetic/version_0"):
        attempt(["test", "--ckpt_path", run], capsys, (0,))
    attempt(["compare", RUN, "runs/igd_synthetic"], capsys, (0,))
    with open_table(Path(RUN, "predictions.csv"), "r") as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    assert all(map(os.path.exists, paths))
    assert sum(Path(path).name in map(os.fsdecode, NAMES) for path in paths) == 7
    assert b"pol\\udcffyp" in Path(RUN, "report.html").read_bytes()


@pytest.mark.parametrize("maps", ["npy", "tiff"])
def test_predict_with_any_names(maps: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "--ckpt_path", RUN, "--images", str(ROOT / "test"), "--output", "out", "--maps", maps]
    attempt(words, capsys, (0,))
    for folder in ("overlays", "maps"):
        assert sum(path.is_file() for path in Path("out", folder).rglob("*")) == 11
    attempt(["predict", "--ckpt_path", RUN], capsys, (0,))


def test_check_and_copy_with_any_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(["data", "check", "--root", str(ROOT)], capsys, (0,))
    words = ["data", "prepare", "--root", str(ROOT), "--output", "split.csv", "--copy", "copied", "--size", "32"]
    attempt(words, capsys, (0,))
    assert len(list(Path("copied/test", KIND).iterdir())) == 2
    attempt(["data", "check", "--root", "copied", "--layout", "split.csv"], capsys, (0,))


@pytest.mark.parametrize("option", ["--data.root", "--ckpt_path", "--config"])
def test_names_in_configs_are_utf_8(option: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "pol\udcffyp"
    for source in (ROOT, Path("runs/padim_synthetic"), Path("configs/padim_folder.yaml")):
        if {"--data.root": "data", "--ckpt_path": "runs", "--config": "configs"}[option] == source.parts[0]:
            Path(name).symlink_to(source)
    words = ["test" if option == "--ckpt_path" else "fit", "--config", "padim_folder", "--data.root", str(ROOT)]
    message = attempt(["test", option, name] if option == "--ckpt_path" else [*words, option, name], capsys)
    assert "is not in UTF-8, in which configs are written. Rename the file or folder." in message


def test_a_table_in_another_encoding_is_reported_where_its_files_are_not_there(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xe9.png")).touch()
    table = tmp_path / "split.csv"
    table.write_bytes(b"path,split,kind\n\xe9.png,train,good\n")
    assert len(Manifest.read(table).rows) == 1
    table.write_bytes(b"path,split,kind\n\xe8.png,train,good\n")
    with pytest.raises(UserError, match=r"split\.csv: not in UTF-8"):
        Manifest.read(table)


def test_long_names_stay_apart_and_keep_their_ends() -> None:
    names = [f"{'é' * 200}{number}.png" for number in range(10)]
    short = {short_name(name) for name in names}
    assert len(short) == len(names)
    assert all(len(name.encode()) <= NAME_BYTES and name.endswith(".png") for name in short)
    assert short_name("a.png") == "a.png"
    assert len(os.fsencode(beside(Path("x" * NAME_BYTES)).name)) <= NAME_BYTES
