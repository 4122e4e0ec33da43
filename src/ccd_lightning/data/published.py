"""Layouts of published data sets, each of which is converted to a manifest.

If a layout has no split, one is drawn: a fraction of the normal images is for testing, the others are for training, and
all abnormal images are for testing. The split depends only on the seed and the file names.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccd_lightning.data.layouts import normal_folder, read_images, subfolders
from ccd_lightning.data.manifest import GOOD, Flaw, Manifest, Row, Split
from ccd_lightning.data.naming import group_of, is_abnormal, is_junk, is_normal
from ccd_lightning.data.pairing import pair_masks
from ccd_lightning.data.random_split import draw_split
from ccd_lightning.data.stacks import header_groups
from ccd_lightning.data.walking import find
from ccd_lightning.errors import UserError
from ccd_lightning.reading import MAX_TABLE_BYTES, read_text

NORMAL_KVASIR = ("cecum", "ileum", "bbps-2-3")  # cleaned normal mucosa, on which the paper trains and tests

NORMAL_ISIC = "NV"  # melanocytic naevi


@dataclass(frozen=True)
class LayoutOptions:
    """Options for reading a layout.

    Attributes:
        masks: Whether to look for masks.
        seed: Seed of the split, if the layout has none.
        groups: Whether images are grouped by the patient or recording in their names.
    """

    masks: bool = True
    seed: int = 0
    groups: bool = True

    def group_of(self, path: Path, base: Path) -> str | None:
        """Like `naming.group_of`, but None if groups are disabled."""
        return group_of(path, base) if self.groups else None

    def row(self, path: Path, split: Split, base: Path, anomaly_type: str = GOOD) -> Row:
        """Returns the row of an image whose group is derived from its name."""
        return Row(path, split, anomaly_type, group=self.group_of(path, base), guessed=True)


def authors(root: Path, options: LayoutOptions) -> Manifest:
    """Reads the archives of the paper's authors: `train_set`, `test_set/normal_test`, `test_set/abnormal_test`."""
    train, normal = read_images(root / "train_set"), read_images(root / "test_set" / "normal_test")
    rows = [options.row(path, "train", root) for path in train]
    rows += [options.row(path, "test", root) for path in normal]
    abnormal, flaws = _abnormal(root, root / "test_set" / "abnormal_test", "abnormal", options)
    return Manifest(root, rows + abnormal, flaws)


def _abnormal(
    root: Path, folder: Path, anomaly_type: str, options: LayoutOptions, truth: Path | None = None, what: str = "mask"
) -> tuple[list[Row], list[Flaw]]:
    """Returns the abnormal images of a folder, with masks from `truth` or from the same folder, and the flaws."""
    images = read_images(folder)
    masks: Mapping[Path, tuple[Path, ...]] = {}
    flaws: list[Flaw] = []
    if options.masks:
        found = (find(truth, truth.parent).masks if truth.is_dir() else []) if truth else find(folder).masks
        masks, flaws = pair_masks(images, folder, found, truth or folder, what)
        if truth is None and not masks:  # masks are optional in this layout
            masks, flaws = {}, []
    groups = {path: options.group_of(path, root) for path in images}
    groups |= header_groups(images) if options.groups else {}
    rows = [Row(path, "test", anomaly_type, masks.get(path, ()), groups[path]) for path in images]
    return rows, flaws


def hyper_kvasir(root: Path, options: LayoutOptions) -> Manifest:
    """Reads the official labelled images (normal: three of their folders) and segmented images (abnormal: polyps)."""
    folder = _segmented(root)
    polyps, flaws = _abnormal(root, folder / "images", "polyp", options, folder / "masks")
    normal = [path for name in NORMAL_KVASIR for inner in find_folders(root, name) for path in find(inner).images]
    normal_rows = draw_split(root, normal, 500 / 2100, options.seed, [row.group for row in polyps], options.groups)
    return Manifest(root, normal_rows + polyps, flaws)


def lag(root: Path, options: LayoutOptions) -> Manifest:
    """Reads the LAG database, with the ophthalmologists' attention maps as masks."""
    folder = root / "suspicious_glaucoma"
    eyes, flaws = _abnormal(root, folder / "image", "glaucoma", options, folder / "attention_map", "attention map")
    normal = read_images(root / "non_glaucoma" / "image")
    split = draw_split(root, normal, 800 / 3143, options.seed, [row.group for row in eyes], options.groups)
    return Manifest(root, split + eyes, flaws)


def medianomaly(root: Path, options: LayoutOptions) -> Manifest:
    """Reads a data set packed by MedIAnomaly: `images`, and `data.json` with the names of each split and label."""
    table = root / "data.json"
    try:
        content: dict[str, Any] = json.loads(read_text(table, MAX_TABLE_BYTES))
        named = [(root / "images" / name, split, label) for split in ("train", "test") for label in ("0", "1")
                 for name in content[split].get(label, [])]  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f'{table}: not {{"train": {{"0": [names]}}, "test": {{"0": [...], "1": [...]}}}}.') from error
    missing = next((path for path, _, _ in named if not path.is_file()), None)
    if missing:
        raise UserError(f"{missing}: no such file, but {table} names it.")
    kinds = {"0": GOOD, "1": "abnormal"}
    rows = [
        options.row(path, "train" if split == "train" else "test", root, kinds[label]) for path, split, label in named
    ]
    return Manifest(root, rows)


def isic2018(root: Path, options: LayoutOptions) -> Manifest:
    """Reads task 3 of ISIC 2018 as MedIAnomaly does: naevi (NV) are normal, all other diagnoses are abnormal.

    Of the training images, only naevi are used.
    """
    naevi = (path for path, kind in _diagnoses(root, "Training") if kind == NORMAL_ISIC)
    rows = [options.row(path, "train", root) for path in naevi]
    for path, kind in _diagnoses(root, "Test"):
        anomaly_type = GOOD if kind == NORMAL_ISIC else kind.lower()
        rows.append(options.row(path, "test", root, anomaly_type))
    return Manifest(root, rows)


def _diagnoses(root: Path, split: str) -> Iterator[tuple[Path, str]]:
    """Yields the images of a split, each with its diagnosis."""
    name = f"ISIC2018_Task3_{split}"
    table = root / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv"
    try:
        for row in csv.DictReader(read_text(table, MAX_TABLE_BYTES).splitlines()):
            path = root / f"{name}_Input" / f"{row.pop('image')}.jpg"
            if not path.is_file():
                raise UserError(f"{path}: no such file, but {table} names it.")
            yield path, next(kind for kind, value in row.items() if float(value) == 1)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{table}: not a table with the columns image, MEL, NV, ... and a 1 per line.") from error


def two_folders(root: Path, options: LayoutOptions) -> Manifest:
    """Reads one folder of normal and one or more of abnormal images. A quarter of the normal images are for testing."""
    normal = normal_folder(root)
    if normal is None or not is_two_folders(root):
        raise UserError(f"{root}: expected a folder 'normal' and a folder 'abnormal'.")
    rows, flaws = list[Row](), list[Flaw]()
    for folder in subfolders(root):
        if is_abnormal(folder.name):
            own, wrong = _abnormal(root, folder, folder.name.lower(), options)
            rows += own
            flaws += wrong
    good = draw_split(root, read_images(normal), 0.25, options.seed, [row.group for row in rows], options.groups)
    return Manifest(root, good + rows, flaws)


def find_folders(root: Path, name: str) -> list[Path]:
    """Finds folders of a name, as deep as they are in the published archives."""
    found = (path for depth in range(7) for path in root.glob("*/" * depth + name) if path.is_dir())
    return sorted(path for path in found if not any(map(is_junk, path.relative_to(root).parts)))


def _segmented(root: Path) -> Path:
    found = _all_segmented(root)
    official = [path for path in found if path.name == "segmented-images"] or found
    if len(official) != 1:
        raise UserError(f"{root}: images and masks are in {', '.join(map(str, official))}; leave one of these folders.")
    return official[0]


def _all_segmented(root: Path) -> list[Path]:
    return [path.parent for path in find_folders(root, "masks") if (path.parent / "images").is_dir()]


def is_hyper_kvasir(root: Path) -> bool:
    """Returns whether the normal folders and the segmented images both exist below the root."""
    return bool(_all_segmented(root)) and all(find_folders(root, name) for name in NORMAL_KVASIR)


def is_lag(root: Path) -> bool:
    """Returns whether the folders of both classes exist."""
    return all((root / name / "image").is_dir() for name in ("non_glaucoma", "suspicious_glaucoma"))


def is_isic2018(root: Path) -> bool:
    """Returns whether the image folders of both splits exist."""
    return all((root / f"ISIC2018_Task3_{split}_Input").is_dir() for split in ("Training", "Test"))


def is_two_folders(root: Path) -> bool:
    """Returns whether there are folders of normal and of abnormal images."""
    names = [path.name for path in subfolders(root)]
    return any(map(is_normal, names)) and any(map(is_abnormal, names))
