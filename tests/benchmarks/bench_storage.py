"""What share of the storage's speed a painting reaches, against plain reads of the same bytes in the same run.

python tests/benchmarks/bench_storage.py [--rows 2000000] [--side 2] [--boxes 2] [--cells 32] [--workers 1 2]

Local files always; object storage where VELFIELD_BENCH_S3 names a folder (s3://bucket/folder) and AWS_ENDPOINT_URL and
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or other settings of AWS say how to get there. Reads are of the page cache, if
the catalogue fits in it: then this is an upper bound of what a disk gives.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from distributed import Client

from velfield import genericio, storage
from velfield.genericio_layout import CRC_BYTES
from velfield.pipelines.cluster import connect
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.pipelines.paint_plan import plan_of

RANGE, AT_ONCE = 8 * 2**20, 16
BOXSIZE = 400.0  # [h⁻¹Mpc]


def particles(side: int, rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Particles at random in each of side³ cubes, as a simulation's ranks have them: 24 bytes a row."""
    rng = np.random.default_rng(0)
    for rank in range(side**3):
        corner = np.array(np.unravel_index(rank, (side, side, side)), dtype=np.float32)
        pos = (corner + rng.random((rows, 3), dtype=np.float32)) * np.float32(BOXSIZE / side)
        vel = 300 * rng.standard_normal((rows, 3), dtype=np.float32)
        table = {name: np.minimum(pos[:, i], np.float32(BOXSIZE * (1 - 1e-7))) for i, name in enumerate("xyz")}
        yield table | {name: vel[:, i] for i, name in enumerate(("vx", "vy", "vz"))}


def read_block(url: str, ranges: list[tuple[str, int, int]]) -> int:
    """Plain reads: as large and as many at once as ours, decoded by nobody."""
    total = 0
    for first in range(0, len(ranges), AT_ONCE):
        found = storage.read_ranges(url, *zip(*ranges[first : first + AT_ONCE], strict=True))
        total += sum(len(data) for data in found)
    return total


def block_ranges(url: str) -> list[list[tuple[str, int, int]]]:
    """Of each block, path and bounds of the reads that fetch it."""
    gio = genericio.open(url)
    blocks = []
    for header in gio.headers:
        path = storage.filesystem(header.url)[1]
        for r in range(len(header.nrows)):
            start, stop = int(header.starts[r].min()), int((header.starts[r] + header.sizes[r]).max()) + CRC_BYTES
            blocks.append([(path, at, min(at + RANGE, stop)) for at in range(start, stop, RANGE)])
    return blocks


def plain(client: Client, url: str) -> tuple[int, float]:
    """Bytes and seconds of reading all blocks, spread over the workers."""
    blocks = block_ranges(url)
    began = time.perf_counter()
    futures = [client.submit(read_block, url, ranges, pure=False) for ranges in blocks]
    total = sum(client.gather(futures))
    return total, time.perf_counter() - began


def painting(client: Client, url: str, out: str, boxes: int, cells: int) -> tuple[int, float]:
    """Bytes and seconds of a painting, from opening the catalogue to the published store."""
    storage.remove(out)
    began = time.perf_counter()
    job = prepare(out, PaintConfig(halos=None, particles=url, boxes=boxes, cells=cells, redshift=0.0))
    paint(client, job)
    seconds = time.perf_counter() - began
    storage.remove(out)
    return plan_of(job).bytes_to_read, seconds


def main() -> None:
    """Write the catalogue, read and paint it from each place with each number of workers, print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2_000_000, help="rows of a block")
    options.add_argument("--side", type=int, default=2, help="blocks along a side")
    options.add_argument("--boxes", type=int, default=2)
    options.add_argument("--cells", type=int, default=32)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--repeat", type=int, default=2)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {"local": folder}
        if os.environ.get("VELFIELD_BENCH_S3"):
            places["object storage"] = os.environ["VELFIELD_BENCH_S3"]
        try:
            for place in places.values():
                catalogue = particles(args.side, args.rows)
                genericio.write(storage.join(place, "cat"), catalogue, dims=(args.side,) * 3, boxsize=BOXSIZE)
            print(f"{args.side**3} blocks of {args.rows:,} rows; best of {args.repeat}")  # noqa: T201
            print(f"{'place':<16} {'workers':>7} {'MB':>7} {'plain MB/s':>11} {'paint MB/s':>11} {'share':>6}")  # noqa: T201
            for workers in args.workers:
                with connect(workers=workers, quiet=True) as client:
                    for name, place in places.items():
                        url, out = storage.join(place, "cat"), storage.join(place, "out.zarr")
                        painting(client, url, out, args.boxes, args.cells)  # compiles the loops, fills the caches
                        size, read = min((plain(client, url) for _ in range(args.repeat)), key=lambda r: r[1])
                        _, painted = min(
                            (painting(client, url, out, args.boxes, args.cells) for _ in range(args.repeat)),
                            key=lambda r: r[1],
                        )
                        print(  # noqa: T201
                            f"{name:<16} {workers:>7} {size / 1e6:>7.0f} {size / 1e6 / read:>11.0f} "
                            f"{size / 1e6 / painted:>11.0f} {read / painted:>6.2f}"
                        )
        finally:
            if "object storage" in places:
                for name in ("cat", "out.zarr"):
                    storage.remove(storage.join(places["object storage"], name))


if __name__ == "__main__":
    main()
