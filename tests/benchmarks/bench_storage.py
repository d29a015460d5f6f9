"""What share of the storage's and of the kernel's speed a painting reaches: all three in the same run, in turn.

python tests/benchmarks/bench_storage.py [--rows 2000000] [--side 2] [--boxes 2] [--cells 32] [--workers 1 2]

Plain reads fetch the same bytes and do nothing with them; the kernel paints tracers that are in memory. Where one has
cores to itself that the other does not need, a painting can be as fast as the slower of them; where both want the same
cores, as on one machine that is busy with either, at best as fast as one after the other.

Local files always, from the page cache, if the catalogue fits in it; the same files at a set rate (--rate, all workers
together), as a disk or a network with cores of its own has it; object storage where VELFIELD_BENCH_S3 names a folder
(s3://bucket/folder) and AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or other settings of AWS say how
to get there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from distributed import Client
from set_rate import set_rate

from velfield.catalogues import genericio
from velfield.catalogues.genericio_layout import CRC_BYTES
from velfield.files import storage
from velfield.painting.patches import BlockPainter
from velfield.pipelines.cluster import connect
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import ROWS, PaintConfig, prepare
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


def kernel_seconds(config: PaintConfig, block: int) -> float:
    """Seconds of painting a block's tracers that are in memory."""
    job = prepare("memory://nowhere", config)
    parts = list(job.catalogues["particles"].chunks(block, rows=ROWS, masses=False))
    painter = BlockPainter(job.scene, shifted=False, mass=False, momentum=True)
    began = time.perf_counter()
    for part in parts:
        painter.add(part.pos, part.vel, None)
    return time.perf_counter() - began


def kernels(client: Client, url: str, boxes: int, cells: int, blocks: int, workers: int) -> float:
    """Seconds in which the workers together paint all blocks' tracers, had they all in memory."""
    config = PaintConfig(halos=None, particles=url, boxes=boxes, cells=cells, redshift=0.0)
    futures = [client.submit(kernel_seconds, config, block, pure=False) for block in range(blocks)]
    return sum(client.gather(futures)) / workers


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
    options.add_argument("--rate", type=int, default=200, help="MB/s of the storage that has a set rate")
    options.add_argument("--repeat", type=int, default=2)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {"page cache": folder, f"{args.rate} MB/s": folder}
        if os.environ.get("VELFIELD_BENCH_S3"):
            places["object storage"] = os.environ["VELFIELD_BENCH_S3"]
        try:
            for place in set(places.values()):
                catalogue = particles(args.side, args.rows)
                genericio.write(storage.join(place, "cat"), catalogue, dims=(args.side,) * 3, boxsize=BOXSIZE)
            print(f"{args.side**3} blocks of {args.rows:,} rows; best of {args.repeat}")  # noqa: T201
            heads = ("plain", "kernel", "painting", "of plain", "of kernel", "of both")
            print(f"{'place':<16} {'workers':>7} {'MB':>7} " + " ".join(f"{head:>9}" for head in heads))  # noqa: T201
            for workers in args.workers:
                with connect(workers=workers, quiet=True) as client:
                    set_rate(args.rate * 1e6 / workers)
                    client.run(set_rate, args.rate * 1e6 / workers)
                    for name, place in places.items():
                        url, out = storage.join(place, "cat"), storage.join(place, "out.zarr")
                        url = f"setrate://{url}" if name.endswith("MB/s") else url
                        painting(client, url, out, args.boxes, args.cells)  # compiles the loops, fills the caches
                        reads, kernel_times, paintings = [], [], []
                        for _ in range(args.repeat):
                            size, seconds = plain(client, url)
                            reads.append(seconds)
                            kernel_times.append(kernels(client, url, args.boxes, args.cells, args.side**3, workers))
                            paintings.append(painting(client, url, out, args.boxes, args.cells)[1])
                        read, kernel, painted = min(reads), min(kernel_times), min(paintings)
                        rates = " ".join(f"{size / 1e6 / seconds:>9.0f}" for seconds in (read, kernel, painted))
                        shares = " ".join(f"{s / painted:>9.2f}" for s in (read, kernel, read + kernel))
                        print(f"{name:<16} {workers:>7} {size / 1e6:>7.0f} {rates} {shares}", flush=True)  # noqa: T201
        finally:
            if "object storage" in places:
                for name in ("cat", "out.zarr"):
                    storage.remove(storage.join(places["object storage"], name))


if __name__ == "__main__":
    main()
