"""What was made for requests and may be asked for again: the latest, within some bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kept:
    """Arrays by what they are, those asked for last, up to ``nbytes``; the latest is kept however large it is.

    Safe to be used by several threads: who asks for what another is making waits for it, and for nothing else.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._kept: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What is kept for ``key``, or is made now."""
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
                other = self._making.get(key)
                if other is None:
                    mine = self._making[key] = threading.Lock()
                    mine.acquire()
                    break
            with other:  # the one who makes it lets go when it is there, or when it could not be made
                pass
        try:
            made = np.asarray(make())
            made.flags.writeable = False
            with self._lock:
                self._kept[key] = made
                while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self.nbytes:
                    self._kept.popitem(last=False)
            return made
        finally:
            with self._lock:
                del self._making[key]
            mine.release()
