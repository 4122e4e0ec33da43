"""What a NIfTI file says of its voxels, and the voxels themselves: nothing in a header is believed unseen."""

from __future__ import annotations

import gzip
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.data.formats.bounds import require_bytes, require_pixels
from ccd_lightning.data.formats.volumes import VolumeCache
from ccd_lightning.data.sources import AXIAL
from ccd_lightning.errors import UserError
from ccd_lightning.extras import pip_install

AXES = {0: "sagittal", 1: "coronal", 2: "axial"}  # of a volume whose axes run to the right, to the front and upwards
OFFSET = 1 << 24  # bytes before the voxels, which hold the header and its extensions
DEFLATE = 1032  # the most bytes that one byte of a gzip file can stand for
HEADER = 540  # bytes of the longer one of NIfTI's two headers
TOLERANCE = 1e-3  # of a voxel, by which affines that mean the same may differ

Array = NDArray[Any]


class Volume(NamedTuple):
    """What a file says of its voxels.

    Attributes:
        shape: Of the voxels in the file: three numbers.
        affine: From voxels to millimetres, (4, 4).
        orientation: Which axis of the body each axis of the file follows (0 to the right, 1 to the front, 2 upwards),
            and in which direction, 1 or -1: (3, 2), as nibabel's `io_orientation` gives it.
        dtype: Of a voxel.
        slope: What stored values are multiplied by,
        intercept: and what is then added to them.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]
    dtype: np.dtype[Any]
    slope: float
    intercept: float

    @property
    def body_affine(self) -> NDArray[np.float64]:
        """From voxels in the order of `body_shape` to millimetres, (4, 4)."""
        import nibabel

        affine: NDArray[np.float64] = self.affine @ nibabel.orientations.inv_ornt_aff(self.orientation, self.shape)
        return affine

    @property
    def body_shape(self) -> tuple[int, int, int]:
        """The numbers of voxels from left to right, from back to front, and upwards."""
        along = dict(zip(self.orientation[:, 0].astype(int).tolist(), self.shape, strict=True))
        return along[0], along[1], along[2]

    def slice_size(self, axis: int = AXIAL) -> tuple[int, int]:
        """Width and height of a slice across an axis of the body, in pixels."""
        width, height = (count for index, count in enumerate(self.body_shape) if index != axis)
        return width, height


def read_volume(file: Path) -> Volume:
    """Reads what a file says of its voxels, and sees that it can be believed; no voxel is read.

    Raises:
        UserError: If nibabel is not there, or the file is no volume that can be read.
    """
    image = _open(file)
    shape, dtype = tuple(map(int, image.shape)), image.get_data_dtype()
    squeezed = shape[:3] + tuple(itertools.dropwhile(lambda count: count == 1, shape[:2:-1]))[::-1]
    if len(squeezed) > 3 or not squeezed or min(squeezed) < 1:
        raise UserError(
            f"{file}: a volume of the shape {' x '.join(map(str, shape))}, but three dimensions are expected. Write"
            " each time or channel to a file of its own."
        )
    if dtype.kind not in "iuf" and not dtype.names:
        raise UserError(f"{file}: voxels of the type {dtype}, which cannot be shown. Export real numbers or colours.")
    whole = squeezed + (1,) * (3 - len(squeezed))
    affine = np.asarray(image.affine, np.float64)
    proxy: Any = image.dataobj
    volume = Volume(
        (whole[0], whole[1], whole[2]),
        affine,
        _orientation(file, affine),
        dtype,
        float(proxy.slope),
        float(proxy.inter),
    )
    for axis in AXES:
        require_pixels(file, *volume.slice_size(axis))
    packed = file.stat().st_size
    require_bytes(file, dtype.itemsize * int(np.prod(whole, dtype=object)), packed * (DEFLATE if _zipped(file) else 1))
    return volume


def tell_place(mask: Path, image: Path) -> str:
    """Why a mask does not lie where its image does, in words that go on after its name; empty if it does.

    The axes of both may be stored in any order and direction, as long as voxels with the same place in the body are
    one. Files of different sizes are not compared.

    Raises:
        UserError: If a file is no volume that can be read.
    """
    own, other = read_volume(mask), read_volume(image)
    sides = np.linalg.norm(other.body_affine[:3, :3], axis=0)  # of a voxel, in millimetres
    tolerances = TOLERANCE * np.append(sides, sides.min())  # of a step along each axis, and of the first voxel
    differences = np.abs(own.body_affine - other.body_affine)[:3]
    if own.body_shape != other.body_shape or (differences <= tolerances).all():
        return ""
    what = "place" if np.array_equal(own.orientation, other.orientation) else "orientation"
    return (
        f"its affine gives it another {what} in the body than that of its image {image}. If the voxels do go together,"
        " copy the image's affine to the mask; otherwise resample the mask to the image."
    )


def _orientation(file: Path, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    import nibabel

    if np.isfinite(affine).all():
        orientation: NDArray[np.float64] = nibabel.io_orientation(affine)
        if np.isfinite(orientation).all():
            return orientation
    raise UserError(f"{file}: its affine does not say how the voxels lie in the body. Correct it, or export it again.")


def _open(file: Path) -> Any:
    """The image that nibabel makes of a file, whose voxels are not read yet."""
    try:
        import nibabel
    except ImportError as error:
        raise UserError(
            f"{file}: NIfTI files are read with nibabel. Install it with: {pip_install('nifti')}"
        ) from error
    nibabel.imageglobals.logger.setLevel(logging.ERROR)  # each time it is opened, a file's small flaws would be told
    with _reading(file):
        with gzip.open(file) if _zipped(file) else file.open("rb") as stream:
            start = stream.read(HEADER)
        kind = {b"n+1\0": nibabel.Nifti1Image, b"n+2\0": nibabel.Nifti2Image}.get(_magic(start))
        if kind is None:
            raise ValueError("it does not begin as a NIfTI file does")
        length = {nibabel.Nifti1Image: 348, nibabel.Nifti2Image: 540}[kind]
        header: Any = kind.header_class(start[:length], check=False)
        if not 0 <= int(header["vox_offset"]) <= OFFSET:  # what is before the voxels is read as well
            raise ValueError("its voxels do not begin after its header")
        return kind.from_filename(str(file))


def _magic(start: bytes) -> bytes:
    """The four bytes by which a file is known as NIfTI-1 or NIfTI-2."""
    return start[4:8] if start[4:7] == b"n+2" else start[344:348]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Names the file where nibabel, which raises errors of its own and of what it uses, cannot read it."""
    try:
        with np.errstate(all="ignore"):  # affines are computed from numbers that mean nothing
            yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"{file}: cannot be read as NIfTI ({' '.join(reason.split())}). Replace or remove it."
        ) from error


def _zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


_cache = VolumeCache()


def read_voxels(file: Path, volume: Volume) -> Array:
    """The voxels as they are stored; those of the volumes that were read last are kept."""
    return _cache.get(file, lambda: _read_voxels(file, volume))


def _read_voxels(file: Path, volume: Volume) -> Array:
    image = _open(file)
    with _reading(file):
        voxels: Array = np.asanyarray(image.dataobj.get_unscaled()).reshape(volume.shape, order="F")
    return voxels
