"""Decoded images in a NumPy file, from which single images are read."""

from __future__ import annotations

import math
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


class PixelFile:
    """An array (N, 3, H, W) uint8 in a .npy file, which can be indexed along its first axis.

    The file is read rather than memory-mapped: its content does not count as memory of the process, processes started
    with a copy of this object (`spawn`, `forkserver`) open the file instead of holding its pixels, and a file that is
    truncated while in use raises an error instead of crashing the process.

    Args:
        path: Path of the file.

    Attributes:
        shape: N, 3, H, W.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file, or its length does not match its header.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._turn = threading.Lock()
        version = np.lib.format.read_magic(self._file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"{path}: a header of version {version}")
        self.shape, is_transposed, dtype = header[version](self._file)
        self._start = self._file.tell()
        self._bytes = math.prod(self.shape[1:])  # bytes per image
        whole = path.stat().st_size == self._start + math.prod(self.shape)
        if len(self.shape) != 4 or is_transposed or dtype != self.dtype or not whole:
            raise ValueError(f"{path}: not the pixels of images")

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelFile, (self.path,)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: int | slice | npt.NDArray[np.intp]) -> UInt8Array:
        """Returns one image (3, H, W), or several (n, 3, H, W)."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        if isinstance(index, np.ndarray):
            several = np.empty((len(index), *self.shape[1:]), np.uint8)
            for row, one in zip(several, index.tolist(), strict=True):
                self._read_into(row, one)
            return several
        single = np.empty(self.shape[1:], np.uint8)
        self._read_into(single, index)
        return single

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _read_into(self, image: UInt8Array, index: int) -> None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start, view = self._start + index % len(self) * self._bytes, image.data.cast("B")
        found = self._read(view, start)
        if found != self._bytes:
            raise OSError(f"{self.path}: it became shorter while it was in use. Start again, and it is made anew.")

    def _read(self, view: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):  # does not move the file position, which forked processes share
            return os.preadv(self._file.fileno(), [view], start)
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(view) or 0
