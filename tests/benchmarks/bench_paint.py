"""What painting number, mass and momentum costs a tracer, against other codes and the machine's memory in the same run.

python tests/benchmarks/bench_paint.py [--tracers 4000000] [--cells 256] [--repeat 3]

One thread, CPU time; the best of ``--repeat`` rounds, the methods taking turns, so that a busy machine disturbs all
alike. Tracers come at random, or by blocks of 64³ cells as the ranks of a simulation write them, in random order in
each. The codes that paint one field a call are called five times, in float32, which they prefer. Bounds: ``copy`` is
NumPy's copy of an array far larger than the caches; ``touch`` adds 1 to every number of every cell of every tracer's
cloud, their places known beforehand and asked for early, and reads the tracers: the traffic of painting without its
arithmetic. Prints CPU nanoseconds a tracer, and for ours the ratios.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from velfield.kernel import kernel, prefetch
from velfield.painting.clouds import CELLS_PER_AXIS
from velfield.painting.paint import Canvas, paint

CELLSIZE = 5.0  # h⁻¹Mpc
BLOCK = 64  # cells along a block's side
FIELDS = 5


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


def by_abacusutils(tsc_parallel, pos, vel, mass, cellsize, ngrid):
    """(5, cells) by five calls of abacusutils; its cell i is centred at i cellsize, ours at i + ½."""
    sums = np.zeros((FIELDS, ngrid, ngrid, ngrid), dtype=np.float32)
    shifted = np.mod(pos - np.float32(cellsize / 2), np.float32(ngrid * cellsize))
    for row, value in enumerate((None, mass, *np.ascontiguousarray(vel.T))):
        tsc_parallel(shifted, sums[row], ngrid * cellsize, weights=value, nthread=1, wrap=False)
    return sums.reshape(FIELDS, -1)


def by_pylians(assign, pos, vel, mass, cellsize, ngrid, assignment):
    """(5, cells) by five calls of Pylians' mass assignment; its cell i is centred at i cellsize, ours at i + ½."""
    sums = np.zeros((FIELDS, ngrid, ngrid, ngrid), dtype=np.float32)
    shifted = np.mod(pos - np.float32(cellsize / 2), np.float32(ngrid * cellsize))
    for row, value in enumerate((None, mass, *np.ascontiguousarray(vel.T))):
        assign(shifted, sums[row], np.float32(ngrid * cellsize), assignment.upper(), W=value, verbose=False)
    return sums.reshape(FIELDS, -1)


class Ours:
    """One canvas to which the same tracers are added again and again, as a block task does with its ranges of rows."""

    def __init__(self, ngrid, assignment):
        self.canvas = Canvas(
            cellsize=CELLSIZE,
            start=(0, 0, 0),
            shape=(ngrid,) * 3,
            ngrid=ngrid,
            assignment=assignment,
            mass=True,
            momentum=True,
        )

    def __call__(self, pos, vel, mass):
        self.canvas.add(pos, vel, mass)

    def sums(self, pos, vel, mass):
        """(5, cells) of one pass."""
        self.canvas._padded[:] = 0
        self(pos, vel, mass)
        return np.moveaxis(self.canvas.sums, -1, 0).reshape(FIELDS, -1)


@kernel
def _touch(flat, at, pos, vel, mass, cloud, row, plane, width):
    last = len(at) - 1
    for t in range(len(at)):
        ahead = at[min(t + 8, last)]
        for a in range(cloud):
            for b in range(cloud):
                for line in range(0, width, 8):
                    prefetch(flat, ahead + a * plane + b * row + line)
                prefetch(flat, ahead + a * plane + b * row + width - 1)
        one = 1.0 + 1e-30 * (pos[t, 0] + pos[t, 1] + pos[t, 2] + vel[t, 0] + vel[t, 1] + vel[t, 2] + mass[t])
        for a in range(cloud):
            for b in range(cloud):
                first = np.uint64(at[t] + a * plane + b * row)
                for j in range(width):
                    flat[first + np.uint64(j)] += one


def touch(canvas, pos, vel, mass):
    """The traffic of painting onto this canvas; returns a call that makes it."""
    cells = canvas._cells
    _, ny, nz, _ = canvas._padded.shape
    first = np.floor(pos / CELLSIZE - (0.5 if cells == 2 else 1 if cells == 3 else 0)).astype(np.int64) + cells - 1
    at = ((first[:, 0] * ny + first[:, 1]) * nz + first[:, 2]) * FIELDS
    flat = canvas._padded.reshape(-1)
    return lambda: _touch(flat, at, pos, vel, mass, cells, nz * FIELDS, ny * nz * FIELDS, cells * FIELDS)


def outside(pos, vel, mass, ngrid):
    """Paint a window that no tracer reaches: what rejecting one costs."""
    paint(pos, vel, mass, cellsize=CELLSIZE, start=(2 * ngrid,) * 3, shape=(8,) * 3, ngrid=4 * ngrid)


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


def tracers(n, ngrid, order):
    """Positions, velocities and masses, float32: at random, or block by block."""
    rng = np.random.default_rng(0)
    side = np.float32(ngrid * CELLSIZE)
    pos = np.minimum(rng.random((n, 3), dtype=np.float32) * side, np.nextafter(side, np.float32(0)))
    if order == "by blocks":
        block = (pos / np.float32(BLOCK * CELLSIZE)).astype(np.int64)
        number = -(-ngrid // BLOCK)
        pos = pos[np.argsort((block[:, 0] * number + block[:, 1]) * number + block[:, 2], kind="stable")]
    return pos, 300 * rng.standard_normal((n, 3), dtype=np.float32), rng.lognormal(0, 1, n).astype(np.float32)


def peers():
    """The codes that are installed."""
    found = {}
    try:
        from abacusnbody.analysis.tsc import tsc_parallel

        found["abacusutils, 5 calls"] = ("tsc",), lambda *of: by_abacusutils(tsc_parallel, *of[:-1])
    except ImportError:
        pass
    try:
        from MAS_library import MA

        found["Pylians, 5 calls"] = ("ngp", "cic", "tsc"), lambda *of: by_pylians(MA, *of)
    except ImportError:
        pass
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracers", type=int, default=4_000_000)
    parser.add_argument("--cells", type=int, default=256, help="along a side")
    parser.add_argument("--assignment", nargs="+", default=list(CELLS_PER_AXIS), choices=list(CELLS_PER_AXIS))
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    n, ngrid = args.tracers, args.cells
    source, target = np.ones(2**25), np.empty(2**25)
    copy = race({"copy": lambda: np.copyto(target, source)}, args.repeat)["copy"]
    print(f"{n:,} tracers, {ngrid}³ cells, float32 in; a copy moves {2 * source.nbytes / copy / 1e9:.1f} GB/s")  # noqa: T201
    print(f"{'':4} {'order':10} {'method':21} {'ns':>7} {'10⁶/s':>6} {'× ours':>7} {'rms to ours':>11}")  # noqa: T201
    for order in ("random", "by blocks"):
        given = tracers(n, ngrid, order)
        for assignment in args.assignment:
            mine = Ours(ngrid, assignment)
            reference = mine.sums(*given)
            full: dict[str, Callable[[], object]] = {
                name: lambda f=f, a=assignment, g=given: f(*g, CELLSIZE, ngrid, a)
                for name, (known, f) in peers().items()
                if assignment in known
            } | {
                "np.bincount": lambda a=assignment, g=given: by_bincount(*g, CELLSIZE, ngrid, a),
                "np.add.at": lambda a=assignment, g=given: by_add_at(*g, CELLSIZE, ngrid, a),
            }
            rms = {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for name, method in full.items():
                    off = np.asarray(method()) - reference
                    rms[name] = np.sqrt(np.mean(off**2) / np.mean(reference**2))
                    del off
                least = {"velfield": lambda m=mine, g=given: m(*g), "touch": touch(mine.canvas, *given)}
                seconds = race(least | full, args.repeat)
            for name, took in seconds.items():
                accuracy = f"{rms[name]:11.1e}" if name in rms else ""
                print(  # noqa: T201
                    f"{assignment:4} {order:10} {name:21} {took / n * 1e9:7.1f} {n / took / 1e6:6.1f} "
                    f"{took / seconds['velfield']:7.2f} {accuracy}",
                    flush=True,
                )
    miss = race({"outside": lambda: outside(*given, ngrid)}, args.repeat)["outside"]
    print(f"a tracer outside the window (ngp): {miss / n * 1e9:.1f} ns")  # noqa: T201


if __name__ == "__main__":
    main()
