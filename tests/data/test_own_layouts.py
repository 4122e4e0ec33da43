"""Layouts of one's own: their rows are checked like those of any other source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.manifest import GOOD, Manifest, Row, Split
from ccd_lightning.errors import UserError
from tests.data.fakes import picture, spot

PATH = Path("/set/a.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"split": "Train"}, r"/set/a\.png: its split is 'Train', but must be 'train' or 'test'"),
        ({"split": None}, r"/set/a\.png: its split is None"),
        ({"anomaly_type": None}, r"/set/a\.png: its anomaly_type is None, but must be a text"),
        ({"anomaly_type": 1}, r"/set/a\.png: its anomaly_type is 1"),
        ({"masks": Path("/set/m.png")}, r"/set/a\.png: its masks are .*/set/m\.png.*, but must be a tuple of paths"),
        ({"masks": "/set/m.png"}, r"/set/a\.png: its masks are '/set/m\.png'"),
        ({"masks": (None,)}, r"/set/a\.png: its masks are \(None,\)"),
        ({"group": 12}, r"/set/a\.png: its group is 12, but must be a text"),
        ({"path": None}, r"row of the manifest has the path None"),
        ({"path": ""}, r"row of the manifest has the path ''"),
    ],
)
def test_a_wrong_value_of_a_row_is_named(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Row(**{"path": PATH, "split": "test", **values})


def test_values_that_are_clear_are_converted() -> None:
    row = Row("/set/a.png", "test", "polyp", ["/set/m.png"])  # type: ignore[arg-type]
    assert row == Row(PATH, "test", "polyp", (Path("/set/m.png"),))
    assert Row(PATH, "test", masks=None) == Row(PATH, "test")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["Healthy", "normal", "No_Finding", "GOOD"])
def test_the_names_of_normal_images_hold_for_every_row(kind: str) -> None:
    row = Row(PATH, "train", kind)
    assert (row.anomaly_type, row.label) == (GOOD, 0)


def test_relative_paths_begin_with_the_root() -> None:
    for path in (Path("data/a.png"), Path("data/../b.png"), PATH):
        Manifest(Path("data"), [Row(path, "train")])
    with pytest.raises(UserError, match=r"a\.png: this path is relative, but not below the data set's folder data"):
        Manifest(Path("data"), [Row(Path("a.png"), "train")])
    with pytest.raises(UserError, match=r"m\.png: this path is relative"):
        Manifest(Path("data"), [Row(Path("data/a.png"), "test", "polyp", (Path("m.png"),))])


def test_a_manifest_contains_rows_only() -> None:
    with pytest.raises(UserError, match=r"/set: its manifest contains \('a\.png', 'train'\), which is no Row"):
        Manifest(Path("/set"), [("a.png", "train")])  # type: ignore[list-item]


class Flat(AnomalyDataModule):
    """Eight training images and two test images, with what a test changes."""

    change: Callable[[list[Row]], Any] = staticmethod(lambda rows: rows)

    def manifest(self, masks: bool = True) -> Manifest:
        """Returns what the change makes of the rows."""
        rows = [Row(self.root / f"{index}.png", "train", group=f"p{index}") for index in range(8)]
        rows += [Row(self.root / "8.png", "test", group="p8")]
        rows += [Row(self.root / "9.png", "test", "polyp", (self.root / "m.png",) if masks else (), "p9")]
        changed = self.change(rows)
        return Manifest(self.root, changed) if isinstance(changed, list) else changed


def flat(root: Path, change: Callable[[list[Row]], Any] = lambda rows: rows, **options: Any) -> AnomalyDataModule:
    for index in range(10):
        picture(root / f"{index}.png")
    spot(root / "m.png")
    data = Flat(str(root), size=32, **options)
    data.change = change
    return data


def missing(rows: list[Row], split: Split) -> Row:
    return Row(rows[0].path.with_name("no.png"), split)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: None, r"Flat\.manifest returned None, but must return a Manifest"),
        (tuple, r"Flat\.manifest returned \(Row\(.*, but must return a Manifest"),
        (
            lambda rows: [*rows, missing(rows, "train")],
            r"no\.png: no such file, .* as the image",
        ),
        (lambda rows: [*rows, missing(rows, "test")], r"no\.png: no such file, .* as the image"),
        (
            lambda rows: [*rows[:9], Row(rows[9].path, "test", "polyp", (rows[9].path.with_name("no.png"),))],
            r"no\.png: no such file, but .*Flat gives it as the mask of .*9\.png",
        ),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_what_a_layout_returns_is_checked_before_anything_is_read(
    change: Callable[[list[Row]], Any], expected: str, stage: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=expected):
        flat(tmp_path, change).setup(stage)


@pytest.mark.parametrize(("stage", "masks"), [("fit", 1), ("test", 1), ("predict", 0)])
def test_a_layout_of_ones_own_is_described_once(
    stage: str, masks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = flat(tmp_path)
    data.setup(stage)
    data.setup(stage)
    message = capsys.readouterr().out
    counts = f"8 training images, 1 normal test image, 1 abnormal ones, {masks} mask{'s' * (masks != 1)}"
    assert message.count(f"data: {tmp_path} (Flat): {counts}; grouped by patient: 10 groups") == 1


def test_groups_of_a_layout_of_ones_own_are_ignored_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = flat(tmp_path, groups=False)
    data.setup("test")
    assert data.split is not None
    assert {row.group for row in data.split.rows} == {None}
    assert "grouped" not in capsys.readouterr().out


def test_a_missing_test_set_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path, lambda rows: rows[:8]).setup("fit")
    assert "8 training images, no test images; grouped" in capsys.readouterr().out
