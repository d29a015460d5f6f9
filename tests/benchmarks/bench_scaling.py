"""Time, memory and tasks of a painting as its catalogue grows, with one worker and with two.

python tests/benchmarks/bench_scaling.py [--particles 1e7] [--times 1 2 4 8 16] [--workers 1 2]

The catalogues are streams (stream.py) in Outer Rim's volume and 1200 ranks, all painted into the same boxes. Prints
what making the bytes took, memory against the plan, and by least squares what a job and what a particle cost.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
from stream import DIMS, making, run

from velfield.pipelines.paint_job import PaintConfig


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=float, default=1e7, help="of the smallest catalogue")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--boxes", type=int, default=10)
    parser.add_argument("--cells", type=int, default=30)
    args = parser.parse_args()
    print(  # noqa: T201
        "| workers | particles | tasks | s | 10⁶/s | s for making bytes | worker MiB | planned MiB | scheduler MiB |\n"
        + "| --- " * 9
        + "|"
    )
    for workers in args.workers:
        sizes, seconds = [], []
        for times in args.times:
            rows = round(args.particles * times / np.prod(DIMS))
            config = PaintConfig(
                halos=None,
                particles=f"stream://{rows}/m000.mpicosmo.499",
                boxes=args.boxes,
                cells=args.cells,
                rsd="none",
            )
            with tempfile.TemporaryDirectory() as folder:
                took = run(f"{folder}/out.zarr", config, workers=workers, report=f"{folder}/report.html")
            sizes.append(took.rows)
            seconds.append(took.seconds)
            mib = [m / 2**20 for m in (took.worker_memory, took.planned_memory, took.scheduler_memory)]
            print(  # noqa: T201
                f"| {workers} | {took.rows:,} | {took.tasks:,} | {took.seconds:.1f} "
                f"| {took.rows / took.seconds / 1e6:.2f} | {making(rows) * took.rows / workers:.1f} | "
                + " | ".join(f"{m:.0f}" for m in mib)
                + " |",
                flush=True,
            )
        slope, start = np.polyfit(sizes, seconds, 1)
        print(f"{workers} workers: {start:.1f} s, and {slope * workers * 1e9:.0f} core-ns a particle")  # noqa: T201


if __name__ == "__main__":
    main()
