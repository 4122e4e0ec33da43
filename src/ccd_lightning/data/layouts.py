"""The common folder layout, and what all layouts share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ccd_lightning.data.manifest import GOOD, Manifest, Row
from ccd_lightning.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
EXPECTED = "expected train/good, test/good, test/<kind> and, where there are masks, ground_truth/<kind>"


def scan_folder(root: Path, masks: bool = True) -> Manifest:
    """Reads the common folder layout.

    ::

        root/train/good/*.png            normal images to train on (may be missing where nothing is trained)
        root/test/good/*.png             normal images to test on
        root/test/<kind>/*.png           abnormal images, one folder a kind
        root/ground_truth/<kind>/*.png   masks of that kind: same stem, or stem and "_mask" (optional as a whole)

    Args:
        root: The folder that holds `train`.
        masks: Whether to look for masks.

    Returns:
        The manifest, sorted by path.

    Raises:
        UserError: If a folder is missing or empty, or an image and its mask do not go together.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the data set's folder with --data.root DIR.")
    train = root / "train" / GOOD
    if not train.is_dir() and not (root / "test").is_dir():
        raise UserError(f"{train}: no such folder; {EXPECTED} in {root}.")
    rows = [Row(path, "train") for path in list_images(train)] if train.is_dir() else []
    if train.is_dir() and not rows:
        raise UserError(f"{train}: no images in this folder ({', '.join(sorted(SUFFIXES))} are read).")
    truth = root / "ground_truth"
    for folder in sorted(path for path in (root / "test").glob("*") if path.is_dir()):
        rows += _scan_kind(folder, truth if masks and truth.is_dir() else None)
    return Manifest(root, rows)


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted; other files are passed over."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _scan_kind(folder: Path, truth: Path | None) -> Iterable[Row]:
    images = list_images(folder)
    if not images:
        raise UserError(f"{folder}: no images in this folder; fill it or remove it.")
    if folder.name == GOOD or truth is None:
        return [Row(path, "test", folder.name) for path in images]
    masks = pair_masks(images, truth / folder.name)
    return [Row(path, "test", folder.name, masks[path]) for path in images]


def pair_masks(images: list[Path], folder: Path) -> dict[Path, Path]:
    """Finds each image's mask: the file of the same stem, or of the stem and "_mask".

    Raises:
        UserError: If one has no mask, a mask no image, or their sizes differ.
    """
    found = {path.stem.removesuffix("_mask"): path for path in list_images(folder)} if folder.is_dir() else {}
    masks = {}
    for path in images:
        mask = found.pop(path.stem, None)
        if mask is None:
            raise UserError(
                f"{path}: no mask for this image in {folder}. Add it; only without any masks are images tested without."
            )
        check_mask_size(path, mask)
        masks[path] = mask
    if found:
        orphan = next(iter(found.values()))
        raise UserError(f"{orphan}: no image for this mask in {images[0].parent}. Add the image or remove the mask.")
    return masks


def check_mask_size(image: Path, mask: Path) -> None:
    """Compares the sizes that two files state in their headers; nothing is decoded.

    Raises:
        UserError: If they differ, or one of them is no image.
    """
    sizes = [read_size(path) for path in (image, mask)]
    if sizes[0] != sizes[1]:
        (width, height), (mask_width, mask_height) = sizes
        raise UserError(
            f"{mask}: the mask has {mask_width} x {mask_height} pixels, its image {image} has {width} x {height}."
            " Export the mask at the size of the image."
        )


def read_size(path: Path) -> tuple[int, int]:
    """Width and height from a file's header, in pixels.

    Raises:
        UserError: If the file is no readable image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error}). Replace or remove it.") from error
