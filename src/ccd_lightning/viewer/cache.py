"""A cache with limited memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """A least-recently-used cache of files in memory.

    Args:
        most: Maximum total size in bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Returns a file by its key, creating it if it is not cached. Several threads may create the same file."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = make()
        self.put(key, found)
        return found

    def put(self, key: Hashable, content: bytes) -> None:
        """Stores a file in the cache."""
        with self._lock:
            self.size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self.size > self.most:
                self.size -= len(self._kept.popitem(last=False)[1])
