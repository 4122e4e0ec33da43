"""Which mask belongs to which image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path

from ccd_lightning.data.formats import read_header
from ccd_lightning.data.manifest import Flaw
from ccd_lightning.data.naming import IMAGE_WORDS, MASK_NAMES, image_stem, is_mask_folder
from ccd_lightning.errors import UserError

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


def settle(
    images: Iterable[Path],
    found: Mapping[Path, list[Path]],
    stray: Mapping[Path, Path],
    places: Mapping[Path, Path],
    what: str = "mask",
) -> tuple[dict[Path, Path], list[Flaw]]:
    """The mask of each image, and what is wrong.

    Args:
        images: The abnormal images.
        found: The masks of those that have some.
        stray: Masks without an image, each with the folder where it would be.
        places: For each image the folder where its mask would be.
        what: What masks are called, in messages.

    Returns:
        The masks by image, and the flaws: an image with several masks, a mask without an image, sizes that differ, and,
        of what is not called a mask, an image without one.
    """
    advice = "Add it; only without any masks are images tested without."
    optional = what == "mask"  # pixel metrics leave out the images without one
    missing = [path for path in images if path not in found] if (found or stray) and not optional else []
    flaws = [Flaw(path, f"no {what} for this image in {places[path]}. {advice}") for path in missing]
    for path, masks in found.items():
        if len(masks) > 1:
            names = ", ".join(mask.name for mask in masks)
            flaws.append(Flaw(path, f"{len(masks)} {what}s for this image ({names}). Merge them into one file."))
    advice = f"Add the image or remove the {what}."
    flaws += [Flaw(mask, f"no image for this {what} in {where}. {advice}") for mask, where in stray.items()]
    chosen = {path: masks[0] for path, masks in found.items()}
    return chosen, flaws + [flaw for one in chosen.items() for flaw in compare_sizes(*one)]


def pair_masks(
    images: list[Path], folder: Path, masks: list[Path], truth: Path, what: str = "mask"
) -> tuple[dict[Path, Path], list[Flaw]]:
    """Pairs images below one folder with masks below another, as `settle` does."""
    files = {path: folders_below(path, folder) for path in images}
    found, orphans = pair(files, {mask: folders_below(mask, truth) for mask in masks})
    return settle(images, found, dict.fromkeys(orphans, folder), dict.fromkeys(images, truth), what)


def compare_sizes(image: Path, mask: Path) -> Iterator[Flaw]:
    """What is wrong with the sizes that two files state in their headers; nothing is decoded."""
    try:
        (width, height), (mask_width, mask_height) = read_size(image), read_size(mask)
    except UserError as error:
        path, _, message = str(error).partition(": ")
        yield Flaw(Path(path), message)
        return
    if (width, height) != (mask_width, mask_height):
        message = f"the mask has {mask_width} x {mask_height} pixels, its image {image} has {width} x {height}."
        yield Flaw(mask, f"{message} Export the mask at the size of the image.")


def read_size(path: Path) -> tuple[int, int]:
    """Width and height from a file's header, in pixels, turned as its EXIF orientation says.

    Raises:
        UserError: If the file is no readable image.
    """
    return read_header(path).size
