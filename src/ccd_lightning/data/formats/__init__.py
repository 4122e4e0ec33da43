"""Reading image files of all formats: one function for what a file is, one for its pixels."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.data.formats import dicom, nifti, pillow
from ccd_lightning.data.formats.bounds import require_regular
from ccd_lightning.data.formats.picture import Header, Least, Picture
from ccd_lightning.data.sources import AXIAL, axis_of, split_page
from ccd_lightning.errors import UserError


def read_header(path: Path) -> Header:
    """Reads what an image is; no pixel is decoded.

    Args:
        path: A file, or a page of one (`data.sources`).

    Raises:
        UserError: If the file is no image that can be read.
    """
    file, page = split_page(path)
    require_regular(file)
    if is_volume(file):
        return nifti.read_header(file, axis_of(path))
    _refuse_axis(path)
    return dicom.read_header(file, page or 0) if dicom.is_dicom(file) else pillow.read_header(file, page or 0)


def read_picture(path: Path, least: Least | None = None) -> Picture:
    """Decodes one image.

    Args:
        path: A file that holds one, or a page of one that holds several (`data.sources`).
        least: Says which size of the whole image suffices; None for its own.

    Raises:
        UserError: If the file cannot be decoded, has no such page, or holds several and none is named.
    """
    file, page = split_page(path)
    require_regular(file)
    if is_volume(file):
        return nifti.read_picture(file, page, axis_of(path))
    _refuse_axis(path)
    return dicom.read_picture(file, page) if dicom.is_dicom(file) else pillow.read_picture(file, page, least)


def is_volume(file: Path) -> bool:
    """Whether a file holds voxels, of which slices along any axis can be shown."""
    return file.name.lower().endswith(nifti.SUFFIXES)


def _refuse_axis(path: Path) -> None:
    if axis_of(path) != AXIAL and split_page(path)[1] is not None:
        raise UserError(f"{path}: an axis can be named of a NIfTI volume alone; pages are named by number.")
