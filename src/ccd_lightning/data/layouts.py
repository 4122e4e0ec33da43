"""The common folder layout, and functions shared by all layouts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ccd_lightning.data.manifest import GOOD, Flaw, Manifest, Row
from ccd_lightning.data.naming import IMAGE_WORDS, SUFFIXES, group_of, is_junk, is_mask_folder, is_normal
from ccd_lightning.data.pairing import folders_below, pair, pair_annotations, settle
from ccd_lightning.data.walking import count, count_unread, entries, find, holds_image, sort_files, walk
from ccd_lightning.errors import UserError

EXPECTED = "expected train/good, test/good, test/<kind> and, where there are masks, ground_truth/<kind>"


def scan_folder(root: Path, masks: bool = True, groups: bool = True) -> Manifest:
    """Reads the common folder layout.

    ::

        root/train/good/*.png            normal images to train on (may be missing if nothing is trained)
        root/test/good/*.png             normal images to test on
        root/test/<kind>/*.png           abnormal images, one folder for each kind
        root/ground_truth/<kind>/*.png   masks of that kind (optional)

    The folder of normal images may have any of the names in `naming.NORMAL_NAMES`, in any case, or be `train` itself.
    Images may be in subfolders. Masks may also be in a folder of masks (`naming.MASK_NAMES`) in `test` or in the folder
    of a kind, or next to their images with names such as `a_mask.png`. COCO files and YOLO labels are found in the same
    folders (`pair_annotations`). Some published sets have one more folder between a split and its kinds
    (`split_folders`).

    Args:
        root: Folder that contains `train`.
        masks: Whether to look for masks.
        groups: Whether images are grouped by the patient or recording in their names.

    Returns:
        The manifest, sorted by path. Images and masks that do not match are among its flaws.

    Raises:
        UserError: If a folder is missing or empty, or it is not clear which images are normal.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the data set's folder with --data.root DIR.")
    train, test = split_folders(root)
    if not (train.is_dir() or test.is_dir()):
        raise UserError(f"{train / GOOD}: no such folder; {EXPECTED} in {root}.")
    normal = _training_folder(train, required=not test.is_dir()) if train.is_dir() else None
    paths = read_images(normal) if normal else []
    rows = [Row(path, "train", group=group_of(path, train) if groups else None, guessed=True) for path in paths]
    if not test.is_dir():
        return Manifest(root, rows)
    kinds, beside = _test_images(test)
    paired, flaws = _test_masks(root, test, kinds, beside) if masks else ({}, [])
    for folder, images in kinds.items():
        anomaly_type = GOOD if is_normal(folder.name) else folder.name
        rows += [
            Row(path, "test", anomaly_type, paired.get(path, ()), group_of(path, folder) if groups else None, True)
            for path in images
        ]
    return Manifest(root, rows, flaws)


def split_folders(root: Path) -> tuple[Path, Path]:
    """Returns the folders that contain the kinds to train on and to test on: `train` and `test`, which need not exist.

    If one of them contains nothing but a folder named after the split or after images, which contains the kinds, that
    folder is returned instead: BMAD's liver set has `test/img/good`, its RESC `Train/train/good` and `Test/test/good`.
    """
    return _kinds_folder(root, "train"), _kinds_folder(root, "test")


def is_folders(root: Path) -> bool:
    """Returns whether there is a test split, or a training split with a folder of normal images."""
    train, test = split_folders(root)
    return test.is_dir() or any(is_normal(path.name) for path in subfolders(train))


def _kinds_folder(root: Path, split: str) -> Path:
    folder = next((root / name for name in (split, split.capitalize()) if (root / name).is_dir()), root / split)
    while len(inner := subfolders(folder)) == 1 and inner[0].name.lower() in IMAGE_WORDS | {split}:
        if not any(is_normal(path.name) for path in subfolders(inner[0])):
            break
        folder = inner[0]
    return folder


def normal_folder(folder: Path) -> Path | None:
    """Returns the subfolder of normal images, or None if there is none.

    Raises:
        UserError: If there are several.
    """
    found = [path for path in subfolders(folder) if is_normal(path.name)]
    if len(found) > 1:
        names = " and in ".join(repr(path.name) for path in found)
        raise UserError(
            f"{folder}: normal images are in {names}. Move them into one folder, or rename what is abnormal."
        )
    return found[0] if found else None


def subfolders(folder: Path) -> list[Path]:
    """Returns the direct subfolders, sorted, without system folders and folders of masks."""
    below = [path for path in entries(folder) if path.is_dir() and not is_junk(path.name)] if folder.is_dir() else []
    return [path for path in below if not is_mask_folder(path)]


def _training_folder(train: Path, required: bool) -> Path | None:
    normal, loose = normal_folder(train), list_images(train)
    if normal:
        _refuse_loose(train, loose)
        return normal
    others = [path for path in subfolders(train) if find(path).images]
    if loose and not others:
        return train
    if loose or required:
        there = f" There is {', '.join(path.name for path in others)}." if others else ""
        raise UserError(f"{train / GOOD}: no such folder; {EXPECTED} in {train.parent}.{there}")
    return None


def _refuse_loose(folder: Path, loose: list[Path]) -> None:
    """Raises an error for images next to the folders of normal and abnormal ones, as their label is unknown."""
    if loose:
        raise UserError(
            f"{folder}: {count(len(loose), 'image')} beside the folders ({loose[0].name}, ...). Move normal ones into"
            f" {folder.name}/{GOOD}, abnormal ones into test/<kind>."
        )


def _test_images(test: Path) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Returns the images of each folder of `test`, and the masks in these folders."""
    normal_folder(test)
    folders = subfolders(test)
    found = sort_files((path for folder in folders for path in walk(folder)), test)
    _refuse_loose(test, list_images(test))
    kinds: dict[Path, list[Path]] = {folder: [] for folder in folders}
    for path in sorted(found.images):
        kinds[test / path.relative_to(test).parts[0]].append(path)
    beside = {test / path.relative_to(test).parts[0] for path in found.masks}
    for folder, images in list(kinds.items()):
        if not images and folder in beside:  # a folder of masks, as its file names show
            del kinds[folder]
        elif not images:
            raise UserError(f"{folder}: no images in this folder{_instead(folder)}. Fill it or remove it.")
    return kinds, sorted(found.masks)


def _test_masks(
    root: Path, test: Path, kinds: Mapping[Path, list[Path]], inside: list[Path]
) -> tuple[dict[Path, tuple[Path, ...]], list[Flaw]]:
    """Pairs the abnormal test images with the masks in their folders and in the folders of masks next to these."""
    truth = root / "ground_truth"
    normal, abnormal = (
        {path: folders_below(path, folder) for folder, paths in kinds.items() if is_normal(folder.name) == side
         for path in paths} for side in (True, False)
    )  # fmt: skip
    pools, stray = _mask_pools(root, test, kinds, inside, {part for folders in abnormal.values() for part in folders})
    found, orphans = pair(abnormal, pools.pop(test, {}))
    outer = [root, test, *kinds]
    beside = [*outer, *(folder for folder in outer for folder in mask_folders(folder))]
    for path, files in pair_annotations(list(abnormal), beside).items():
        found[path] += files
    stray |= dict.fromkeys(pair(normal, dict.fromkeys(orphans, ()))[1], test)
    for folder, masks in pools.items():
        if not is_normal(folder.name):
            own, orphans = pair({path: abnormal[path] for path in kinds[folder]}, masks)
            stray |= dict.fromkeys(orphans, folder)
            for path, some in own.items():
                found[path] += some
    expected = {path: truth / folder.name if truth.is_dir() else folder for folder in kinds for path in kinds[folder]}
    return settle(abnormal, found, stray, expected)


def _mask_pools(
    root: Path, test: Path, kinds: Mapping[Path, list[Path]], inside: list[Path], known: set[str]
) -> tuple[dict[Path, dict[Path, tuple[str, ...]]], dict[Path, Path]]:
    """Groups masks by the folder of their kind, or `test` if it could be any, and returns those that belong to no kind.

    Args:
        root: Folder of the data set.
        test: Folder of the kinds, below the root.
        kinds: Images of each folder of `test`.
        inside: Masks in these folders.
        known: Names of subfolders in the folders of kinds.
    """
    pools, stray = defaultdict[Path, dict[Path, tuple[str, ...]]](dict), dict[Path, Path]()
    names = {folder.name.lower(): folder for folder in kinds}
    for mask in inside:
        folder = test / mask.relative_to(test).parts[0]
        pools[folder if folder in kinds else test][mask] = folders_below(mask, folder)
    above = [folder for folder in reversed(test.parents) if folder.is_relative_to(root)]
    for outer in (masks for folder in (*above, test) for masks in mask_folders(folder)):
        for mask in find(outer, outer.parent).masks:
            below = folders_below(mask, outer)
            if below[:1] == ("train",) or any(map(is_normal, below[:2])):
                continue
            below = below[below[:1] == ("test",) :]
            if not below or below[0] in known - names.keys():
                pools[test][mask] = below
            elif below[0] in names:
                pools[names[below[0]]][mask] = below[1:]
            elif names.keys().isdisjoint(folder.name.lower() for folder in subfolders(outer)):
                pools[test][mask] = below[1:]  # one folder per sort of lesion, as in "masks/1. Microaneurysms"
            else:
                stray[mask] = test / below[0]
    return pools, stray


def read_images(folder: Path) -> list[Path]:
    """Returns the images of a folder and its subfolders, sorted, without masks.

    Raises:
        UserError: If there are none.
    """
    images = find(folder).images if folder.is_dir() else []
    if not images:
        raise UserError(
            f"{folder}: no images in this folder{_instead(folder)}. Put some there, or check the data's root."
        )
    return images


def _instead(folder: Path) -> str:
    """Describes the content of a folder without images, as the continuation of "no images in this folder"."""
    read = f" ({', '.join(sorted(SUFFIXES))} are read)"
    unread = count_unread(find(folder).unread) if folder.is_dir() else ""
    return f"{read}, but {unread}" if unread else read


def list_images(folder: Path) -> list[Path]:
    """Returns the image files of a folder, sorted, without those of its subfolders. Other files are skipped."""
    return [path for path in entries(folder) if not is_junk(path.name) and holds_image(path)]


def mask_folders(folder: Path) -> list[Path]:
    """Returns the direct subfolders that contain masks, sorted."""
    return [path for path in entries(folder) if path.is_dir() and is_mask_folder(path)]
