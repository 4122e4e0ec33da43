"""NIfTI volumes, slice by slice, as a radiologist looks at them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.formats.nifti_file import AXES, Volume, read_volume, read_voxels, tell_place
from ccd_lightning.data.formats.picture import Header, Picture, Range
from ccd_lightning.data.sources import AXIAL, state_of
from ccd_lightning.errors import UserError

__all__ = ["read_header", "read_mask", "read_picture", "read_volume", "tell_place", "view_slice"]

SUFFIXES = (".nii", ".nii.gz")

Array = NDArray[Any]


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

    Abnormal is what is more than 0, or, of floating point that lies within [0, 1] in the whole volume, as probabilities
    do, more than 0.5.

    Raises:
        UserError: As `read_picture`.
    """
    volume = read_volume(file)
    plane = _read_slice(file, volume, page, axis)
    if volume.dtype.names:
        colours: NDArray[np.bool_] = np.any([plane[name] > 0 for name in "RGB"], axis=0)
        return colours
    threshold = 0.5 if _holds_shares(file, state_of(file)) else _rounding(volume)
    values = _scaled(plane, volume)
    if not np.isfinite(values).all():
        raise UserError(f"{file}: the mask contains NaN or infinite values. Write 0 and 1 instead.")
    abnormal: NDArray[np.bool_] = values > threshold
    return abnormal


@functools.lru_cache(maxsize=4096)
def _holds_shares(file: Path, state: str) -> bool:
    """Whether a file, as long as it stays in this state, holds probabilities: floating point within [0, 1].

    One slice cannot tell: that of a label map may hold no value above 1.
    """
    volume = read_volume(file)
    if volume.dtype.kind != "f" and not _is_scaled(volume):
        return False
    voxels = read_voxels(file, volume)
    ends = np.array([np.fmin.reduce(voxels, axis=None), np.fmax.reduce(voxels, axis=None)])  # NaN says nothing
    values, margin = _scaled(ends, volume), _rounding(volume)
    return bool(values.min() >= -margin and values.max() <= 1 + margin)


def _rounding(volume: Volume) -> float:
    """By how much a value may be off: half of a step of scaled numbers."""
    return abs(volume.slope) / 2 if _is_scaled(volume) else 0.0


def occupied_slices(file: Path, axis: int = AXIAL) -> list[int]:
    """The slices that show something: all but those whose voxels have one value.

    Raises:
        UserError: If the volume cannot be read.
    """
    volume = read_volume(file)
    voxels = read_voxels(file, volume)
    every = range(volume.body_shape[axis])
    return [number for number in every if _varies(view_slice(voxels, volume.orientation, number, axis))]


def _varies(plane: Array) -> bool:
    if plane.dtype.names:
        return any(_varies(plane[name]) for name in plane.dtype.names)
    least, most = np.fmin.reduce(plane, axis=None), np.fmax.reduce(plane, axis=None)  # NaN says nothing
    return bool(most > least)


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
    return view_slice(read_voxels(file, volume), volume.orientation, page or 0, axis)


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
