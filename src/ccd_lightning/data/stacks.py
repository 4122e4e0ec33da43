"""Files of several images: each page, frame or slice becomes an image of its own."""

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
from ccd_lightning.data.formats.pillow import holds_one
from ccd_lightning.data.images import in_parallel
from ccd_lightning.data.manifest import Flaw, Manifest, Row
from ccd_lightning.data.masks import open_masks
from ccd_lightning.data.naming import is_image
from ccd_lightning.data.sources import AXES, AXIAL, file_of, name_below, page_of, split_page, state_of
from ccd_lightning.data.walking import count
from ccd_lightning.errors import UserError

VOLUMES = 2  # unpacked at once, as each takes its memory

_unpacking = threading.BoundedSemaphore(VOLUMES)


class Pages(NamedTuple):
    """What one file holds.

    Attributes:
        shown: Those of its pages that become images; None where it is one image, or one page is named.
        total: The number of all of its pages.
        group: Whom or what all of it is of, as the file says; None where it does not.
    """

    shown: list[int] | None = None
    total: int = 1
    group: str | None = None


def expand_stacks(manifest: Manifest, groups: bool = True, axis: int = AXIAL) -> Manifest:
    """Turns the row of a file with several images into one row for each of these.

    A row that names a page stays as it is. Slices of volumes that show nothing are left out, and so are pages of
    abnormal files in which their masks mark nothing, as it is not known whether these are normal.

    Args:
        manifest: The images.
        groups: Whether images of one file, and of files that say to be of one patient, stay together, pages that are
            named one by one too.
        axis: Across which volumes are cut into slices.

    Returns:
        The manifest of all images; flaws and what is left out are added to those that were known.

    Raises:
        UserError: If there is no such axis, or an image is there twice.
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
            rows.append(replace(row, group=group, masks=tuple(_same_page(mask, row.path) for mask in row.masks)))
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
    """The rows of a file's pages, each with the same pages of its masks; masks that do not fit become flaws."""
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
    """The path that names a page; the axis counts for volumes alone."""
    return page_of(file, page, axis if is_volume(file) else AXIAL)


def _misfit(mask: Path, image: Path, total: int, axis: int) -> str:
    """Why a mask is not one of all pages of an image, in words that go on after its name; empty if it is."""
    fitting = f"a mask of {total} pages is expected for its image {image}, in the same order"
    if is_annotation(mask) or split_page(mask)[1] is not None:
        return f"it marks a single image, but {fitting}."
    try:
        pages = read_header(page_of(mask, 0, axis) if is_volume(mask) else mask).pages
    except UserError as error:
        return str(error).removeprefix(f"{mask}: ")
    if pages != total:
        return f"the mask has {count(pages, 'page')}, but {fitting}."
    return nifti.tell_place(mask, image) if is_volume(mask) and is_volume(image) else ""


def _same_page(mask: Path, image: Path) -> Path:
    """Of a mask with several pages that which goes with an image, if this is a page."""
    file, page = split_page(image)
    if page is None or is_annotation(mask) or split_page(mask)[1] is not None:
        return mask
    try:
        several = is_volume(mask) or read_header(mask).pages > 1
    except UserError:  # which is told where the mask is read
        return mask
    return mask.with_name(f"{mask.name}{image.name[len(file.name) :]}") if several else mask


def _unmarked(rows: Sequence[Row]) -> set[Path]:
    """The images in which no mask marks anything; those whose masks cannot be read are not among them."""
    marked = in_parallel(_is_marked, rows, "Reading masks")
    return {row.path for row, found in zip(rows, marked, strict=True) if not found}


def _is_marked(row: Row) -> bool:
    try:
        return bool(open_masks(row.masks, row.path).any())
    except UserError:
        return True


def expand_files(paths: Sequence[str], axis: int = AXIAL) -> tuple[list[str], str]:
    """The images that files hold, in order, each once.

    Args:
        paths: Files, or pages of files. Those that cannot be read stay as they are.
        axis: Across which volumes are cut into slices.

    Returns:
        Files and pages, and what is left out, in words; empty without any.
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
    """How many files of several images there are, such as "2 volumes and 1 stack of 412 images"; empty without any."""
    files = Counter(file for file, page in map(split_page, paths) if page is not None)
    volumes = sum(map(is_volume, files))
    others = len(files) - volumes
    kinds = [count(volumes, "volume")] * bool(volumes) + [count(others, "stack")] * bool(others)
    return f"{' and '.join(kinds)} of {count(files.total(), 'image')}" if files else ""


def header_groups(paths: Sequence[Path]) -> dict[Path, str]:
    """The patients of those files that say whose they are, which DICOM files do."""
    named = [path for path in paths if path.suffix.lower() in DICOM or not is_image(path.name)]
    pages = zip(named, in_parallel(partial(_look, axis=AXIAL), named, "Reading headers"), strict=True)
    return {path: found.group for path, found in pages if found.group}


def find_pages(paths: Sequence[Path], axis: int = AXIAL) -> Mapping[Path, Pages]:
    """What files hold, by their headers and, of volumes, by their voxels; a file that cannot be read counts as one."""
    return dict(zip(paths, in_parallel(partial(_look, axis=axis), paths, "Reading headers"), strict=True))


def _look(path: Path, axis: int) -> Pages:
    file, page = split_page(path)
    try:
        require_regular(file)
        if holds_one(file):
            return Pages()
        if page is None and is_volume(file):
            return _slices(file, axis)
        header = read_header(path) if page is None or begins_as_dicom(file) else None
    except (UserError, OSError):  # which is told where the image is read
        return Pages()
    if header is None:
        return Pages()
    several = page is None and header.pages > 1
    return Pages(list(range(header.pages)) if several else None, header.pages, header.group)


@functools.lru_cache(maxsize=4096)  # for the stages of one process
def _occupied(file: Path, state: str, axis: int) -> tuple[int, ...]:
    """The slices of a file, as long as it stays in this state, that show something."""
    return tuple(nifti.occupied_slices(file, axis))


def _slices(file: Path, axis: int) -> Pages:
    total = read_header(page_of(file, 0, axis)).pages
    if total == 1 and axis == AXIAL:
        return Pages()
    try:
        with _unpacking:
            return Pages(list(_occupied(file, state_of(file), axis)), total)
    except UserError:
        return Pages([0])  # where it is told what is wrong with the file
