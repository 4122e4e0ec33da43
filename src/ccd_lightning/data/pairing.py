"""Pairing of masks with images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ccd_lightning.data.annotations import is_annotation, read_coco
from ccd_lightning.data.formats import is_volume, nifti, read_header
from ccd_lightning.data.manifest import Flaw
from ccd_lightning.data.naming import IMAGE_WORDS, MASK_NAMES, image_stem, is_junk, is_mask_folder, stem_of, suffix_of
from ccd_lightning.data.sources import split_page
from ccd_lightning.data.walking import count
from ccd_lightning.errors import UserError

# Words in which the names of an image and its mask may differ: BraTS has ..._flair_60 and ..._seg_60.
_DIFFER = MASK_NAMES | IMAGE_WORDS | {"flair", "t1", "t2", "t1ce", "t1c", "orig", "original", "mri", "ct"}


SEPARATORS = "-_. ("

Folders = Mapping[Path, tuple[str, ...]]  # files, each with the folder names used in the comparison
Key = Callable[[Path, tuple[str, ...]], Hashable]


def folders_below(path: Path, base: Path) -> tuple[str, ...]:
    """Returns the names of a file's folders below `base` in lower case, except those named after images or masks."""
    folders = [folder for folder in reversed(path.parents) if folder != base and folder.is_relative_to(base)]
    names = (folder.name.lower() for folder in folders if not is_mask_folder(folder))
    return tuple(name for name in names if name not in IMAGE_WORDS)


def pair(images: Folders, masks: Folders) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Finds the image of each mask.

    Rules, in this order: same folders and same name; the same after removing "_mask" and the like; both without regard
    to folders; the same after removing words that distinguish images from masks; and the image whose name is a prefix
    of the mask's, such as `a` for `a_EX`. The first rule that leads to exactly one image decides.

    Args:
        images: The images.
        masks: The masks.

    Returns:
        All masks of each image that has any, and the masks without an image.
    """
    found, orphans = defaultdict[Path, list[Path]](list), list[Path]()
    if not masks:
        return found, orphans
    stems = _index(images, _stem)
    rules = [(_index(images, image_key), mask_key) for image_key, mask_key in _RULES]
    for mask, folders in masks.items():
        for index, key in rules:
            candidates = index.get(key(mask, folders), [])
            if len(candidates) > 1:
                candidates = [one for one in candidates if suffix_of(one.name) == suffix_of(mask.name)]
            if len(candidates) == 1:
                found[candidates[0]].append(mask)
                break
        else:
            longer = _begun_by(_stem(mask), folders, images, stems)
            (found[longer] if longer else orphans).append(mask)
    return found, orphans


def _index(images: Folders, key: Key) -> dict[Hashable, list[Path]]:
    index = defaultdict[Hashable, list[Path]](list)
    for path, folders in images.items():
        index[key(path, folders)].append(path)
    return index


def _begun_by(
    stem: str, folders: tuple[str, ...], images: Folders, stems: Mapping[Hashable, list[Path]]
) -> Path | None:
    """Returns the image with the longest name that the mask's name continues after a separator; None if ambiguous."""
    for end in range(len(stem) - 1, 0, -1):
        if stem[end] in SEPARATORS and (candidates := stems.get(stem[:end])):
            near = [one for one in candidates if images[one] == folders] or candidates
            return near[0] if len(near) == 1 else None
    return None


def _stem(path: Path, _: tuple[str, ...] = ()) -> str:
    return stem_of(path.name).lower()


def _mask_stem(path: Path, _: tuple[str, ...] = ()) -> str:
    stem = stem_of(path.name)
    return (image_stem(stem) or stem).lower()


def _reduced(path: Path, _: tuple[str, ...] = ()) -> str:
    return "_".join(word for word in re.split(r"[-_ .]+", stem_of(path.name).lower()) if word not in _DIFFER)


_RULES: tuple[tuple[Key, Key], ...] = (
    (lambda path, folders: (folders, _stem(path)), lambda path, folders: (folders, _stem(path))),
    (lambda path, folders: (folders, _stem(path)), lambda path, folders: (folders, _mask_stem(path))),
    (_stem, _stem),
    (_stem, _mask_stem),
    (_reduced, _reduced),
)


def pair_annotations(images: Sequence[Path], folders: Iterable[Path]) -> Mapping[Path, list[Path]]:
    """Finds the COCO files in some folders that list each image: by its path, or by its name if it is unique.

    Raises:
        UserError: If a file cannot be read.
    """
    files = [
        file for folder in dict.fromkeys(folders) for file in sorted(folder.glob("*.json")) if not is_junk(file.name)
    ]
    names = Counter(path.name for path in images)
    found = defaultdict[Path, list[Path]](list)
    for file in files:
        if coco := read_coco(file):
            for path in images:
                if (name := coco.find(path)) and (names[path.name] == 1 or coco.agrees(name, path)):
                    found[path].append(file)
    return found


def settle(
    images: Iterable[Path],
    found: Mapping[Path, list[Path]],
    stray: Mapping[Path, Path],
    expected: Mapping[Path, Path],
    what: str = "mask",
) -> tuple[dict[Path, tuple[Path, ...]], list[Flaw]]:
    """Collects the masks of each image and the flaws.

    Args:
        images: The abnormal images.
        found: The masks of the images that have any.
        stray: Masks without an image, each with the folder in which the image is expected.
        expected: Folder in which the mask is expected, for each image.
        what: Word for masks in messages.

    Returns:
        The masks by image, and the flaws: masks without an image, sizes that differ and, if `what` is not "mask",
        images without a mask.
    """
    advice = "Add it; only without any masks are images tested without."
    optional = what == "mask"  # images without a mask are left out of pixel metrics
    missing = [path for path in images if path not in found] if (found or stray) and not optional else []
    flaws = [Flaw(path, f"no {what} for this image in {expected[path]}. {advice}") for path in missing]
    advice = f"Add the image or remove the {what}."
    flaws += [Flaw(mask, f"no image for this {what} in {where}. {advice}") for mask, where in stray.items()]
    flaws += [flaw for path, masks in found.items() for mask in masks for flaw in compare_sizes(path, mask)]
    return {path: tuple(masks) for path, masks in found.items()}, flaws


def pair_masks(
    images: list[Path], folder: Path, masks: list[Path], truth: Path, what: str = "mask"
) -> tuple[dict[Path, tuple[Path, ...]], list[Flaw]]:
    """Pairs images below one folder with masks below another, and returns the same as `settle`."""
    files = {path: folders_below(path, folder) for path in images}
    found, orphans = pair(files, {mask: folders_below(mask, truth) for mask in masks})
    return settle(images, found, dict.fromkeys(orphans, folder), dict.fromkeys(images, truth), what)


def compare_sizes(image: Path, mask: Path) -> Iterator[Flaw]:
    """Compares sizes, numbers of pages and alignment of an image and its mask by their headers. Nothing is decoded."""
    if is_annotation(mask):  # numbers in annotations are checked when the mask is read
        return
    try:
        header, other = read_header(image), read_header(mask)
    except UserError as error:
        path, _, message = str(error).partition(": ")
        yield Flaw(Path(path), message)
        return
    ours, theirs = (one.pages if split_page(path)[1] is None else 1 for one, path in ((header, image), (other, mask)))
    if ours != theirs:
        message = f"the mask has {count(theirs, 'page')}, its image {image} has {ours}."
        yield Flaw(mask, f"{message} Store both with one mask for each page, in the same order.")
    elif header.size != other.size:
        (width, height), (mask_width, mask_height) = header.size, other.size
        message = f"the mask has {mask_width} x {mask_height} pixels, its image {image} has {width} x {height}."
        yield Flaw(mask, f"{message} Export the mask at the size of the image.")
    elif all(map(is_volume, files := (split_page(mask)[0], split_page(image)[0]))) and (
        message := nifti.describe_misalignment(*files)
    ):
        yield Flaw(mask, message)
