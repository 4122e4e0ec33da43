"""What a file is, by its first bytes."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.data.formats.bounds import require_regular
from ccd_lightning.errors import UserError

PREAMBLE = 128  # bytes of a DICOM file before its mark


def begins_as_dicom(file: Path) -> bool:
    """Whether a regular file begins as a DICOM file does."""
    try:
        require_regular(file)
        with file.open("rb") as stream:
            return stream.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except (OSError, UserError):
        return False
