"""Which mask belongs to which image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

from ccd_lightning.data.naming import IMAGE_WORDS, MASK_NAMES, image_stem, is_mask_folder

# Words in which the names of an image and of its mask may differ: BraTS has ..._flair_60 and ..._seg_60.
_DIFFER = MASK_NAMES | IMAGE_WORDS | {"flair", "t1", "t2", "t1ce", "t1c", "orig", "original", "mri", "ct"}


Folders = Mapping[Path, tuple[str, ...]]  # files, each with the folders that it is compared by
Key = Callable[[Path, tuple[str, ...]], Hashable]


def folders_below(path: Path, base: Path) -> tuple[str, ...]:
    """The folders of a file below another, in lower case, without those that are called after images or masks."""
    folders = [folder for folder in reversed(path.parents) if folder != base and folder.is_relative_to(base)]
    names = (folder.name.lower() for folder in folders if not is_mask_folder(folder))
    return tuple(name for name in names if name not in IMAGE_WORDS)


def pair(images: Folders, masks: Folders) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Finds each mask's image.

    In falling order: the same folders and the same name, then with "_mask" and the like left out; the same without
    regard to folders; and the same without the words that tell an image from its mask. A rule decides where it leads
    to one image.

    Args:
        images: The images.
        masks: The masks.

    Returns:
        All masks of each image that has some, and the masks without an image.
    """
    found, orphans = defaultdict[Path, list[Path]](list), list[Path]()
    if not masks:
        return found, orphans
    rules = [(_index(images, image_key), mask_key) for image_key, mask_key in _RULES]
    for mask, folders in masks.items():
        for index, key in rules:
            candidates = index.get(key(mask, folders), [])
            if len(candidates) > 1:
                candidates = [one for one in candidates if one.suffix.lower() == mask.suffix.lower()]
            if len(candidates) == 1:
                found[candidates[0]].append(mask)
                break
        else:
            orphans.append(mask)
    return found, orphans


def _index(images: Folders, key: Key) -> dict[Hashable, list[Path]]:
    index = defaultdict[Hashable, list[Path]](list)
    for path, folders in images.items():
        index[key(path, folders)].append(path)
    return index


def _stem(path: Path, _: tuple[str, ...] = ()) -> str:
    return path.stem.lower()


def _mask_stem(path: Path, _: tuple[str, ...] = ()) -> str:
    return (image_stem(path.stem) or path.stem).lower()


def _reduced(path: Path, _: tuple[str, ...] = ()) -> str:
    return "_".join(word for word in re.split(r"[-_ .]+", path.stem.lower()) if word not in _DIFFER)


_RULES: tuple[tuple[Key, Key], ...] = (
    (lambda path, folders: (folders, _stem(path)), lambda path, folders: (folders, _stem(path))),
    (lambda path, folders: (folders, _stem(path)), lambda path, folders: (folders, _mask_stem(path))),
    (_stem, _stem),
    (_stem, _mask_stem),
    (_reduced, _reduced),
)
