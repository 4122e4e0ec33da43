"""The split table: which image is what, and in which split."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ccd_lightning.errors import UserError

Split = Literal["train", "test"]
GOOD = "good"
NORMAL_NAMES = ("normal", GOOD, "healthy", "negative")  # what normal images are called in tables and folders
COLUMNS = ("path", "split", "kind", "mask", "group")


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        path: The image file.
        split: "train" or "test"; held-out validation images are drawn from "train" later, by seed.
        kind: "good" for a normal image, else the kind of abnormality ("polyp", "glaucoma", ...).
        mask: The ground-truth mask, for abnormal images that have one.
        group: Patient or video, where known.
    """

    path: Path
    split: Split
    kind: str = GOOD
    mask: Path | None = None
    group: str | None = None

    @property
    def label(self) -> int:
        """0 for a normal image, 1 for an abnormal one."""
        return int(self.kind != GOOD)


@dataclass(frozen=True)
class Manifest:
    """All images of a data set with their split, kind and mask.

    Args:
        root: The folder that relative paths of a written manifest refer to.
        rows: The images, in a fixed order.

    Raises:
        UserError: If there is an abnormal image among the training images, or one stands in the table twice.
    """

    root: Path
    rows: list[Row] = field(repr=False)

    def __post_init__(self) -> None:
        abnormal = next((row for row in self.select("train") if row.label), None)
        if abnormal is not None:
            raise UserError(f"{abnormal.path}: training uses normal images only; move it to the test split.")

        seen: set[Path] = set()
        for row in self.rows:
            if row.path in seen:
                raise UserError(f"{row.path}: this image is in the table twice; leave it in one split, once.")
            seen.add(row.path)

    def select(self, split: Split) -> list[Row]:
        """The rows of one split, in order."""
        return [row for row in self.rows if row.split == split]

    def write(self, path: Path) -> None:
        """Writes the table as CSV; paths below the root become relative to it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in self.rows:
                mask = self._relative(row.mask) if row.mask else ""
                writer.writerow([self._relative(row.path), row.split, row.kind, mask, row.group or ""])

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path.resolve())

    @classmethod
    def read(cls, path: Path, root: Path | None = None) -> Manifest:
        """Reads a table that `write` wrote; relative paths refer to `root` (by default, the table's folder).

        Raises:
            UserError: If the file, one of its columns or a value is not what it should be.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such manifest.")
        root = root or path.parent
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:  # as Excel writes it too
                reader = csv.DictReader(file)
                missing = {"path", "split", "kind"} - set(reader.fieldnames or ())
                if missing:
                    expected = ", ".join(COLUMNS)
                    raise UserError(f"{path}: the column {sorted(missing)[0]!r} is missing; expected {expected}.")
                return cls(root, list(_parse(path, root, reader)))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not in UTF-8 ({error.reason}). Save it as CSV in UTF-8.") from error


def _parse(table: Path, root: Path, records: Iterable[dict[str, str]]) -> Iterable[Row]:
    splits = {name: name for name in get_args(Split)}
    for line, record in enumerate(records, start=2):
        values = {name: (record.get(name) or "").strip() for name in COLUMNS}
        split: Split | None = splits.get(values["split"])
        if split is None:
            raise UserError(f"{table}, line {line}: split is {values['split']!r}, but must be 'train' or 'test'.")
        for name in ("path", "kind"):
            if not values[name]:
                raise UserError(f"{table}, line {line}: there is no {name}; normal images have the kind {GOOD!r}.")
        kind = GOOD if values["kind"].lower() in NORMAL_NAMES else values["kind"]
        mask = root / values["mask"] if values["mask"] else None
        yield Row(root / values["path"], split, kind, mask, values["group"] or None)
