"""NIfTI volumes, read slice by slice in radiological orientation."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.formats.nifti_file import AXES, Volume, describe_misalignment, read_volume, read_voxels
from ccd_lightning.data.formats.picture import Header, Picture, Range
from ccd_lightning.data.sources import AXIAL, state_of
from ccd_lightning.errors import UserError

__all__ = ["describe_misalignment", "read_header", "read_mask", "read_picture", "read_volume", "view_slice"]

SUFFIXES = (".nii", ".nii.gz")

Array = NDArray[Any]


def view_slice(voxels: Array, orientation: NDArray[np.float64], number: int, axis: int = AXIAL) -> Array:
    """Returns one slice of a volume in display orientation, as a view: writing to it changes the volume.

    Slices are numbered from the patient's left to right (axis 0), from back to front (1) and upwards (2), independent
    of their order in the file. They are shown in radiological orientation: axial slices with the front up, coronal
    slices with the head up, both with the patient's right on the left; sagittal slices with the head up and the front
    on the left.

    Args:
        voxels: Voxels of three dimensions, in the order of the file.
        orientation: Orientation of the volume (`Volume.orientation`).
        number: Index of the slice, from 0.
        axis: Body axis perpendicular to the slice.

    Returns:
        Slice of shape (height, width), with rows from top to bottom.
    """
    import nibabel

    body: Array = nibabel.apply_orientation(voxels, orientation)
    plane: Array = body[tuple(number if index == axis else slice(None) for index in range(3))]
    return plane[::-1, ::-1].T


def read_header(file: Path, axis: int = AXIAL) -> Header:
    """Reads the size and the number of slices without reading voxels.

    Raises:
        UserError: If the file is not a readable volume.
    """
    volume = read_volume(file)
    return Header(volume.slice_size(axis), volume.body_shape[axis], _mode(volume))


def read_picture(file: Path, page: int | None = None, axis: int = AXIAL) -> Picture:
    """Reads one slice in the orientation of `view_slice` and in the file's units.

    Args:
        file: Path of the volume.
        page: Index of the slice. None if there is only one.
        axis: Body axis perpendicular to the slice.

    Raises:
        UserError: If the volume cannot be read, has no such slice, or has several and `page` is None.
    """
    volume = read_volume(file)
    plane = _read_slice(file, volume, page, axis)
    if volume.dtype.names:
        image = Image.fromarray(np.stack([plane[name] for name in "RGB"], axis=-1))
    else:
        image = _grey(plane, volume)
    return Picture(image, image.size, _full(volume))


def read_mask(file: Path, page: int | None = None, axis: int = AXIAL) -> NDArray[np.bool_]:
    """Reads which pixels of a slice of a mask are abnormal, of shape (height, width).

    Abnormal are values above 0. If the volume contains floating-point values that all lie within [0, 1], like
    probabilities, abnormal are values above 0.5.

    Raises:
        UserError: As in `read_picture`.
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
    """Returns whether a file contains probabilities: floating point within [0, 1]. Cached by the file's state.

    This cannot be decided from one slice: a slice of a label map may have no value above 1.
    """
    volume = read_volume(file)
    if volume.dtype.kind != "f" and not _is_scaled(volume):
        return False
    voxels = read_voxels(file, volume)
    ends = np.array([np.fmin.reduce(voxels, axis=None), np.fmax.reduce(voxels, axis=None)])  # NaN is ignored
    values, margin = _scaled(ends, volume), _rounding(volume)
    return bool(values.min() >= -margin and values.max() <= 1 + margin)


def _rounding(volume: Volume) -> float:
    """Returns the rounding error of a value: half a step of scaled numbers."""
    return abs(volume.slope) / 2 if _is_scaled(volume) else 0.0


def occupied_slices(file: Path, axis: int = AXIAL) -> list[int]:
    """Returns the slices that are not constant, i.e. whose voxels do not all have the same value.

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
    least, most = np.fmin.reduce(plane, axis=None), np.fmax.reduce(plane, axis=None)  # NaN is ignored
    return bool(most > least)


def _read_slice(file: Path, volume: Volume, page: int | None, axis: int) -> Array:
    """Returns one slice of the voxels as stored."""
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
    """Converts stored values to the file's units."""
    return values.astype(np.float64) * volume.slope + volume.intercept if _is_scaled(volume) else values


def _full(volume: Volume) -> Range | None:
    """Returns the lowest and the highest value that an integer voxel type can hold, in the file's units; else None."""
    if volume.dtype.kind not in "iu":
        return None
    limits = np.iinfo(volume.dtype)
    low, high = sorted(limit * volume.slope + volume.intercept for limit in (float(limits.min), float(limits.max)))
    return low, high


def _mode(volume: Volume) -> str:
    """Returns the Pillow mode of a slice: one that holds all values."""
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
