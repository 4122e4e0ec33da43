"""Preparation of a data set: a split without leaks, and images at working size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ccd_lightning.data.depth import DEEP, eight_bits, own_window, shade
from ccd_lightning.data.duplicates import Pair
from ccd_lightning.data.formats import read_picture
from ccd_lightning.data.images import progress, read_placed
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.data.masks import read_mask
from ccd_lightning.data.naming import stem_of
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import split_page
from ccd_lightning.errors import UserError
from ccd_lightning.writing import scratch, short_name


def without_leaks(manifest: Manifest, pairs: Iterable[Pair]) -> Manifest:
    """Returns the split without training images that are also test images or share a patient or video with them."""
    leaks = [pair for pair in pairs if pair.is_leak]
    copied = {pair.train for pair in leaks}
    tested = {row.group for row in manifest.select("test") if row.group}

    def leaves(row: Row) -> bool:
        return row.split == "train" and (row.path in copied or row.group in tested)

    return Manifest(manifest.root, [row for row in manifest.rows if not leaves(row)], manifest.flaws)


def write_resized(manifest: Manifest, folder: Path, preprocessing: Preprocessing) -> Manifest:
    """Writes images and masks as PNG files at working size, in the common layout.

    Args:
        manifest: The images.
        folder: Folder to create. It must not exist yet.
        preprocessing: Crop and working size.

    Returns:
        The manifest of the written files.

    Raises:
        UserError: If the folder exists, or a file cannot be decoded.
    """
    if folder.exists():
        raise UserError(f"{folder}: this folder exists already. Remove it, or give another one.")
    with scratch(folder) as partial:
        for row in progress(manifest.rows, "Writing images", len(manifest.rows)):
            _write_row(row, _flat_name(row.path, manifest.root), partial, preprocessing)
        partial.rename(folder)
    return Manifest(folder, [_written(row, _flat_name(row.path, manifest.root), folder) for row in manifest.rows])


def _written(row: Row, name: str, folder: Path) -> Row:
    """Returns the row of an image in the new folder of the common layout."""
    masks = (folder / "ground_truth" / row.anomaly_type / name,) if row.masks else ()
    return Row(folder / row.split / row.anomaly_type / name, row.split, row.anomaly_type, masks, row.group)


def _write_row(row: Row, name: str, folder: Path, preprocessing: Preprocessing) -> None:
    new = _written(row, name, folder)
    new.path.parent.mkdir(parents=True, exist_ok=True)
    image = read_placed(row.path, preprocessing)
    Image.fromarray(image.pixels).save(new.path)
    for mask in new.masks:
        mask.parent.mkdir(parents=True, exist_ok=True)
        marked = read_mask(row.masks, row.path, preprocessing, image.placement)
        Image.fromarray(marked.astype(np.uint8) * 255).save(mask)


def _flat_name(path: Path, root: Path) -> str:
    """Returns a file name that includes the original folders, so that equal names in several folders stay distinct."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(*path.parts[1:])
    file, page = split_page(path)
    number = "" if page is None else f"_page{path.name[len(file.name) + 1 : -1]}"
    return short_name("__".join((*inside.parent.parts, stem_of(file.name) + number)) + ".png")


def pair_sheet(pairs: Iterable[Pair], side: int = 192) -> Image.Image | None:
    """Draws pairs with their names, the training image to the left of the test image. None if there are no pairs."""
    shown = list(pairs)
    if not shown:
        return None
    line, gap, columns = 14, 12, 3
    rows = -(-len(shown) // columns)
    width, height = 2 * side + 2 * gap, side + 3 * line + gap
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, pair in enumerate(shown):
        left, top = index % columns * width + gap, index // columns * height
        for column, (path, what) in enumerate(((pair.train, "train"), (pair.test, "test"))):
            sheet.paste(_picture(path, side), (left + column * side, top))
            pen.text((left, top + side + column * line), f"{what}: {_shortened(path)}", "black")
        pen.text(
            (left, top + side + 2 * line),
            f"similarity {pair.similarity:.3f}: {pair.reason.partition(' (')[0]}",
            "firebrick",
        )
    return sheet


def _picture(path: Path, side: int) -> Image.Image:
    picture = read_picture(path)
    shown = shade(picture, own_window(picture)) if picture.image.mode in DEEP else eight_bits(picture, path)
    return shown.convert("RGB").resize((side, side))


def _shortened(path: Path, most: int = 58) -> str:
    name = str(path)
    return name if len(name) <= most else f"...{name[3 - most :]}"
