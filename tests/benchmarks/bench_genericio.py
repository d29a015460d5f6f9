"""How fast GenericIO is read: ours with and without CRC against NumPy reading the same bytes, in one run.

python tests/benchmarks/bench_genericio.py [--rows 2000000] [--ranks 4] [--repeat 12]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

from velfield.catalogues import genericio
from velfield.catalogues.catalogue import open_catalogue

NAMES = ("x", "y", "z", "vx", "vy", "vz")


def ranks(count: int, rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Particles at random, with an id: 32 bytes a row."""
    rng = np.random.default_rng(0)
    for rank in range(count):
        table = {name: 100 * rng.random(rows, dtype=np.float32) for name in NAMES}
        yield {**table, "id": np.arange(rank * rows, (rank + 1) * rows)}


def best(cases: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Shortest time of each [s], in rounds over all cases: a busy moment of the machine then hits them alike."""
    times = dict.fromkeys(cases, float("inf"))
    for _ in range(repeat):
        for name, work in cases.items():
            began = time.perf_counter()
            work()
            times[name] = min(times[name], time.perf_counter() - began)
    return times


def main() -> None:
    """Write the file, read it in each way, print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2_000_000, help="rows of a rank")
    options.add_argument("--ranks", type=int, default=4)
    options.add_argument("--repeat", type=int, default=12)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = f"{folder}/plain", f"{folder}/packed"
        for url, compress in ((plain, False), (packed, True)):
            began = time.perf_counter()
            genericio.write(
                url, ranks(args.ranks, args.rows), dims=(args.ranks, 1, 1), boxsize=100.0, compress=compress
            )
            seconds = time.perf_counter() - began
            print(f"wrote {url.rpartition('/')[2]}: {os.path.getsize(url) / 1e6:.0f} MB in {seconds:.1f} s")  # noqa: T201
        gio, blosc = genericio.open(plain), genericio.open(packed)
        cat = open_catalogue(plain, redshift=0.0)
        rows, size = gio.nrows, 32 * gio.nrows
        cases: dict[str, tuple[Callable[[], object], int]] = {
            "numpy.fromfile": (lambda: np.fromfile(plain, np.float32), size),
            "read, CRC checked": (lambda: gio.read(), size),
            "read, CRC not checked": (lambda: gio.read(check=False), size),
            "read of x y z, CRC checked": (lambda: gio.read(["x", "y", "z"]), 12 * rows),
            "read of blosc, CRC checked": (lambda: blosc.read(), size),
            "tracers, CRC checked": (lambda: cat.tracers(), 24 * rows),
        }
        times = best({name: work for name, (work, _) in cases.items()}, args.repeat)
        base = size / times["numpy.fromfile"] / 1e6
        print(f"\n{'':28}{'MB/s':>8}{'rows/s':>12}{'of fromfile':>13}")  # noqa: T201
        for name, (_, nbytes) in cases.items():
            rate = nbytes / times[name] / 1e6
            print(f"{name:28}{rate:8.0f}{rows / times[name]:12.3g}{rate / base:13.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
