"""Cache of the volumes read last, so that a file is not decompressed again for each slice."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

BYTES = 1 << 29  # limit per process; one volume is kept whatever its size

Array = NDArray[Any]
Key = tuple[str, int, int]


class VolumeCache:
    """Thread-safe cache of the arrays requested last, by file, size and modification time.

    Args:
        limit: Maximum total size of the arrays in bytes. The last array is always kept.
    """

    def __init__(self, limit: int = BYTES) -> None:
        self.limit = limit
        self._reset()
        if hasattr(os, "register_at_fork"):  # a lock held by another thread would stay locked in the child process
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._kept = OrderedDict[Key, Array]()
        self._lock = threading.Lock()
        self._reading: dict[Key, threading.Lock] = {}

    def get(self, file: Path, read: Callable[[], Array]) -> Array:
        """Returns the array of a file, read unless it is cached. Threads requesting the same file wait for one read."""
        stat = file.stat()
        key = str(file.resolve()), stat.st_size, stat.st_mtime_ns
        with self._lock:
            if (found := self._find(key)) is not None:
                return found
            own = self._reading.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                if (found := self._find(key)) is not None:
                    return found
            try:
                array = read()
            finally:
                with self._lock:
                    self._reading.pop(key, None)
            with self._lock:
                self._keep(key, array)
            return array

    def _find(self, key: Key) -> Array | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: Key, array: Array) -> None:
        self._kept[key] = array
        while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self.limit:
            self._kept.popitem(last=False)
