"""Headers and voxels of NIfTI files. Everything in a header is validated."""

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

AXES = {0: "sagittal", 1: "coronal", 2: "axial"}  # of a volume whose axes point to the right, to the front and upwards
OFFSET = 1 << 24  # maximum number of bytes before the voxels, for the header and its extensions
DEFLATE = 1032  # maximum expansion factor of gzip
HEADER = 540  # size in bytes of the longer of the two NIfTI headers
TOLERANCE = 1e-3  # fraction of a voxel by which equivalent affines may differ

Array = NDArray[Any]


class Volume(NamedTuple):
    """Properties of a volume from its header.

    Attributes:
        shape: Shape of the voxels in the file, three numbers.
        affine: Transformation from voxel indices to millimetres, (4, 4).
        orientation: Body axis of each axis of the file (0 to the right, 1 to the front, 2 upwards) and its direction, 1
            or -1: (3, 2), as returned by nibabel's `io_orientation`.
        dtype: Data type of a voxel.
        slope: Factor by which stored values are multiplied.
        intercept: Offset that is added to the product.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    orientation: NDArray[np.float64]
    dtype: np.dtype[Any]
    slope: float
    intercept: float

    @property
    def body_affine(self) -> NDArray[np.float64]:
        """Transformation from voxel indices in the order of `body_shape` to millimetres, (4, 4)."""
        import nibabel

        affine: NDArray[np.float64] = self.affine @ nibabel.orientations.inv_ornt_aff(self.orientation, self.shape)
        return affine

    @property
    def body_shape(self) -> tuple[int, int, int]:
        """Numbers of voxels from left to right, from back to front, and upwards."""
        along = dict(zip(self.orientation[:, 0].astype(int).tolist(), self.shape, strict=True))
        return along[0], along[1], along[2]

    def slice_size(self, axis: int = AXIAL) -> tuple[int, int]:
        """Returns width and height in pixels of a slice perpendicular to a body axis."""
        width, height = (count for index, count in enumerate(self.body_shape) if index != axis)
        return width, height


def read_volume(file: Path) -> Volume:
    """Reads and validates the header of a volume without reading voxels.

    Raises:
        UserError: If nibabel is not installed, or the file is not a readable volume.
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


def describe_misalignment(mask: Path, image: Path) -> str:
    """Returns how a mask is misaligned with its image, as the end of a sentence after its name; "" if it is aligned.

    The axes of both may be stored in any order and direction, as long as voxels at the same place in the body
    correspond. Files of different sizes are not compared.

    Raises:
        UserError: If a file is not a readable volume.
    """
    own, other = read_volume(mask), read_volume(image)
    sides = np.linalg.norm(other.body_affine[:3, :3], axis=0)  # side lengths of a voxel in millimetres
    tolerances = TOLERANCE * np.append(sides, sides.min())  # for a step along each axis, and for the first voxel
    differences = np.abs(own.body_affine - other.body_affine)[:3]
    if own.body_shape != other.body_shape or (differences <= tolerances).all():
        return ""
    what = "place" if np.array_equal(own.orientation, other.orientation) else "orientation"
    return (
        f"its affine gives it another {what} in the body than that of its image {image}. If the voxels match,"
        " copy the image's affine to the mask; otherwise resample the mask to the image."
    )


def _orientation(file: Path, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    import nibabel

    if np.isfinite(affine).all():
        orientation: NDArray[np.float64] = nibabel.io_orientation(affine)
        if np.isfinite(orientation).all():
            return orientation
    raise UserError(
        f"{file}: its affine does not define the orientation of the voxels. Correct it, or export it again."
    )


def _open(file: Path) -> Any:
    """Opens a file with nibabel. Voxels are not read yet."""
    try:
        import nibabel
    except ImportError as error:
        raise UserError(
            f"{file}: NIfTI files are read with nibabel. Install it with: {pip_install('nifti')}"
        ) from error
    nibabel.imageglobals.logger.setLevel(logging.ERROR)  # minor flaws would be logged each time the file is opened
    with _reading(file):
        with gzip.open(file) if _zipped(file) else file.open("rb") as stream:
            start = stream.read(HEADER)
        kind = {b"n+1\0": nibabel.Nifti1Image, b"n+2\0": nibabel.Nifti2Image}.get(_magic(start))
        if kind is None:
            raise ValueError("it does not begin like a NIfTI file")
        length = {nibabel.Nifti1Image: 348, nibabel.Nifti2Image: 540}[kind]
        header: Any = kind.header_class(start[:length], check=False)
        if not 0 <= int(header["vox_offset"]) <= OFFSET:  # nibabel also reads everything before the voxels
            raise ValueError("its voxels do not begin after its header")
        return kind.from_filename(str(file))


def _magic(start: bytes) -> bytes:
    """Returns the four magic bytes of NIfTI-1 or NIfTI-2."""
    return start[4:8] if start[4:7] == b"n+2" else start[344:348]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Converts any error of nibabel or its dependencies to a `UserError` that names the file."""
    try:
        with np.errstate(all="ignore"):  # affines may be computed from invalid numbers
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
    """Returns the voxels as stored. The volumes read last are cached."""
    return _cache.get(file, lambda: _read_voxels(file, volume))


def _read_voxels(file: Path, volume: Volume) -> Array:
    image = _open(file)
    with _reading(file):
        voxels: Array = np.asanyarray(image.dataobj.get_unscaled()).reshape(volume.shape, order="F")
    return voxels
