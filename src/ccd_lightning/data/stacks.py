"""Files with several images, of which each page, frame or slice becomes an image of its own."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ccd_lightning.data.annotations import is_annotation
from ccd_lightning.data.formats import is_volume, nifti, read_header
from ccd_lightning.data.formats.bounds import require_regular
from ccd_lightning.data.formats.contents import begins_as_dicom
from ccd_lightning.data.formats.dicom_file import SUFFIXES as DICOM
from ccd_lightning.data.formats.pillow import SINGLE, holds_one
from ccd_lightning.data.images import in_parallel
from ccd_lightning.data.manifest import Flaw, Manifest, Row
from ccd_lightning.data.masks import open_masks
from ccd_lightning.data.naming import is_image
from ccd_lightning.data.sources import AXES, AXIAL, file_of, name_below, page_of, split_page, state_of
from ccd_lightning.data.walking import count
from ccd_lightning.errors import UserError

VOLUMES = 2  # maximum number of volumes decompressed at once, to limit memory

_unpacking = threading.BoundedSemaphore(VOLUMES)


class Pages(NamedTuple):
    """Content of one file.

    Attributes:
        shown: Pages that become images. None if the file is a single image, or if the path names a page.
        total: Number of all pages.
        group: Pseudonym of the patient or study, if the file contains it, else None.
    """

    shown: list[int] | None = None
    total: int = 1
    group: str | None = None


def expand_stacks(manifest: Manifest, groups: bool = True, axis: int = AXIAL) -> Manifest:
    """Replaces the row of a file with several images by one row per image.

    Rows that name a page are unchanged. Empty slices of volumes are left out, and so are pages of abnormal files whose
    masks are empty, because it is not known whether they are normal.

    Args:
        manifest: The images.
        groups: Whether images of one file, and of files with the same patient in their headers, stay together,
            including pages that are named individually.
        axis: Axis along which volumes are cut into slices.

    Returns:
        The manifest of all images, with new flaws and left-out images added to those already known.

    Raises:
        UserError: If there is no such axis, or an image occurs twice.
    """
    if axis not in range(len(AXES)):
        raise UserError(f"data.axis is {axis}, but must be 0 (sagittal slices), 1 (coronal) or 2 (axial).")
    pages = find_pages([row.path for row in manifest.rows], axis)
    rows, flaws, expanded = list[Row](), list(manifest.flaws), list[Row]()
    for row in manifest.rows:
        found = pages[row.path]
        group = (found.group or row.group) if groups and row.guessed else row.group or (found.group if groups else None)
        if groups and not group and (found.shown is not None or split_page(row.path)[1] is not None):
            group = name_below(manifest.root, file_of(row.path))
        if found.shown is None:
            masks = tuple(_same_page(mask, row.path) for mask in row.masks)
            unchanged = (group, masks) == (row.group, row.masks)
            rows.append(row if unchanged else replace(row, group=group, masks=masks))  # there may be millions
            continue
        own = _pages_of(replace(row, group=group), found, axis, flaws)
        expanded += own
        rows += own
    unmarked = _unmarked([row for row in expanded if row.masks])
    empty = sum(found.total - len(found.shown) for found in pages.values() if found.shown is not None)
    left_out = [count(empty, "empty slice")] * bool(empty)
    left_out += [f"{count(len(unmarked), 'page')} of abnormal files without a lesion in their masks"] * bool(unmarked)
    kept = [row for row in rows if row.path not in unmarked]
    return Manifest(manifest.root, kept, flaws, (*left_out, *manifest.left_out))


def _pages_of(row: Row, found: Pages, axis: int, flaws: list[Flaw]) -> list[Row]:
    """Returns the rows of a file's pages, each with the same page of its masks. Masks that do not fit become flaws."""
    masks, known = list[Path](), {flaw.path for flaw in flaws}
    for mask in row.masks:
        if message := _misfit(mask, row.path, found.total, axis):
            flaws += [Flaw(mask, message)] * (mask not in known)
        else:
            masks.append(mask)
    return [
        replace(
            row,
            path=_page(row.path, page, axis),
            masks=tuple(_page(mask, page, axis) for mask in masks),
        )
        for page in found.shown or ()
    ]


def _page(file: Path, page: int, axis: int) -> Path:
    """Returns the path of a page. The axis applies only to volumes."""
    return page_of(file, page, axis if is_volume(file) else AXIAL)


def _misfit(mask: Path, image: Path, total: int, axis: int) -> str:
    """Describes why a mask does not fit all pages of an image, as the end of a sentence after its name; else ""."""
    fitting = f"a mask of {total} pages is expected for its image {image}, in the same order"
    if is_annotation(mask) or split_page(mask)[1] is not None:
        return f"it marks a single image, but {fitting}."
    try:
        pages = read_header(page_of(mask, 0, axis) if is_volume(mask) else mask).pages
    except UserError as error:
        return str(error).removeprefix(f"{mask}: ")
    if pages != total:
        return f"the mask has {count(pages, 'page')}, but {fitting}."
    return nifti.describe_misalignment(mask, image) if is_volume(mask) and is_volume(image) else ""


def _same_page(mask: Path, image: Path) -> Path:
    """Returns the page of a mask with several pages that belongs to an image, if the image is a page; else the mask."""
    file, page = split_page(image)
    if page is None or is_annotation(mask) or split_page(mask)[1] is not None:
        return mask
    try:
        several = is_volume(mask) or read_header(mask).pages > 1
    except UserError:  # reported when the mask is read
        return mask
    return mask.with_name(f"{mask.name}{image.name[len(file.name) :]}") if several else mask


def _unmarked(rows: Sequence[Row]) -> set[Path]:
    """Returns the images whose masks mark nothing. Images with unreadable masks are not among them."""
    marked = in_parallel(_is_marked, rows, "Reading masks")
    return {row.path for row, found in zip(rows, marked, strict=True) if not found}


def _is_marked(row: Row) -> bool:
    try:
        return bool(open_masks(row.masks, row.path).any())
    except UserError:
        return True


def expand_files(paths: Sequence[str], axis: int = AXIAL) -> tuple[list[str], str]:
    """Returns the images in files, in order and each once.

    Args:
        paths: Files, or pages of files. Unreadable files are returned unchanged.
        axis: Axis along which volumes are cut into slices.

    Returns:
        Files and pages, and a description of what is left out; empty if nothing is.
    """
    pages = find_pages([Path(path) for path in paths], axis)
    images, empty = list[str](), 0
    for path in paths:
        file, found = Path(path), pages[Path(path)]
        if found.shown is None:
            images.append(path)
        else:
            images += (str(_page(file, page, axis)) for page in found.shown)
            empty += found.total - len(found.shown)
    return list(dict.fromkeys(images)), count(empty, "empty slice") if empty else ""


def describe_stacks(paths: Iterable[Path]) -> str:
    """Describes files with several images, such as "2 volumes and 1 stack of 412 images"; empty if there are none."""
    files = Counter(file for file, page in map(split_page, paths) if page is not None)
    volumes = sum(map(is_volume, files))
    others = len(files) - volumes
    kinds = [count(volumes, "volume")] * bool(volumes) + [count(others, "stack")] * bool(others)
    return f"{' and '.join(kinds)} of {count(files.total(), 'image')}" if files else ""


def header_groups(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns the patients of the files whose headers name one, i.e. of DICOM files."""
    named = [path for path in paths if path.suffix.lower() in DICOM or not is_image(path.name)]
    pages = zip(named, in_parallel(partial(_read_pages, axis=AXIAL), named, "Reading headers"), strict=True)
    return {path: found.group for path, found in pages if found.group}


def find_pages(paths: Sequence[Path], axis: int = AXIAL) -> Mapping[Path, Pages]:
    """Returns the content of files, by their headers or, for volumes, voxels. Unreadable files count as one image."""
    several = [path for path in paths if file_of(path).suffix.lower() not in SINGLE]  # the others are not opened
    found = in_parallel(partial(_read_pages, axis=axis), several, "Reading headers")
    return dict.fromkeys(paths, Pages()) | dict(zip(several, found, strict=True))


def _read_pages(path: Path, axis: int) -> Pages:
    file, page = split_page(path)
    try:
        require_regular(file)
        if holds_one(file):
            return Pages()
        if page is None and is_volume(file):
            return _slices(file, axis)
        header = read_header(path) if page is None or begins_as_dicom(file) else None
    except (UserError, OSError):  # reported when the image is read
        return Pages()
    if header is None:
        return Pages()
    several = page is None and header.pages > 1
    return Pages(list(range(header.pages)) if several else None, header.pages, header.group)


@functools.lru_cache(maxsize=4096)  # for the stages of one process
def _occupied(file: Path, state: str, axis: int) -> tuple[int, ...]:
    """Returns the slices of a file that are not empty. Cached while the file's state is unchanged."""
    return tuple(nifti.occupied_slices(file, axis))


def _slices(file: Path, axis: int) -> Pages:
    total = read_header(page_of(file, 0, axis)).pages
    if total == 1 and axis == AXIAL:
        return Pages()
    try:
        with _unpacking:
            return Pages(list(_occupied(file, state_of(file), axis)), total)
    except UserError:
        return Pages([0])  # reading this slice reports what is wrong with the file
