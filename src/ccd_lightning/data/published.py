"""The layouts in which published data sets come, each turned into a manifest.

Where a layout names no split, one is drawn: test images are a share of the normal ones, the rest is trained on, and all
abnormal ones are tested on. What is drawn depends on the seed and the files' names alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ccd_lightning.data.layouts import list_images, pair_masks
from ccd_lightning.data.manifest import GOOD, Manifest, Row
from ccd_lightning.errors import UserError

NORMAL_KVASIR = ("cecum", "ileum", "bbps-2-3")  # normal mucosa, cleaned: what the paper trains and tests on
NORMAL_NAMES = ("normal", "good", "healthy", "negative")
ABNORMAL_NAMES = ("abnormal", "anomaly", "anomalous", "disease", "diseased", "bad", "positive")
GROUP = re.compile(r"(?:patient|subject|case|video|vid|seq|pat|sub)[-_ ]?\d+", re.IGNORECASE)


def group_of(path: Path) -> str | None:
    """The patient or video that a file's name begins with, such as "patient012" or "video_3"; None without."""
    found = GROUP.match(path.stem)
    return found[0].lower() if found else None


def draw_split(paths: Iterable[Path], share: float, seed: int) -> list[Row]:
    """Divides normal images into training and test; images of one patient or video stay together.

    Args:
        paths: The images.
        share: Of the images to test on, in (0, 1).
        seed: Decides which.
    """
    groups: dict[str, list[Path]] = {}
    for path in sorted(paths):
        groups.setdefault(group_of(path) or str(path), []).append(path)
    names = list(groups)
    total, tested = sum(map(len, groups.values())), set[str]()
    wanted, count = round(share * total), 0
    for index in np.random.default_rng(seed).permutation(len(names)).tolist():
        if count < wanted:
            tested.add(names[index])
            count += len(groups[names[index]])
    return [
        Row(path, "test" if name in tested else "train", group=group_of(path))
        for name, members in groups.items()
        for path in members
    ]


def authors(root: Path, masks: bool, seed: int) -> Manifest:
    """The archives of the paper's authors: `train_set`, `test_set/normal_test`, `test_set/abnormal_test`."""
    train, normal = images_below(root / "train_set"), images_below(root / "test_set" / "normal_test")
    abnormal = images_below(root / "test_set" / "abnormal_test")
    rows = [Row(path, "train", group=group_of(path)) for path in train]
    rows += [Row(path, "test", group=group_of(path)) for path in normal]
    return Manifest(root, rows + [Row(path, "test", "abnormal", group=group_of(path)) for path in abnormal])


def hyper_kvasir(root: Path, masks: bool, seed: int) -> Manifest:
    """The official labelled images (normal: three of their folders) and segmented images (abnormal: polyps)."""
    normal = [path for name in NORMAL_KVASIR for folder in find_folders(root, name) for path in list_images(folder)]
    rows = draw_split(normal, 500 / 2100, seed)
    for folder in _segmented(root):
        images = list_images(folder / "images")
        found = pair_masks(images, folder / "masks") if masks else {}
        rows += [Row(path, "test", "polyp", found.get(path)) for path in images]
    return Manifest(root, rows)


def lag(root: Path, masks: bool, seed: int) -> Manifest:
    """The LAG database; the ophthalmologists' attention maps are its masks, brighter than half being abnormal."""
    rows = draw_split(list_images(root / "non_glaucoma" / "image"), 800 / 3143, seed)
    folder = root / "suspicious_glaucoma"
    maps = {path.stem: path for path in list_images(folder / "attention_map")} if masks else {}
    images = list_images(folder / "image")
    return Manifest(root, rows + [Row(path, "test", "glaucoma", maps.get(path.stem)) for path in images])


def medianomaly(root: Path, masks: bool, seed: int) -> Manifest:
    """MedIAnomaly's packing: `images` and `data.json` with the names of each split and label."""
    table = root / "data.json"
    try:
        content: dict[str, Any] = json.loads(table.read_text())
        named = [(root / "images" / name, split, label) for split in ("train", "test") for label in ("0", "1")
                 for name in content[split].get(label, [])]  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f'{table}: not {{"train": {{"0": [names]}}, "test": {{"0": [...], "1": [...]}}}}.') from error
    missing = next((path for path, _, _ in named if not path.is_file()), None)
    if missing:
        raise UserError(f"{missing}: no such file, but {table} names it.")
    kinds = {"0": GOOD, "1": "abnormal"}
    rows = [Row(path, "train" if split == "train" else "test", kinds[label]) for path, split, label in named]
    return Manifest(root, rows)


def two_folders(root: Path, masks: bool, seed: int) -> Manifest:
    """One folder of normal images and one of abnormal ones; a quarter of the normal ones are tested on."""
    normal, abnormal = (named_folder(root, names) for names in (NORMAL_NAMES, ABNORMAL_NAMES))
    if normal is None or abnormal is None:
        raise UserError(f"{root}: expected a folder 'normal' and a folder 'abnormal'.")
    rows = draw_split(images_below(normal), 0.25, seed)
    return Manifest(root, rows + [Row(path, "test", abnormal.name.lower()) for path in images_below(abnormal)])


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, sorted.

    Raises:
        UserError: If there are none.
    """
    below = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())] if folder.is_dir() else []
    images = sorted(path for one in below for path in list_images(one))
    if not images:
        raise UserError(f"{folder}: no images in this folder.")
    return images


def find_folders(root: Path, name: str) -> list[Path]:
    """Folders of a name, as deep as the published archives have them."""
    return sorted(path for depth in range(7) for path in root.glob("*/" * depth + name) if path.is_dir())


def named_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The subfolder whose name is one of some, whatever its case; None if there is not exactly one."""
    found = [path for path in root.iterdir() if path.is_dir() and path.name.lower() in names]
    return found[0] if len(found) == 1 else None


def _segmented(root: Path) -> list[Path]:
    return [path.parent for path in find_folders(root, "masks") if (path.parent / "images").is_dir()]


def is_hyper_kvasir(root: Path) -> bool:
    """Whether the normal folders and the segmented images are both somewhere below."""
    return bool(_segmented(root)) and all(find_folders(root, name) for name in NORMAL_KVASIR)


def is_lag(root: Path) -> bool:
    """Whether both classes are there."""
    return all((root / name / "image").is_dir() for name in ("non_glaucoma", "suspicious_glaucoma"))


def is_two_folders(root: Path) -> bool:
    """Whether there is one folder of each."""
    return all(named_folder(root, names) for names in (NORMAL_NAMES, ABNORMAL_NAMES))
