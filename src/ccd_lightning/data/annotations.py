"""Masks from the exports of annotation tools: COCO JSON files and YOLO text labels."""

from __future__ import annotations

import functools
import json
import math
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.data.formats.bounds import require_regular
from ccd_lightning.data.shapes import Bools, fill_box, fill_polygon, from_run_lengths
from ccd_lightning.errors import UserError

SUFFIXES = (".json", ".txt")
MAX_BYTES = 1 << 28  # maximum size of an annotation file in bytes
POINTS = 100_000  # maximum number of corners of a polygon
CORNERS = 3  # minimum number of corners of a polygon

Size = tuple[int, int]


def is_annotation(path: Path) -> bool:
    """Returns whether a mask path names an annotation file rather than an image."""
    return path.suffix.lower() in SUFFIXES


def read_annotation(file: Path, image: Path, size: Size) -> Bools:
    """Reads the mask of an image from a COCO file or a YOLO label.

    Args:
        file: Path of the annotation file.
        image: Path of the image. In a COCO file it is looked up by its path or name.
        size: Width and height of the image in pixels.

    Returns:
        Mask of shape (height, width), True inside polygons, run-length encoded regions and boxes. A region smaller than
        a pixel keeps one pixel.

    Raises:
        UserError: If the file cannot be read, does not name the image, or contains an invalid number.
    """
    width, height = size
    mask = np.zeros((height, width), np.bool_)
    if file.suffix.lower() == ".txt":
        _draw_labels(mask, file)
    else:
        _draw_coco(mask, file, image)
    return mask


# COCO


class Coco:
    """The annotations of a COCO file, grouped by image.

    Attributes:
        file: Path of the COCO file.
        sizes: Width and height of each image in pixels by the image's path, None if the file does not state them.
        regions: Annotations of each image, by the image's path.

    Raises:
        UserError: If two images have the same file_name.
    """

    def __init__(self, file: Path, content: Any) -> None:
        self.file = file
        self.sizes: dict[str, Size | None] = {}
        self.regions: dict[str, list[Any]] = {}
        names = {}
        for image in content["images"]:
            names[image["id"]] = name = _plain_path(image["file_name"])
            if name in self.sizes:  # it would be ambiguous to which of the two an annotation belongs
                raise UserError(f"{file}: two images have the file_name {name}. Name each image once, by its path.")
            known = image.get("width"), image.get("height")
            self.sizes[name] = (int(known[0]), int(known[1])) if all(known) else None
            self.regions[name] = []
        for region in content["annotations"]:
            self.regions[names[region["image_id"]]].append(region)
        self._by_name = defaultdict[str, list[str]](list)
        for name in self.sizes:
            self._by_name[PurePosixPath(name).name].append(name)

    def find(self, image: Path) -> str | None:
        """Returns the path by which the file lists an image: one with a matching ending, or the only one of its name.

        Raises:
            UserError: If several entries match.
        """
        named = self._by_name.get(image.name, ())
        found = [name for name in named if self.agrees(name, image)]
        longest = max((name.count("/") for name in found), default=0)
        best = [name for name in found if name.count("/") == longest] or named
        if len(best) > 1:
            names = " and ".join(best[:2])
            raise UserError(f"{self.file}: {names} are both called {image.name}. Name the images by their paths.")
        return best[0] if best else None

    @staticmethod
    def agrees(name: str, image: Path) -> bool:
        """Returns whether one of the two paths ends with the other."""
        ours, theirs = image.as_posix().split("/"), name.split("/")
        length = min(len(ours), len(theirs))
        return ours[-length:] == theirs[-length:]


def _plain_path(name: Any) -> str:
    return PurePosixPath(str(name).replace("\\", "/")).as_posix()


def _require_short(file: Path) -> os.stat_result:
    """Raises an error if the file is not a regular file or is too long."""
    require_regular(file)
    stat = file.stat()
    if stat.st_size > MAX_BYTES:
        raise UserError(f"{file}: {stat.st_size:,} bytes of annotations, but no more than {MAX_BYTES:,} are read.")
    return stat


def read_coco(file: Path) -> Coco | None:
    """Reads the annotations of a COCO file, which are cached. Returns None if the JSON file has another format.

    Raises:
        UserError: If the file cannot be read.
    """
    stat = _require_short(file)
    return _read_coco(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_coco(file: Path, size: int, changed: int) -> Coco | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}). Replace or remove it.") from error
    if not (isinstance(content, dict) and {"images", "annotations"} <= content.keys()):
        return None
    try:
        return Coco(file, content)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{file}: not a valid COCO file ({_describe(error)}). Each image needs id and file_name, each annotation"
            " image_id."
        ) from error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _draw_coco(mask: Bools, file: Path, image: Path) -> None:
    coco = read_coco(file)
    if coco is None:
        raise UserError(f"{file}: not a COCO file: it has no 'images' and 'annotations'.")
    if (name := coco.find(image)) is None:
        raise UserError(f"{file}: {image.name} is not among its images.")
    height, width = mask.shape
    if coco.sizes[name] not in (None, (width, height)):
        stated = " x ".join(map(str, coco.sizes[name] or ()))
        raise UserError(f"{file}: {name} has {stated} pixels there, but {image} has {width} x {height}.")
    for region in coco.regions[name]:
        try:
            _draw_region(mask, region)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            where = f"annotation {region.get('id', '')}".strip() if isinstance(region, dict) else "an annotation"
            raise UserError(f"{file}: {where} of {name} cannot be drawn ({error}).") from error


def _draw_region(mask: Bools, region: Any) -> None:
    shape = region.get("segmentation")
    if isinstance(shape, dict):
        mask |= from_run_lengths(shape["counts"], shape["size"], mask.shape)
    elif shape:
        for polygon in shape:
            fill_polygon(mask, _corners(polygon))
    else:
        left, top, width, height = _numbers(region["bbox"])
        fill_box(mask, left, top, left + width, top + height)


def _corners(numbers: Any) -> NDArray[np.float64]:
    """Converts x, y, x, y, ... to an array of shape (N, 2)."""
    values = _numbers(numbers)
    if len(values) < 2 * CORNERS or len(values) % 2 or len(values) > 2 * POINTS:
        raise ValueError(
            f"a polygon of {len(values)} numbers, but pairs of x and y, {CORNERS} to {POINTS:,}, are expected"
        )
    return values.reshape(-1, 2)


def _numbers(values: Any) -> NDArray[np.float64]:
    numbers = np.array([float(value) for value in values], np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("a coordinate that is not a finite number")
    return numbers


# YOLO


def looks_like_labels(file: Path) -> bool:
    """Returns whether a text file is a YOLO label: its first line has a class and the numbers of a box or polygon."""
    try:
        require_regular(file)
        with file.open(encoding="utf-8-sig") as stream:
            first = stream.readline(1 << 20).split()
    except (OSError, ValueError, UserError):
        return False
    return not first or (len(first) > 4 and all(map(_is_number, first)))


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _draw_labels(mask: Bools, file: Path) -> None:
    """Draws boxes (class, centre x and y, width, height) and polygons (class, x, y, ...), in fractions of the image."""
    _require_short(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}). Replace or remove it.") from error
    height, width = mask.shape
    for number, line in enumerate(lines, start=1):
        if words := line.split():
            try:
                _draw_label(mask, _numbers(words[1:]), np.array([width, height], np.float64))
            except ValueError as error:
                raise UserError(
                    f"{file}, line {number}: {error}. A box is 'class x y width height', a polygon 'class x y x y x y"
                    " ...', all from 0 to 1."
                ) from error


def _draw_label(mask: Bools, values: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
    if (values < -0.01).any() or (values > 1.01).any():
        raise ValueError("a number is not between 0 and 1")
    if len(values) == 4:
        centre, half = values[:2] * scale, values[2:] * scale / 2
        fill_box(mask, *(centre - half), *(centre + half))
    else:
        fill_polygon(mask, _corners(values) * scale)
