"""What a table or a layout of one's own leaves out is counted, cheaply."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.cli import main
from ccd_lightning.data import listing
from ccd_lightning.data.datamodule import AnomalyDataModule
from ccd_lightning.data.datasets import Folder
from ccd_lightning.data.description import describe
from ccd_lightning.data.listing import Listing
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.data.recognition import read_layout
from tests.data.fakes import picture, spot


def touch(root: Path, *names: str) -> list[Path]:
    """Creates empty files, and returns their paths."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


def table_of(root: Path, masks: str = "marks/9.png") -> Path:
    """Ten images in `scans`, of which a table names eight; a mask; and two images in another folder."""
    for index in range(10):
        picture(root / f"scans/{index}.png")
    spot(root / "marks/9.png")
    touch(root, "valid/0.png", "valid/1.jpg", "scans/notes.txt", "scans/.hidden.png", "masks/1.png")
    rows = [[f"scans/{index}.png", "train", "good", ""] for index in range(6)]
    rows += [["scans/8.png", "test", "good", ""], ["scans/9.png", "test", "polyp", masks]]
    with (root / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "split", "kind", "mask"], *rows])
    return root / "table.csv"


def test_image_files_that_no_row_names_are_counted(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    manifest, _ = read_layout(tmp_path, str(table))
    assert manifest.left_out == ("4 image files in no row",)
    assert describe(manifest).endswith("1 mask; left out: 4 image files in no row")


def test_beside_a_table_only_the_folders_of_its_images_are_searched(tmp_path: Path) -> None:
    table = table_of(tmp_path)  # the folder may also hold other things, such as runs with figures
    assert read_layout(table)[0].left_out == ("2 image files in no row",)


@pytest.mark.parametrize("options", [{"masks": False}, {"groups": False}])
def test_masks_count_as_named_even_if_they_are_not_read(options: dict[str, Any], tmp_path: Path) -> None:
    assert read_layout(table_of(tmp_path), **options)[0].left_out == ("2 image files in no row",)
    missing = table_of(tmp_path, masks="marks/no.png")
    if "masks" in options:
        assert read_layout(missing, **options)[0].left_out == ("3 image files in no row",)


def test_the_first_line_of_a_fit_and_of_a_check_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(tmp_path)
    Folder(str(table), size=32).setup("fit")
    assert capsys.readouterr().out.startswith(f"data: {table} (manifest {table}): 6 training images, ")
    assert main(["data", "check", "--root", str(table), "--table_only", "--output", str(tmp_path / "check")]) == 0
    message = capsys.readouterr().out
    assert "left out: 2 image files in no row\n" in message
    assert "0 errors, 0 warnings" in message  # a table may leave out what it likes


def test_complete_tables_and_images_elsewhere_are_not_mentioned(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a/0.png", "a/1.png", "b/0.png")
    files = Listing()
    assert list(files.missing(paths)) == []
    assert files.unnamed_files(tmp_path) == ()
    touch(tmp_path, "elsewhere/0.png")
    assert files.unnamed_files(tmp_path / "elsewhere") == ()
    assert files.unnamed_files(tmp_path) == ("1 image file in no row",)


def test_every_page_names_its_file_and_links_are_resolved(tmp_path: Path) -> None:
    paths = touch(tmp_path, "real/0.png", "real/1.png")
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files = Listing()
    assert not list(files.missing([tmp_path / "link/0.png", tmp_path / "real/0.png", tmp_path / "x/../real/0.png"]))
    assert files.unnamed_files(tmp_path / "link") == files.unnamed_files(tmp_path) == ("1 image file in no row",)
    assert list(files.missing([*paths, tmp_path / "real/2.png", tmp_path / "no/0.png"])) == [
        tmp_path / "real/2.png",
        tmp_path / "no/0.png",
    ]


def test_a_folder_with_far_more_files_is_not_one_of_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Listing()
    list(files.missing(touch(tmp_path, "a/0.png")))
    touch(tmp_path, *(f"home/{index}/{index}.png" for index in range(5)))
    assert files.unnamed_files(tmp_path) == ("5 image files in no row",)
    monkeypatch.setattr(listing, "MAX_OTHERS", 8)
    assert files.unnamed_files(tmp_path) == ()


def test_only_what_names_files_is_compared_with_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    usual = listing.Listing.missing

    def missing(self: Listing, paths: Iterable[Path]) -> Iterator[Path]:
        asked.append("")
        return usual(self, paths)

    monkeypatch.setattr(listing.Listing, "missing", missing)
    for index in range(6):
        picture(tmp_path / f"train/good/{index}.png")
    assert len(Folder(str(tmp_path)).checked_manifest().rows) == 6
    assert asked == []  # a known layout has found its files in their folders
    Folder(str(table_of(tmp_path))).checked_manifest()
    assert asked == [""]


class Own(AnomalyDataModule):
    """The first images of a folder."""

    left_out: tuple[str, ...] = ()

    def manifest(self, masks: bool = True) -> Manifest:
        rows: list[Any] = [Row(self.root / f"scans/{index}.png", "train") for index in range(6)]
        own_mask = (self.root / "marks/9.png",) if masks else ()
        return Manifest(
            self.root, [*rows, Row(self.root / "scans/9.png", "test", "polyp", own_mask)], [], self.left_out
        )


def test_layouts_of_ones_own_are_counted_too(tmp_path: Path) -> None:
    table_of(tmp_path)
    data = Own(str(tmp_path))
    assert data.checked_manifest().left_out == ("5 image files in no row",)
    assert data.checked_manifest(masks=False).left_out == ()  # it is not known which files are masks
    data.left_out = ("3 images without a diagnosis",)
    assert data.checked_manifest().left_out == ("3 images without a diagnosis",)
