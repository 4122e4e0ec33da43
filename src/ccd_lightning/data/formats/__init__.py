"""Reading of image files of all formats: headers and pixels."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.data.formats import dicom, nifti, pillow
from ccd_lightning.data.formats.bounds import require_regular
from ccd_lightning.data.formats.picture import Header, Least, Picture
from ccd_lightning.data.sources import AXIAL, axis_of, split_page
from ccd_lightning.errors import UserError


def read_header(path: Path) -> Header:
    """Reads the properties of an image without decoding pixels.

    Args:
        path: Path of a file, or of a page of a file (`data.sources`).

    Raises:
        UserError: If the file is not a readable image.
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
        path: Path of a file with one image, or of a page of a file with several (`data.sources`).
        least: Function that returns which size of the whole image suffices. None to decode at full size.

    Raises:
        UserError: If the file cannot be decoded, has no such page, or contains several images and the path names none.
    """
    file, page = split_page(path)
    require_regular(file)
    if is_volume(file):
        return nifti.read_picture(file, page, axis_of(path))
    _refuse_axis(path)
    return dicom.read_picture(file, page) if dicom.is_dicom(file) else pillow.read_picture(file, page, least)


def is_volume(file: Path) -> bool:
    """Returns whether a file contains voxels, which can be cut into slices along any axis."""
    return file.name.lower().endswith(nifti.SUFFIXES)


def _refuse_axis(path: Path) -> None:
    if axis_of(path) != AXIAL and split_page(path)[1] is not None:
        raise UserError(f"{path}: an axis can be named of a NIfTI volume alone; pages are named by number.")
