"""The manifest: a table of all images with their split and kind."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

from ccd_lightning.data.naming import group_of
from ccd_lightning.data.row_checks import GOOD as GOOD
from ccd_lightning.data.row_checks import Split as Split
from ccd_lightning.data.row_checks import check_group, check_split, checked_kind, checked_masks, checked_path
from ccd_lightning.data.sources import size_of
from ccd_lightning.errors import UserError
from ccd_lightning.writing import atomic_write, cell, is_file_name, open_table, path_cell, short_text

COLUMNS = ("path", "split", "kind", "mask", "group")
SEVERAL = "|"  # separator of the masks of an image


@dataclass(frozen=True, slots=True)
class Row:
    """An image.

    Attributes:
        path: Path of the image: absolute, or below the manifest's root.
        split: "train" or "test". Held-out images are later drawn from "train", by the seed.
        anomaly_type: "good" for a normal image, else the kind of abnormality ("polyp", "glaucoma", ...). Other names of
            normal images, such as "Healthy", become "good".
        masks: Mask files of an abnormal image, if available. A pixel is abnormal if any of them marks it.
        group: Patient or video, if known.
        guessed: Whether the group was derived from a name. If so, the patient in the file's header replaces it.

    Raises:
        UserError: If a value has the wrong type, or the split does not exist.
    """

    path: Path
    split: Split
    anomaly_type: str = GOOD
    masks: tuple[Path, ...] = ()
    group: str | None = None
    guessed: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", checked_path(self.path))
        check_split(self.split, self.path)
        check_group(self.group, self.path)
        object.__setattr__(self, "anomaly_type", checked_kind(self.anomaly_type, self.path))
        object.__setattr__(self, "masks", checked_masks(self.masks, self.path))

    @property
    def label(self) -> int:
        """0 for a normal image, 1 for an abnormal one."""
        return int(self.anomaly_type != GOOD)


class Flaw(NamedTuple):
    """What is wrong with a file, as the end of a sentence that begins with its name."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Manifest:
    """All images of a data set with their split, kind and masks.

    Args:
        root: Folder to which relative paths in a written manifest refer.
        rows: The images, in a fixed order.
        flaws: Problems found while reading them: images and masks that do not match.
        left_out: What is in the folder but not in the manifest, as texts such as "3 images in valid".

    Raises:
        UserError: If a training image is abnormal, an image occurs twice, a kind is not a valid folder name, or a path
            is relative but not below the root.
    """

    root: Path
    rows: list[Row] = field(repr=False)
    flaws: list[Flaw] = field(default_factory=list, repr=False, compare=False)
    left_out: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if not isinstance(row, Row):
                raise UserError(f"{self.root}: its manifest contains {short_text(repr(row))}, which is no Row.")
        abnormal = next((row for row in self.select("train") if row.label), None)
        if abnormal is not None:
            raise UserError(f"{abnormal.path}: training uses normal images only; move it to the test split.")

        kinds = {row.anomaly_type: row for row in self.rows}
        wrong = next((row for kind, row in kinds.items() if not is_file_name(kind)), None)
        if wrong is not None:  # such as "../other", to which `ccd data prepare --copy` would write
            raise UserError(
                f"{wrong.path}: its kind {short_text(wrong.anomaly_type)!r} cannot be the name of a folder. Give it"
                " another one, without / and \\."
            )

        seen: set[str] = set()  # strings, whose hashes take less time and memory than those of paths
        for row in self.rows:
            if (name := str(row.path)) in seen:
                raise UserError(f"{row.path}: this image is in the table twice; leave it in one split, once.")
            seen.add(name)
            for path in (row.path, *row.masks):
                if not (path.is_absolute() or path.is_relative_to(self.root)):
                    raise UserError(
                        f"{path}: this path is relative, but not below the data set's folder {self.root}. Begin it with"
                        " this folder, such as self.root / name in a layout of your own, or make it absolute."
                    )

    def select(self, split: Split) -> list[Row]:
        """Returns the rows of one split, in order."""
        return [row for row in self.rows if row.split == split]

    def write(self, path: Path) -> None:
        """Writes the manifest as CSV. Paths below the root are written relative to it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, open_table(partial) as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in self.rows:
                masks = masks_cell(map(self._relative, row.masks))
                name, kind, group = path_cell(self._relative(row.path)), cell(row.anomaly_type), cell(row.group or "")
                writer.writerow([name, row.split, kind, masks, group])

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path.resolve())

    @classmethod
    def read(cls, path: Path, root: Path | None = None) -> Manifest:
        """Reads a manifest written by `write`. Relative paths refer to `root` (by default, the folder of the table).

        Without a group column, groups are derived from names, and replaced later if file headers name a patient.

        Raises:
            UserError: If the file, one of its columns or a value is invalid.
        """
        if not path.is_file():
            raise UserError(
                f"{path}: no such manifest. Give an existing table (.csv) with --data.layout, or leave it out."
            )
        root = root or path.parent
        try:
            try:
                return cls(root, _rows(path, root))
            except UnicodeDecodeError as error:
                rows = _rows(path, root, errors="surrogateescape")  # file names need not be UTF-8, but must exist
                if any(size_of(row.path) < 0 for row in rows):
                    raise UserError(f"{path}: not in UTF-8 ({error.reason}). Save it as CSV in UTF-8.") from error
                return cls(root, rows)
        except (OSError, csv.Error) as error:
            raise UserError(
                f"{path}: cannot be read ({error}). Write it again as CSV, or give another one with --data.layout."
            ) from error


def one_sided(manifest: Manifest) -> str:
    """Describes what a test of only normal or only abnormal images cannot measure. Empty in other cases."""
    labels = {row.label for row in manifest.select("test")}
    if len(labels) != 1:
        return ""
    missing, tells = ("normal", "false alarms") if 1 in labels else ("abnormal", "detected abnormal images")
    return (
        f"there are no {missing} test images, so `ccd test` cannot measure the AUROC and {tells}. If there are,"
        f" check the names of the folders in test: normal images are in {GOOD}, normal, healthy, ..."
    )


def _rows(path: Path, root: Path, errors: str = "strict") -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig", errors=errors) as file:  # skips the mark that Excel writes
        return list(_parse(path, root, csv.reader(file)))


def _parse(table: Path, root: Path, lines: Iterator[list[str]]) -> Iterator[Row]:
    header = [name.strip() for name in next(lines, [])]
    if any("\0" in name for name in header):  # UTF-16, as Excel writes Unicode text
        raise UserError(f"{table}: not in UTF-8. Save it as CSV in UTF-8.")
    if missing := {"path", "split", "kind"} - set(header):
        apart = " Its columns have to be separated by commas." if len(header) == 1 and ";" in header[0] else ""
        raise UserError(f"{table}: the column {sorted(missing)[0]!r} is missing; expected {', '.join(COLUMNS)}.{apart}")
    columns = [header.index(name) if name in header else len(header) for name in COLUMNS]
    empty = [""] * (len(header) + 1)  # for missing columns and short lines
    splits = {name: name for name in get_args(Split)}
    for line, values in enumerate(lines, start=2):
        if not values:
            continue
        whole = values + empty[len(values) :]
        path, split, anomaly_type, mask, group = (whole[column].strip() for column in columns)
        if split not in splits:
            raise UserError(f"{table}, line {line}: split is {split!r}, but must be 'train' or 'test'.")
        if not (path and anomaly_type):
            what = "kind" if path else "path"
            raise UserError(
                f"{table}, line {line}: there is no {what}. Give one; normal images have the kind {GOOD!r}."
            )
        anomaly_type = sys.intern(anomaly_type)
        guessed = "group" not in header
        if guessed:
            group = group_of(root / path, root) or ""
        yield Row(root / path, splits[split], anomaly_type, masks_of(mask, root), sys.intern(group) or None, guessed)


def masks_cell(names: Iterable[str]) -> str:
    """Joins the masks of an image to a cell of a table, separated by `SEVERAL`."""
    return SEVERAL.join(map(path_cell, names))


def masks_of(names: str, root: Path) -> tuple[Path, ...]:
    """Splits a cell written by `masks_cell` into paths. Relative paths refer to `root`."""
    if SEVERAL not in names or (root / names).is_file():
        return (root / names,) if names else ()
    return tuple(root / name.strip() for name in names.split(SEVERAL) if name.strip())
