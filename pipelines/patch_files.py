"""Patches on their way from block tasks to shard tasks: one file of a block, and in it a stretch for each shard.

One file, because each costs a wait for the disk or a request; a stretch, because a shard task reads its own alone.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from velfield import storage
from velfield.errors import DamagedError
from velfield.patches import Patch, pack, unpack
from velfield.pipelines.stages import Stage

AHEAD = 4  # stretches fetched while one is added
FETCHES = 3  # of a stretch whose checksum is wrong, before that is believed

Stretch = tuple[str, int, int]  # URL of the file, first byte and the one after the last


def write(url: str, by_shard: dict[int, Mapping[int, Patch]]) -> tuple[list[tuple[int, int, int]], int]:
    """Write one file of patches; returns for each shard (shard, first byte, end), and the file's size.

    ``by_shard`` has the patches by shard and box; it is emptied on the way, so that they are not in memory twice.
    """
    file, stretches = io.BytesIO(), []
    for shard in sorted(by_shard):
        part = io.BytesIO()
        np.savez(part, **pack(by_shard.pop(shard)))  # type: ignore[arg-type]
        start = file.tell()
        file.write(part.getbuffer())
        stretches.append((shard, start, file.tell()))
    storage.write_bytes(url, file.getvalue())
    return stretches, file.tell()


def read(stretches: Sequence[Stretch], assembling: Stage) -> Iterator[dict[int, Patch]]:
    """Patches of stretches, in order, by box; some are fetched ahead. Bytes are added to the stage."""
    with ThreadPoolExecutor(AHEAD) as pool:
        coming = [pool.submit(_read, stretch) for stretch in stretches[:AHEAD]]
        for n, (_, start, stop) in enumerate(stretches):
            found = coming.pop(0).result()
            if n + AHEAD < len(stretches):
                coming.append(pool.submit(_read, stretches[n + AHEAD]))
            assembling.nbytes += stop - start
            yield found


def _read(stretch: Stretch) -> dict[int, Patch]:
    url, start, stop = stretch
    path = storage.filesystem(url)[1]
    for _ in range(FETCHES):
        (data,) = storage.read_ranges(url, [path], [start], [stop])
        if isinstance(data, BaseException):
            raise data
        try:
            with np.load(io.BytesIO(data)) as file:
                return unpack(file)
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError):
            continue  # a bit has turned on the way
    raise DamagedError(
        f"patches are damaged, their checksum does not match: file={url}, bytes={start} to {stop}; "
        "remove the unfinished store, then run the same command again"
    )
