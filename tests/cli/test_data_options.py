"""Options of `ccd data`: data modules of one's own as layouts, and the names that the options have in a fit."""

from pathlib import Path

import pytest

from ccd_lightning.cli import main
from tests.data.fakes import picture

MODULE = """
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.manifest import Manifest, Row


class Numbers(AnomalyDataModule):
    part = "train"

    def manifest(self, masks=True):
        files = sorted(self.root.glob("*.png"))
        rows = [Row(file, self.part, group=f"p{number}") for number, file in enumerate(files[:-2])]
        rows += [Row(files[-2], "test", "Healthy"), Row(files[-1], "test", "polyp")]
        return Manifest(self.root, rows)


class Slip(Numbers):
    part = "Train"


class Rows(Numbers):
    def manifest(self, masks=True):
        return super().manifest(masks).rows


class Tables(Numbers):
    def __init__(self, root, table, **kwargs):
        super().__init__(root, **kwargs)


class Fixed(Numbers):
    def __init__(self, root):
        super().__init__(root)


class Plain:
    pass
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_numbers.py").write_text(MODULE)
    for index in range(6):
        picture(tmp_path / f"set/{index}.png")


@pytest.mark.parametrize("options", [["--root", "set", "--layout"], ["--data.root", "set", "--data.layout"]])
@pytest.mark.parametrize("name", ["Numbers", "Fixed"])
def test_a_layout_of_ones_own_is_checked_before_a_fit(
    name: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", *options, f"own_numbers.{name}"]) == 0
    message = capsys.readouterr().out
    assert f"set ({name}): 4 training images, 1 normal test image, 1 abnormal ones, 0 masks; grouped by" in message
    assert "0 errors, 0 warnings" in message


def test_options_of_the_layout_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--root", "set", "--layout", "own_numbers.Numbers", "--no_groups"]) == 0
    assert "grouped" not in capsys.readouterr().out
    assert main(["data", "prepare", "--root", "set", "--layout", "own_numbers.Numbers", "--output", "split.csv"]) == 0
    assert main(["data", "check", "--root", "set", "--layout", "split.csv"]) == 0
    assert "set (manifest split.csv): 4 training images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("own_numbers.Slip", "set/0.png: its split is 'Train', but must be 'train' or 'test'."),
        ("own_numbers.Rows", "own_numbers.Rows.manifest returned [Row("),
        ("own_numbers.Plain", "--layout is own_numbers.Plain, which is no subclass of AnomalyDataModule"),
        ("own_numbers.Nothing", "--layout: own_numbers has no class Nothing; it has Fixed, Numbers, "),
        ("own_numbers.Tables", "--layout own_numbers.Tables: the class cannot be called with root alone ("),
        ("nowhere.Class", "--layout: there is no module nowhere. Add the folder that contains it to PYTHONPATH"),
        ("folder", "data.layout is 'folder', but must be auto, a manifest (.csv) or one of folders"),
    ],
)
def test_a_layout_that_cannot_be_used_is_named(layout: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--root", "set", "--layout", layout]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message


def test_the_folder_of_a_table_is_named_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text("path,split,kind\nno.png,train,good\n")
    assert main(["data", "check", "--root", "table.csv"]) == 2
    assert f"Give paths relative to the table's folder ({tmp_path}), or absolute ones." in capsys.readouterr().err
    assert main(["data", "check", "--root", "set", "--layout", "table.csv"]) == 2
    assert f"Give paths relative to the data's root ({tmp_path / 'set'}), or absolute ones." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--layuot", "ccd data check: there is no option --layuot; did you mean --layout?"),
        ("--dir", "ccd data check: there is no option --dir; did you mean --root?"),
        ("--data.image_size", "ccd data check: there is no option --data.image_size; did you mean --size?"),
        ("--zzz", "ccd data check: there is no option --zzz. See `ccd data check --help`."),
    ],
)
def test_similar_options_are_suggested(option: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--root", "set", option, "1"]) == 2
    assert expected in capsys.readouterr().err


def test_a_required_option_has_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check"]) == 2
    assert "arguments are required: --root." in capsys.readouterr().err
