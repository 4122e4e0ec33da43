"""Maps of NIfTI volumes as volumes aligned with their source."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccd_lightning.data.formats import is_volume
from ccd_lightning.data.formats.nifti import view_slice
from ccd_lightning.data.formats.nifti_file import Volume, read_volume
from ccd_lightning.data.sources import axis_of, file_of, split_page
from ccd_lightning.errors import UserError
from ccd_lightning.writing import allocate, scratch

OFFSET = 352  # bytes before the voxels: header of NIfTI-1, and four bytes for no extension
FLOAT = np.dtype("<f4")
MAKING = threading.Lock()  # slices of a volume are written by several threads at once
MILLIMETRES = 2  # NIfTI's code for the unit of length


def require_volumes(paths: list[str]) -> None:
    """Checks that all images are slices of volumes.

    Raises:
        UserError: If one is not.
    """
    other = next((path for path in paths if not is_volume(file_of(Path(path)))), None)
    if other is not None:
        raise UserError(f"{other}: not a NIfTI volume, so its map cannot be one. Give --maps tiff.")


def write_slice(file: Path, path: Path, anomaly_map: npt.NDArray[np.float32]) -> None:
    """Writes the map of a slice to a volume of maps, which is created if it does not exist.

    Slices may be written in any order and by several processes. Slices that are never written, such as empty ones, are
    0. The header contains the source's affine but none of its texts, which may contain a name.

    Args:
        file: Path of the volume of maps, float32 and uncompressed.
        path: Path of the slice, such as `ct.nii.gz[45]`.
        anomaly_map: Map (height, width) of the slice.

    Raises:
        UserError: If the source cannot be read.
    """
    source, page = split_page(path)
    volume = read_volume(source)
    with MAKING:
        if not file.exists():
            _make(file, volume)
    voxels = np.memmap(file, FLOAT, "r+", OFFSET, volume.shape, "F")
    view_slice(voxels, volume.orientation, page or 0, axis_of(path))[...] = anomaly_map
    voxels.flush()


def _make(file: Path, volume: Volume) -> None:
    """Creates a volume of zeros atomically, unless another process has created it first."""
    import nibabel

    header: Any = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(FLOAT)
    header.set_data_shape(volume.shape)
    header.set_sform(volume.affine, code="scanner")
    header.set_qform(volume.affine, code="scanner", strip_shears=True)
    header["vox_offset"], header["magic"], header["xyzt_units"] = OFFSET, b"n+1", MILLIMETRES
    with scratch(file) as partial:
        with partial.open("wb") as stream:
            stream.write(header.binaryblock.ljust(OFFSET, b"\0"))
            allocate(stream, OFFSET + FLOAT.itemsize * int(np.prod(volume.shape)))
        with contextlib.suppress(FileExistsError):
            os.link(partial, file)
