"""Reading image files of all formats: one function for what a file is, one for its pixels."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.data.formats import dicom, pillow
from ccd_lightning.data.formats.picture import Header, Least, Picture
from ccd_lightning.data.sources import split_page


def read_header(path: Path) -> Header:
    """Reads what an image is; no pixel is decoded.

    Args:
        path: A file, or a page of one (`data.sources`).

    Raises:
        UserError: If the file is no image that can be read.
    """
    file, page = split_page(path)
    return dicom.read_header(file, page or 0) if dicom.is_dicom(file) else pillow.read_header(file)


def read_picture(path: Path, least: Least | None = None) -> Picture:
    """Decodes one image.

    Args:
        path: A file that holds one, or a page of one that holds several (`data.sources`).
        least: Says which size of the whole image suffices; None for its own.

    Raises:
        UserError: If the file cannot be decoded, has no such page, or holds several and none is named.
    """
    file, page = split_page(path)
    return dicom.read_picture(file, page) if dicom.is_dicom(file) else pillow.read_picture(file, page, least)
