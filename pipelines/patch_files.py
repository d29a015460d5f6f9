"""Patches on their way from block tasks to shard tasks: one file of a block, and in it a stretch for each shard.

One file, because each costs a wait for the disk or a request; a stretch, because a shard task reads its own alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from safetensors.numpy import load, save  # np.load parses Python, which in 3.11 threads may not do side by side

from velfield.catalogues.genericio_layout import crc64
from velfield.errors import DamagedError
from velfield.files import storage
from velfield.painting.patches import Patch, pack, unpack
from velfield.pipelines.stages import Stage

AHEAD = 4  # stretches fetched while one is added
FETCHES = 4  # of a stretch whose checksum is wrong, before that is believed

Stretch = tuple[str, int, int, int]  # URL of the file, first byte and the one after the last, CRC-64 of them


def write(url: str, by_shard: dict[int, Mapping[int, Patch]]) -> tuple[list[tuple[int, int, int, int]], int]:
    """Write one file of patches; returns for each shard (shard, first byte, end, CRC-64), and the file's size.

    ``by_shard`` has the patches by shard and box; it is emptied on the way, so that they are not in memory twice.
    """
    parts, stretches, end = [], [], 0
    for shard in sorted(by_shard):
        parts.append(save(pack(by_shard.pop(shard))))
        start, end = end, end + len(parts[-1])
        stretches.append((shard, start, end, crc64(parts[-1])))
    storage.write_bytes(url, b"".join(parts))
    return stretches, end


def read(stretches: Sequence[Stretch], assembling: Stage) -> Iterator[dict[int, Patch]]:
    """Patches of stretches, in order, by box; some are fetched ahead. Bytes are added to the stage."""
    with ThreadPoolExecutor(AHEAD) as pool:
        coming = [pool.submit(_read, stretch) for stretch in stretches[:AHEAD]]
        for n in range(len(stretches)):
            data = coming.pop(0).result()
            if n + AHEAD < len(stretches):
                coming.append(pool.submit(_read, stretches[n + AHEAD]))
            assembling.nbytes += len(data)
            yield unpack(load(data))


def _read(stretch: Stretch) -> bytes:
    url, start, stop, checksum = stretch
    path = storage.filesystem(url)[1]
    for _ in range(FETCHES):
        (data,) = storage.read_ranges(url, [path], [start], [stop])
        if isinstance(data, BaseException):
            raise data
        if len(data) == stop - start and crc64(data) == checksum:
            return bytes(data)
    raise DamagedError(
        f"patches are damaged, their checksum does not match: file={url}, bytes={start} to {stop}; "
        "remove the unfinished store, then run the same command again"
    )
