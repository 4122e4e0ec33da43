"""The layouts in which published data sets come, each turned into a manifest.

Where a layout names no split, one is drawn: test images are a share of the normal ones, the rest is trained on, and all
abnormal ones are tested on. What is drawn depends on the seed and the files' names alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ccd_lightning.data.layouts import list_images, pair_masks
from ccd_lightning.data.manifest import GOOD, NORMAL_NAMES, Flaw, Manifest, Row
from ccd_lightning.errors import UserError

NORMAL_KVASIR = ("cecum", "ileum", "bbps-2-3")  # normal mucosa, cleaned: what the paper trains and tests on
ABNORMAL_NAMES = ("abnormal", "anomaly", "anomalous", "disease", "diseased", "bad", "positive")
MASKS = ("masks", "mask", "ground_truth", "labels", "label", "attention_map")
GROUP = re.compile(r"(?:patient|subject|case|video|vid|seq|pat|sub)[-_ ]?\d+", re.IGNORECASE)


def group_of(path: Path, base: Path) -> str | None:
    """The patient or video that a file's name, or that of a folder below `base`, begins with, such as "patient012"."""
    for name in (
        path.stem,
        *(folder.name for folder in path.parents if folder.is_relative_to(base) and folder != base),
    ):
        if found := GROUP.match(name):
            return found[0].lower()
    return None


def draw_split(
    base: Path, paths: Iterable[Path], share: float, seed: int, tested: Iterable[str | None] = ()
) -> list[Row]:
    """Divides normal images into training and test; images of one patient or video stay together.

    Each group is ranked by a digest of its name and the seed, so that another file more or less changes little.

    Args:
        base: The folder below which folders may be named after patients or videos.
        paths: The images.
        share: Of the images to test on, in (0, 1).
        seed: Decides which.
        tested: Groups that are tested on in any case, because there are abnormal images of theirs.

    Raises:
        UserError: If all images are of one patient or video.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(group_of(path, base) or f"{path.parent.name}/{path.name}", []).append(path)
    ranked = sorted(groups, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    chosen = {name for name in tested if name in groups}
    count, wanted = sum(len(groups[name]) for name in chosen), round(share * sum(map(len, groups.values())))
    for name in ranked:
        if name not in chosen and count + len(groups[name]) <= wanted:
            chosen.add(name)
            count += len(groups[name])
    if len(chosen) == len(groups) or (wanted and not chosen):
        raise UserError(
            f"{base}: its normal images are of {len(groups)} patients or videos, by their names ({ranked[0]}, ...),"
            " which cannot be divided into training and test. Give the split as a manifest: --data.layout TABLE.csv"
        )
    return [
        Row(path, "test" if name in chosen else "train", group=group_of(path, base))
        for name in sorted(groups)
        for path in sorted(groups[name])
    ]


def authors(root: Path, masks: bool, seed: int) -> Manifest:
    """The archives of the paper's authors: `train_set`, `test_set/normal_test`, `test_set/abnormal_test`."""
    train, normal = images_below(root / "train_set"), images_below(root / "test_set" / "normal_test")
    abnormal = images_below(root / "test_set" / "abnormal_test")
    rows = [Row(path, "train", group=group_of(path, root)) for path in train]
    rows += [Row(path, "test", group=group_of(path, root)) for path in normal]
    return Manifest(root, rows + _abnormal(root, abnormal, "abnormal"))


def _abnormal(root: Path, paths: Iterable[Path], kind: str, masks: Mapping[Path, Path] | None = None) -> list[Row]:
    return [Row(path, "test", kind, (masks or {}).get(path), group_of(path, root)) for path in paths]


def hyper_kvasir(root: Path, masks: bool, seed: int) -> Manifest:
    """The official labelled images (normal: three of their folders) and segmented images (abnormal: polyps)."""
    folder = _segmented(root)
    images = images_below(folder / "images")
    paired, flaws = pair_masks(images, folder / "masks") if masks else ({}, [])
    polyps = _abnormal(root, images, "polyp", paired)
    normal = [path for name in NORMAL_KVASIR for place in find_folders(root, name) for path in list_images(place)]
    normal_rows = draw_split(root, normal, 500 / 2100, seed, [row.group for row in polyps])
    return Manifest(root, normal_rows + polyps, flaws)


def lag(root: Path, masks: bool, seed: int) -> Manifest:
    """The LAG database; the ophthalmologists' attention maps are its masks."""
    folder = root / "suspicious_glaucoma"
    images = images_below(folder / "image")
    attention = folder / "attention_map"
    maps = {path.stem: path for path in list_images(attention)} if masks and attention.is_dir() else {}
    told = f"no attention map for this image in {attention}. Add it, or remove that folder."
    flaws = [Flaw(path, told) for path in images if maps and path.stem not in maps]
    eyes = _abnormal(root, images, "glaucoma", {path: maps[path.stem] for path in images if path.stem in maps})
    normal = images_below(root / "non_glaucoma" / "image")
    return Manifest(root, draw_split(root, normal, 800 / 3143, seed, [row.group for row in eyes]) + eyes, flaws)


def medianomaly(root: Path, masks: bool, seed: int) -> Manifest:
    """MedIAnomaly's packing: `images` and `data.json` with the names of each split and label."""
    table = root / "data.json"
    try:
        content: dict[str, Any] = json.loads(table.read_text(encoding="utf-8-sig"))
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
    rows = _abnormal(root, images_below(abnormal), abnormal.name.lower())
    return Manifest(root, draw_split(root, images_below(normal), 0.25, seed, [row.group for row in rows]) + rows)


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, sorted; those of masks are passed over.

    Raises:
        UserError: If there are none.
    """
    below = [folder, *(path for path in folder.rglob("*") if path.is_dir())] if folder.is_dir() else []
    kept = [one for one in below if not any(is_junk(part) or part in MASKS for part in one.relative_to(folder).parts)]
    images = sorted(path for one in kept for path in list_images(one))
    if not images:
        raise UserError(f"{folder}: no images in this folder.")
    return images


def is_junk(name: str) -> bool:
    """Whether a file or folder is one that systems leave beside the data."""
    return name.startswith(".") or name == "__MACOSX"


def find_folders(root: Path, name: str) -> list[Path]:
    """Folders of a name, as deep as the published archives have them."""
    found = (path for depth in range(7) for path in root.glob("*/" * depth + name) if path.is_dir())
    return sorted(path for path in found if not any(map(is_junk, path.relative_to(root).parts)))


def named_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The subfolder whose name is one of some, whatever its case; None if there is not exactly one."""
    found = [path for path in root.iterdir() if path.is_dir() and path.name.lower() in names]
    return found[0] if len(found) == 1 else None


def _segmented(root: Path) -> Path:
    found = _all_segmented(root)
    official = [path for path in found if path.name == "segmented-images"] or found
    if len(official) != 1:
        raise UserError(f"{root}: images and masks are in {', '.join(map(str, official))}; leave one of these folders.")
    return official[0]


def _all_segmented(root: Path) -> list[Path]:
    return [path.parent for path in find_folders(root, "masks") if (path.parent / "images").is_dir()]


def is_hyper_kvasir(root: Path) -> bool:
    """Whether the normal folders and the segmented images are both somewhere below."""
    return bool(_all_segmented(root)) and all(find_folders(root, name) for name in NORMAL_KVASIR)


def is_lag(root: Path) -> bool:
    """Whether both classes are there."""
    return all((root / name / "image").is_dir() for name in ("non_glaucoma", "suspicious_glaucoma"))


def is_two_folders(root: Path) -> bool:
    """Whether there is one folder of each."""
    return all(named_folder(root, names) for names in (NORMAL_NAMES, ABNORMAL_NAMES))
