"""Tracers a second of the fused painting kernel, against NumPy and abacusutils on the same tracers in the same run.

Run as a script: ``python tests/benchmarks/bench_paint.py --tracers 2000000 --cells 60``. One thread, CPU time; the
best of ``--repeat`` rounds of each, the methods taking turns, so that a busy machine disturbs all alike. Number, mass
and momentum are painted by all; abacusutils paints one field a call, so it is called five times, in float32, which it
prefers. Prints the rates, their ratio to NumPy's, and the rms difference from ours.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from velfield.paint import paint

BOXSIZE = 300.0  # h⁻¹Mpc


def corners(pos, cellsize, ngrid, assignment):
    """Yield for each cell of the clouds the flat index and the weight of all tracers."""
    u = pos.astype(np.float64) / cellsize
    if assignment == "ngp":
        first, shares = np.floor(u).astype(np.int64), [np.ones_like(u)]
    elif assignment == "cic":
        first = np.floor(u - 0.5).astype(np.int64)
        d = u - 0.5 - first
        shares = [1 - d, d]
    else:
        first = np.floor(u).astype(np.int64) - 1
        d = u - first - 1.5
        shares = [0.5 * (0.5 - d) ** 2, 0.75 - d * d, 0.5 * (0.5 + d) ** 2]
    for a, wx in enumerate(shares):
        for b, wy in enumerate(shares):
            for c, wz in enumerate(shares):
                i, j, k = ((first[:, axis] + step) % ngrid for axis, step in enumerate((a, b, c)))
                yield (i * ngrid + j) * ngrid + k, wx[:, 0] * wy[:, 1] * wz[:, 2]


def by_bincount(pos, vel, mass, cellsize, ngrid, assignment):
    """(5, cells): number, mass and momentum by np.bincount."""
    sums = np.zeros((5, ngrid**3))
    for cell, w in corners(pos, cellsize, ngrid, assignment):
        for row, value in enumerate((1, mass, vel[:, 0], vel[:, 1], vel[:, 2])):
            sums[row] += np.bincount(cell, w * value, minlength=ngrid**3)
    return sums


def by_add_at(pos, vel, mass, cellsize, ngrid, assignment):
    """(5, cells): number, mass and momentum by np.add.at."""
    sums = np.zeros((5, ngrid**3))
    for cell, w in corners(pos, cellsize, ngrid, assignment):
        for row, value in enumerate((1, mass, vel[:, 0], vel[:, 1], vel[:, 2])):
            np.add.at(sums[row], cell, w * value)
    return sums


def ours(pos, vel, mass, cellsize, ngrid, assignment):
    """(5, cells): number, mass and momentum by one pass of the fused kernel."""
    painted = paint(
        pos, vel, mass, cellsize=cellsize, start=(0, 0, 0), shape=(ngrid,) * 3, ngrid=ngrid, assignment=assignment
    )
    assert painted.mass is not None
    assert painted.momentum is not None
    return np.concatenate([[painted.number.ravel(), painted.mass.ravel()], painted.momentum.reshape(3, -1)])


def by_abacusutils(tsc_parallel, pos, vel, mass, cellsize, ngrid):
    """(5, cells) by five calls of abacusutils; its cell i is centred at i cellsize, ours at i + ½."""
    sums = np.zeros((5, ngrid, ngrid, ngrid), dtype=np.float32)
    shifted = np.mod(pos - np.float32(cellsize / 2), np.float32(ngrid * cellsize))
    for row, value in enumerate((None, mass, *np.ascontiguousarray(vel.T))):
        tsc_parallel(shifted, sums[row], ngrid * cellsize, weights=value, nthread=1, wrap=False)
    return sums.reshape(5, -1)


def outside(pos, vel, mass, cellsize, ngrid):
    """Paint a window that no tracer reaches: what rejecting one costs."""
    paint(pos, vel, mass, cellsize=cellsize, start=(2 * ngrid,) * 3, shape=(8,) * 3, ngrid=4 * ngrid)


def race(methods: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Best CPU time of each [s]; a first call, which may compile, is not counted."""
    best = dict.fromkeys(methods, np.inf)
    for turn in range(repeat + 1):
        for name, method in methods.items():
            began = time.process_time()
            method()
            if turn:
                best[name] = min(best[name], time.process_time() - began)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracers", type=int, default=1_000_000)
    parser.add_argument("--cells", type=int, default=60, help="along a side")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    try:
        from abacusnbody.analysis.tsc import tsc_parallel
    except ImportError:
        tsc_parallel = None
    rng = np.random.default_rng(0)
    n, ngrid, cellsize = args.tracers, args.cells, BOXSIZE / args.cells
    pos = np.minimum(rng.uniform(0, BOXSIZE, (n, 3)).astype(np.float32), np.nextafter(np.float32(BOXSIZE), 0))
    vel = rng.normal(0, 300, (n, 3)).astype(np.float32)
    mass = rng.lognormal(0, 1, n).astype(np.float32)
    print(f"{n} tracers in random order, {ngrid}³ cells, number + mass + momentum, float32 input, 1 thread, CPU time")  # noqa: T201
    print(f"{'':4} {'method':22} {'10⁶ tracers/s':>13} {'× bincount':>10} {'rms to ours':>11}")  # noqa: T201
    for assignment in ("ngp", "cic", "tsc"):
        given = (pos, vel, mass, cellsize, ngrid)
        methods: dict[str, Callable[[], object]] = {
            "velfield": lambda a=assignment, g=given: ours(*g, a),
            "np.bincount": lambda a=assignment, g=given: by_bincount(*g, a),
            "np.add.at": lambda a=assignment, g=given: by_add_at(*g, a),
        }
        if assignment == "tsc" and tsc_parallel is not None:
            methods["abacusutils, 5 calls"] = lambda g=given: by_abacusutils(tsc_parallel, *g)
        reference = ours(*given, assignment)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds = race(methods, args.repeat)
            for name, method in methods.items():
                rms = np.sqrt(np.mean((np.asarray(method()) - reference) ** 2) / np.mean(reference**2))
                faster = seconds["np.bincount"] / seconds[name]
                print(f"{assignment:4} {name:22} {n / seconds[name] / 1e6:13.2f} {faster:10.1f} {rms:11.1e}")  # noqa: T201
    miss = race({"outside": lambda: outside(pos, vel, mass, cellsize, ngrid)}, args.repeat)["outside"]
    print(f"a tracer outside the window (ngp): {miss / n * 1e9:.1f} ns")  # noqa: T201


if __name__ == "__main__":
    main()
