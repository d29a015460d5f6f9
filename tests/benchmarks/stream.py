"""Paint particles that never exist on disk: a file system that makes the bytes of a GenericIO file when they are read.

python tests/benchmarks/stream.py OUT [--particles 1e9] [--boxes 10] [--cells 60] [--workers 2] [--report run.html]

The file has Outer Rim's volume and ranks (3000 h⁻¹Mpc, 12 × 10 × 10), particles at random in each of them, and the CRCs
of all its columns, so that the whole path of a real catalogue is taken: ranged reads, checksums, ranges of rows,
patches, boxes. Bytes are made by the workers that read them, which takes some of their time: it is measured beside.
"""

from __future__ import annotations

import argparse
import functools
import io
import time
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from distributed import WorkerPlugin

from velfield.catalogues.genericio_layout import CRC_BYTES, FLOAT, SIGNED, Column, crc64
from velfield.catalogues.genericio_write import POSITIONS, _FileWriter
from velfield.files import storage
from velfield.files.progress import Progress, Terminal
from velfield.pipelines.cluster import connect
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.pipelines.paint_plan import WORKER_BASE, plan_of
from velfield.pipelines.watch import reported

DIMS = (12, 10, 10)
BOXSIZE = 3000.0
NAMES = ("x", "y", "z", "vx", "vy", "vz")
COLUMNS = tuple(Column(name=n, dtype=np.dtype("<f4"), flags=FLOAT | SIGNED) for n in NAMES)


@functools.lru_cache(maxsize=1)
def template(rows: int) -> np.ndarray:
    """Places in a rank of side 1 and velocities, (6, rows): the same for every rank."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.random((3, rows), dtype=np.float32), 300 * rng.standard_normal((3, rows), dtype=np.float32)]
    )


@functools.lru_cache(maxsize=1)
def header(rows: int) -> bytes:
    """The header of the file; where the data begin follows from its length."""
    ranks = range(int(np.prod(DIMS)))
    file = io.BytesIO()
    writer = _FileWriter(file, ranks, DIMS, (0.0, 0.0, 0.0), BOXSIZE, False, POSITIONS)
    start = writer.header_bytes(COLUMNS) + CRC_BYTES
    writer.rows = [rows] * len(ranks)
    step = 4 * rows + CRC_BYTES
    writer.blocks = [(b"", start + i * step, 4 * rows) for i in range(len(ranks) * len(COLUMNS))]
    writer.finish(COLUMNS)
    return file.getvalue()


def column(rows: int, rank: int, v: int, part: slice) -> bytes:
    """Some rows of a column of a rank."""
    values = template(rows)[v, part]
    if v >= 3:
        return (values + np.float32(rank % 7)).tobytes()
    place = np.unravel_index(rank, DIMS)[v]
    side = BOXSIZE / DIMS[v]
    low, high = np.float32(place * side), np.float32((place + 1) * side)
    return np.minimum(low + values * np.float32(side), np.nextafter(high, np.float32(0))).tobytes()


class StreamFileSystem(fsspec.AbstractFileSystem):
    """``stream://ROWS/m000.mpicosmo.499``: that many rows in each rank."""

    protocol = "stream"
    cachable = True

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size of the file."""
        path = self._strip_protocol(path)
        rows = self._rows(path)
        size = len(header(rows)) + int(np.prod(DIMS)) * len(COLUMNS) * (4 * rows + CRC_BYTES)
        return {"name": path, "size": size, "type": "file", "ETag": f"stream-{rows}"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Make the bytes of a range."""
        rows = self._rows(self._strip_protocol(path))
        head, size = header(rows), self.info(path)["size"]
        start, end = start or 0, size if end is None else min(end, size)
        parts = [head[start:end]]
        step = 4 * rows + CRC_BYTES
        at = max(start - len(head), 0)
        while at < end - len(head):
            index, within = divmod(at, step)
            rank, v = divmod(index, len(COLUMNS))
            upto = min(step, within + end - len(head) - at)
            if within < 4 * rows:
                first, last = within // 4, -(-min(upto, 4 * rows) // 4)
                made = column(rows, rank, v, slice(first, last))
                parts.append(made[within - 4 * first : min(upto, 4 * rows) - 4 * first])
            if upto > 4 * rows:
                trailer = (crc64(column(rows, rank, v, slice(None))) ^ (2**64 - 1)).to_bytes(8, "little")
                parts.append(trailer[max(0, within - 4 * rows) : upto - 4 * rows])
            at += upto - within
        return b"".join(parts)

    def _rows(self, path: str) -> int:
        rows, _, name = path.partition("/")
        if not name.startswith("m000.mpicosmo.") or not rows.isdigit() or "#" in name:
            raise FileNotFoundError(path)
        return int(rows)


class Register(WorkerPlugin):
    """Make the file system known to a worker."""

    name = "stream"

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        """Register it."""
        fsspec.register_implementation("stream", StreamFileSystem, clobber=True)


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a painting took, as its report says."""

    rows: int
    seconds: float
    tasks: int
    planned_memory: int
    worker_memory: int
    scheduler_memory: int
    report: dict[str, Any]


def run(out: str, config: PaintConfig, *, workers: int, report: str, progress: Progress | None = None) -> Took:
    """Paint a stream and say what it took; the clock starts when the workers are there."""
    fsspec.register_implementation("stream", StreamFileSystem, clobber=True)
    job = prepare(out, config)
    plan = plan_of(job)
    with connect(workers=workers, quiet=True) as client:
        client.register_plugin(Register())
        with reported(client, report, "paint", {"particles": config.particles}):
            began = time.perf_counter()
            paint(client, job, progress)
            seconds = time.perf_counter() - began
    found = storage.read_json(report.removesuffix(".html") + ".json")
    return Took(
        rows=plan.rows,
        seconds=seconds,
        tasks=plan.tasks,
        planned_memory=plan.worker_memory + WORKER_BASE,
        worker_memory=max(found["worker_peak_memory"].values()),
        scheduler_memory=found["scheduler"]["peak_memory"],
        report=found,
    )


def making(rows: int) -> float:
    """Seconds that making a row takes, its share of the checksums included."""
    fs = StreamFileSystem()
    template(rows)
    start, step = len(header(rows)), len(COLUMNS) * (4 * rows + CRC_BYTES)
    began = time.process_time()
    for rank in range(4):
        fs.cat_file(f"{rows}/m000.mpicosmo.499", start + rank * step, start + (rank + 1) * step)
    return (time.process_time() - began) / 4 / rows


def main() -> None:
    """Paint, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--particles", type=float, default=1e9)
    parser.add_argument("--boxes", type=int, default=10)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--assignment", default="ngp")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", default="stream.html")
    args = parser.parse_args()
    rows = round(args.particles / np.prod(DIMS))
    config = PaintConfig(
        halos=None,
        particles=f"stream://{rows}/m000.mpicosmo.499",
        boxes=args.boxes,
        cells=args.cells,
        assignment=args.assignment,
        rsd="none",
    )
    with Terminal() as progress:
        took = run(args.out, config, workers=args.workers, report=args.report, progress=progress)
    print(  # noqa: T201
        f"{took.rows:,} particles in {took.seconds:.0f} s, {took.rows / took.seconds / 1e6:.2f} million a second, of "
        f"whose CPU time {making(rows) * took.rows / args.workers:.0f} s a worker went into making the bytes; "
        f"{took.tasks:,} tasks, peak of a worker {took.worker_memory / 2**20:.0f} MiB "
        f"(planned {took.planned_memory / 2**20:.0f}), of command and scheduler {took.scheduler_memory / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    import stream  # under its own name, by which workers find it, too

    stream.main()
