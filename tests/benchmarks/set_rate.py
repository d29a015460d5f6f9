"""Storage with a set rate and cores of its own, made from local files that come no faster than that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem


class SetRate(LocalFileSystem):
    """Local files that come at a set rate, and wait for that without work."""

    protocol = "setrate"
    rate = np.inf  # bytes a second of this process

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("setrate://"))

    def cat_ranges(self, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int], **options: Any) -> list:
        began = time.perf_counter()
        found = super().cat_ranges(paths, starts, ends, **options)
        wanted = sum(len(data) for data in found if isinstance(data, bytes)) / SetRate.rate
        time.sleep(max(0.0, wanted - (time.perf_counter() - began)))
        return found


def set_rate(rate: float) -> None:
    """Give this process the file system, at a rate."""
    SetRate.rate = rate
    fsspec.register_implementation("setrate", SetRate, clobber=True)
