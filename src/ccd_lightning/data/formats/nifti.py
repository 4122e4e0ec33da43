"""NIfTI volumes, slice by slice, as a radiologist looks at them."""

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
from PIL import Image

from ccd_lightning.data.formats.bounds import require_bytes, require_pixels
from ccd_lightning.data.formats.picture import Header, Picture, Range
from ccd_lightning.data.formats.volumes import VolumeCache
from ccd_lightning.data.sources import AXIAL
from ccd_lightning.errors import UserError

SUFFIXES = (".nii", ".nii.gz")
AXES = {0: "sagittal", 1: "coronal", 2: "axial"}  # of a volume whose axes run to the right, to the front and upwards
OFFSET = 1 << 24  # bytes before the voxels, which hold the header and its extensions
DEFLATE = 1032  # the most bytes that one byte of a gzip file can stand for
HEADER = 540  # bytes of the longer one of NIfTI's two headers

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
    def body_shape(self) -> tuple[int, int, int]:
        """The numbers of voxels from left to right, from back to front, and upwards."""
        along = dict(zip(self.orientation[:, 0].astype(int).tolist(), self.shape, strict=True))
        return along[0], along[1], along[2]

    def slice_size(self, axis: int = AXIAL) -> tuple[int, int]:
        """Width and height of a slice across an axis of the body, in pixels."""
        width, height = (count for index, count in enumerate(self.body_shape) if index != axis)
        return width, height


def view_slice(voxels: Array, orientation: NDArray[np.float64], number: int, axis: int = AXIAL) -> Array:
    """One slice of a volume as it is shown: a view, so that what is written to it is written to the volume.

    Slices are numbered to the patient's right (axis 0), to the front (1) and upwards (2), whatever their order in the
    file. They are shown as radiologists look at them: axial slices with the front up, coronal ones with the head up,
    both with the patient's right on the left; sagittal ones with the head up and the front on the left.

    Args:
        voxels: In the order of the file, of three axes.
        orientation: The volume's (`Volume.orientation`).
        number: Of the slice, from 0.
        axis: Of the body, across which the slice lies.

    Returns:
        (height, width), the rows from top to bottom.
    """
    import nibabel

    body: Array = nibabel.apply_orientation(voxels, orientation)
    plane: Array = body[tuple(number if index == axis else slice(None) for index in range(3))]
    return plane[::-1, ::-1].T


def read_header(file: Path, axis: int = AXIAL) -> Header:
    """Reads the size and number of the slices; no voxel is read.

    Raises:
        UserError: If the file is no volume that can be read.
    """
    volume = read_volume(file)
    return Header(volume.slice_size(axis), volume.body_shape[axis], _mode(volume))


def read_picture(file: Path, page: int | None = None, axis: int = AXIAL) -> Picture:
    """Reads one slice, as `view_slice` shows it, in the file's units.

    Args:
        file: The volume.
        page: Number of the slice; None where there is but one.
        axis: Of the body, across which the slice lies.

    Raises:
        UserError: If the volume cannot be read, has no such slice, or has several and none is named.
    """
    volume = read_volume(file)
    plane = _read_slice(file, volume, page, axis)
    if volume.dtype.names:
        image = Image.fromarray(np.stack([plane[name] for name in "RGB"], axis=-1))
    else:
        image = _grey(plane, volume)
    return Picture(image, image.size, _full(volume))


def read_mask(file: Path, page: int | None = None, axis: int = AXIAL) -> NDArray[np.bool_]:
    """Which pixels of a slice of a mask are abnormal, (height, width).

    Abnormal is what is more than 0, or, of floating point that lies within [0, 1], as probabilities do, more than 0.5.

    Raises:
        UserError: As `read_picture`.
    """
    volume = read_volume(file)
    plane = _read_slice(file, volume, page, axis)
    if volume.dtype.names:
        colours: NDArray[np.bool_] = np.any([plane[name] > 0 for name in "RGB"], axis=0)
        return colours
    values, half = _scaled(plane, volume), abs(volume.slope) / 2 if _is_scaled(volume) else 0.0  # by which 0 may be off
    shares = values.dtype.kind == "f" and bool(((values >= -half) & (values <= 1 + half)).all())
    abnormal: NDArray[np.bool_] = values > (0.5 if shares else half)
    return abnormal


def occupied_slices(file: Path, axis: int = AXIAL) -> list[int]:
    """The slices that show something: all but those whose voxels have one value.

    Raises:
        UserError: If the volume cannot be read.
    """
    volume = read_volume(file)
    voxels = _voxels(file, volume)
    every = range(volume.body_shape[axis])
    return [number for number in every if _varies(view_slice(voxels, volume.orientation, number, axis))]


def _varies(plane: Array) -> bool:
    if plane.dtype.names:
        return any(_varies(plane[name]) for name in plane.dtype.names)
    least, most = np.fmin.reduce(plane, axis=None), np.fmax.reduce(plane, axis=None)  # NaN says nothing
    return bool(most > least)


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
        raise UserError(f"{file}: reading NIfTI takes nibabel: pip install 'ccd-lightning[nifti]'.") from error
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


def _voxels(file: Path, volume: Volume) -> Array:
    """The voxels as they are stored; those of the volumes that were read last are kept."""
    return _cache.get(file, lambda: _read_voxels(file, volume))


def _read_voxels(file: Path, volume: Volume) -> Array:
    image = _open(file)
    with _reading(file):
        voxels: Array = np.asanyarray(image.dataobj.get_unscaled()).reshape(volume.shape, order="F")
    return voxels


def _read_slice(file: Path, volume: Volume, page: int | None, axis: int) -> Array:
    """One slice of the voxels as they are stored."""
    count = volume.body_shape[axis]
    if page is None and count > 1:
        raise UserError(
            f"{file}: {count} {AXES[axis]} slices in one file, but one image is expected. Name one, such as"
            f" {file.name}[{count // 2}]."
        )
    if not 0 <= (page or 0) < count:
        raise UserError(f"{file}[{page}]: no such slice; there are {count} {AXES[axis]} ones, counted from 0.")
    return view_slice(_voxels(file, volume), volume.orientation, page or 0, axis)


def _is_scaled(volume: Volume) -> bool:
    return (volume.slope, volume.intercept) != (1.0, 0.0)


def _scaled(values: Array, volume: Volume) -> Array:
    """Stored values in the file's units."""
    return values.astype(np.float64) * volume.slope + volume.intercept if _is_scaled(volume) else values


def _full(volume: Volume) -> Range | None:
    """The lowest and the highest value that the type of the voxels can hold, in the file's units."""
    if volume.dtype.kind not in "iu":
        return None
    limits = np.iinfo(volume.dtype)
    low, high = sorted(limit * volume.slope + volume.intercept for limit in (float(limits.min), float(limits.max)))
    return low, high


def _mode(volume: Volume) -> str:
    """Pillow's mode in which a slice is returned: one that holds all values."""
    if volume.dtype.names:
        return "RGB"
    full = _full(volume)
    if full is None or not (volume.slope.is_integer() and volume.intercept.is_integer()):
        return "F"
    depths = {"L": (0, 255), "I;16": (0, 65535), "I": (-(1 << 31), (1 << 31) - 1)}
    return next((mode for mode, (low, high) in depths.items() if low <= full[0] and full[1] <= high), "F")


def _grey(plane: Array, volume: Volume) -> Image.Image:
    mode = _mode(volume)
    kinds = {"L": np.uint8, "I;16": np.uint16, "I": np.int32, "F": np.float32}
    return Image.fromarray(np.ascontiguousarray(_scaled(plane, volume), kinds[mode]))
