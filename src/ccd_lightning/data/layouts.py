"""The common folder layout, and what all layouts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ccd_lightning.data.images import decoding, upright_size
from ccd_lightning.data.manifest import GOOD, Flaw, Manifest, Row
from ccd_lightning.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
EXPECTED = "expected train/good, test/good, test/<kind> and, where there are masks, ground_truth/<kind>"


def scan_folder(root: Path, masks: bool = True) -> Manifest:
    """Reads the common folder layout.

    ::

        root/train/good/*.png            normal images to train on (may be missing where nothing is trained)
        root/test/good/*.png             normal images to test on
        root/test/<kind>/*.png           abnormal images, one folder a kind
        root/ground_truth/<kind>/*.png   masks of that kind: same stem, or stem and "_mask" (optional)

    Args:
        root: The folder that holds `train`.
        masks: Whether to look for masks.

    Returns:
        The manifest, sorted by path. Images and masks that do not go together are among its flaws.

    Raises:
        UserError: If a folder is missing or empty.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the data set's folder with --data.root DIR.")
    train = root / "train" / GOOD
    if not train.is_dir() and not (root / "test").is_dir():
        raise UserError(f"{train}: no such folder; {EXPECTED} in {root}.")
    rows = [Row(path, "train") for path in list_images(train)] if train.is_dir() else []
    if train.is_dir() and not rows:
        raise UserError(f"{train}: no images in this folder ({', '.join(sorted(SUFFIXES))} are read).")
    truth, flaws = root / "ground_truth", list[Flaw]()
    for folder in sorted(path for path in (root / "test").glob("*") if path.is_dir()):
        images = list_images(folder)
        if not images:
            raise UserError(f"{folder}: no images in this folder; fill it or remove it.")
        paired: dict[Path, Path] = {}
        if masks and truth.is_dir() and folder.name != GOOD:
            paired, wrong = pair_masks(images, truth / folder.name)
            flaws += wrong
        rows += [Row(path, "test", folder.name, paired.get(path)) for path in images]
    tested = {row.kind for row in rows}
    for folder in sorted(truth.iterdir()) if masks and truth.is_dir() else ():
        if folder.is_dir() and folder.name not in tested:
            told = f"no image for this mask in {root / 'test' / folder.name}. Add the image or remove the mask."
            flaws += [Flaw(path, told) for path in list_images(folder)]
    return Manifest(root, rows, flaws)


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted; other files are passed over."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def pair_masks(images: list[Path], folder: Path) -> tuple[dict[Path, Path], list[Flaw]]:
    """Finds each image's mask: the file of the same stem, or of the stem and "_mask".

    Returns:
        The masks by image, and what is wrong: a mask without an image, sizes that differ. Images may lack a mask.
    """
    found = {path.stem.removesuffix("_mask"): path for path in list_images(folder)} if folder.is_dir() else {}
    masks = {path: found.pop(path.stem) for path in images if path.stem in found}
    where = images[0].parent
    flaws = [
        Flaw(path, f"no image for this mask in {where}. Add the image or remove the mask.") for path in found.values()
    ]
    return masks, flaws + [flaw for pair in masks.items() for flaw in compare_sizes(*pair)]


def compare_sizes(image: Path, mask: Path) -> Iterator[Flaw]:
    """What is wrong with the sizes that two files state in their headers; nothing is decoded."""
    try:
        (width, height), (mask_width, mask_height) = read_size(image), read_size(mask)
    except UserError as error:
        path, _, told = str(error).partition(": ")
        yield Flaw(Path(path), told)
        return
    if (width, height) != (mask_width, mask_height):
        told = f"the mask has {mask_width} x {mask_height} pixels, its image {image} has {width} x {height}."
        yield Flaw(mask, f"{told} Export the mask at the size of the image.")


def read_size(path: Path) -> tuple[int, int]:
    """Width and height from a file's header, in pixels, turned as its EXIF orientation says.

    Raises:
        UserError: If the file is no readable image.
    """
    with decoding(path), Image.open(path) as image:
        return upright_size(image)
