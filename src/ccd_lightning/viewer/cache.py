"""What was made once and may be asked for again, in memory that is bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """Keeps files in memory, and forgets those that were not asked for the longest.

    Args:
        most: Bytes that all of them may have.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """A file by its name, made where it is not kept; several threads may make the same one."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = make()
        self.put(key, found)
        return found

    def put(self, key: Hashable, content: bytes) -> None:
        """Keeps a file."""
        with self._lock:
            self.size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self.size > self.most:
                self.size -= len(self._kept.popitem(last=False)[1])
