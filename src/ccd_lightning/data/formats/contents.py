"""Detection of file types by their first bytes."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.data.formats.bounds import require_regular
from ccd_lightning.errors import UserError

PREAMBLE = 128  # number of bytes before the magic number in a DICOM file


def begins_as_dicom(file: Path) -> bool:
    """Returns whether a file is a regular file that begins like a DICOM file."""
    try:
        require_regular(file)
        with file.open("rb") as stream:
            return stream.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except (OSError, UserError):
        return False
