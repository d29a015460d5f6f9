"""Tracers of the matter, and what no tracer can be: values that are not finite, places outside the box, and the like.

Every row of every catalogue is checked. The check reads each value once, some 1 ns a row, against 9 ns
that reading a row of GenericIO takes; only where it finds something does it look for what and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import CatalogueError, VelfieldError
from velfield.geometry.extent import Extent
from velfield.kernel import kernel

OUTSIDE = ("refuse", "wrap", "drop")
NAMES = ("x", "y", "z", "vx", "vy", "vz", "mass")
FASTEST = 30_000.0  # km/s along an axis, a tenth of light's speed: nothing falls so fast
HEAVIEST = 1e17  # h⁻¹M⊙ for one halo: some 20 times the heaviest in the observable universe
SLOWEST = 1.0  # km/s: where all of many tracers are slower, their unit is another
MANY = 1000
ROUNDING = 2.0**-22  # of the box's side: two units in the last place of a float32 there


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracers:
    """Points that trace the matter, in the columns' own precision.

    Parameters
    ----------
    pos : ndarray (N, 3)
        Comoving positions from the volume's corner [h⁻¹Mpc].
    vel : ndarray (N, 3) or None
        Proper peculiar velocities [km/s].
    mass : ndarray (N,) or None
        Masses [h⁻¹M⊙]; None for particles, which all weigh the same.
    dropped : int
        Rows that were left out because they lie outside the box.
    extent : Extent
        Of the positions as the catalogue has them, before any was wrapped or dropped; of none where it is not known.
    """

    pos: NDArray[Any]
    vel: NDArray[Any] | None
    mass: NDArray[Any] | None
    dropped: int = 0
    extent: Extent = field(default_factory=Extent)

    def __post_init__(self) -> None:
        check_shapes(self.pos, self.vel, self.mass)


def check_shapes(pos: NDArray[Any], vel: NDArray[Any] | None = None, mass: NDArray[Any] | None = None) -> None:
    """Refuse arrays that are not of N tracers: compiled loops take their shapes on trust."""
    n = len(pos) if pos.ndim else 0
    if pos.shape != (n, 3) or (vel is not None and vel.shape != (n, 3)) or (mass is not None and mass.shape != (n,)):
        raise VelfieldError(
            f"tracers' shapes do not fit: pos={pos.shape}, vel={None if vel is None else vel.shape}, "
            f"mass={None if mass is None else mass.shape}; give (N, 3), (N, 3) and (N,)"
        )


def check_tracers(
    tracers: Tracers,
    *,
    boxsize: float | None,
    where: str,
    first_row: int = 0,
    names: Sequence[str] = NAMES,
    outside: str = "refuse",
    whole: bool = False,
) -> None:
    """Refuse tracers of which some cannot be right, in one line that counts and locates them.

    Parameters
    ----------
    tracers : Tracers
        Not changed.
    boxsize : float or None
        Side of the volume [h⁻¹Mpc]; None where it is not known, then positions need only be finite.
    where : str
        The file, and the rank or block, as ``name=value, name=value``.
    first_row : int
        Number in the whole catalogue of the first of these rows.
    names : sequence of str
        The file's columns for x y z, vx vy vz and mass.
    outside : {"refuse", "wrap", "drop"}
        What will become of positions outside the box. Those that are to be wrapped may lie up to one side outside.
    whole : bool
        Whether these are all rows of the catalogue.
    """
    if outside not in OUTSIDE:
        raise VelfieldError(f"no such choice: outside={outside!r}; choose {', '.join(OUTSIDE)}")
    pos, vel, mass = tracers.pos, tracers.vel, tracers.mass
    low, high = _limits(pos.dtype, boxsize, outside)
    bad = _count_beyond(pos, low, high)
    if mass is not None:
        bad += _count_beyond(mass, 0.0, HEAVIEST)
    if vel is not None:
        bad += _count_beyond(vel, -FASTEST, FASTEST)
        _refuse_slow(vel, where, names)
    if bad:
        found = list(_problems(tracers, low, high, names, first_row, lambda: _outside_remedy(pos, boxsize, whole)))
        raise CatalogueError(
            f"rows that cannot be right: {where}, rows={len(pos)}, {', '.join(what for what, _ in found)}; "
            f"{', and '.join(remedy for _, remedy in found)}"
        )


def bring_inside(tracers: Tracers, *, boxsize: float | None, outside: str) -> Tracers:
    """Wrap or drop tracers outside the box; what lies on its edge to float32's rounding stays as it is."""
    if outside == "refuse" or boxsize is None:
        return tracers
    pos = tracers.pos
    low, high = _limits(pos.dtype, boxsize, "refuse")
    if not _count_beyond(pos, low, high):
        return tracers
    beyond: NDArray[np.bool_] = np.logical_or(pos < low, pos > high)
    if outside == "wrap":
        side = pos.dtype.type(boxsize)
        return replace(tracers, pos=np.where(beyond, pos % side, pos))
    keep: NDArray[np.bool_] = ~np.any(beyond, axis=1)
    return replace(
        tracers,
        pos=pos[keep],
        vel=None if tracers.vel is None else tracers.vel[keep],
        mass=None if tracers.mass is None else tracers.mass[keep],
        dropped=tracers.dropped + int(len(keep) - keep.sum()),
    )


def momentum_of(vel: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """Sum of velocities (N, 3) [km/s], each tracer counting once, and the sum of their lengths."""
    check_shapes(vel)
    total = np.zeros(3)
    return total, float(_add_velocities(vel, total))


def _refuse_slow(vel: NDArray[Any], where: str, names: Sequence[str]) -> None:
    if len(vel) < MANY or np.abs(vel[:MANY]).max() >= SLOWEST:
        return
    fastest = float(np.abs(vel).max())
    if 0 < fastest < SLOWEST:
        raise CatalogueError(
            f"velocities too slow to be in km/s: {where}, rows={len(vel)}, fastest={fastest:.3g}, "
            f"columns={', '.join(names[3:6])}; state their unit"
        )


def _limits(dtype: np.dtype[Any], boxsize: float | None, outside: str) -> tuple[float, float]:
    """Least and largest coordinate that is let through."""
    if boxsize is None or outside == "drop":
        return -_largest(dtype), _largest(dtype)
    if outside == "wrap":
        return -boxsize, 2 * boxsize
    return -boxsize * ROUNDING, boxsize * (1 + ROUNDING)


def _largest(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max)


def _problems(
    tracers: Tracers, low: float, high: float, names: Sequence[str], first_row: int, remedy: Callable[[], str]
) -> Iterator[tuple[str, str]]:
    """What is wrong, counted and located, and what helps."""
    columns = dict(zip(names[:3], tracers.pos.T, strict=True))
    speeds = {} if tracers.vel is None else dict(zip(names[3:6], tracers.vel.T, strict=True))
    masses = {} if tracers.mass is None else {names[6]: tracers.mass}

    def report(what: str, of: dict[str, Any], wrong: Any) -> str | None:
        marks = {name: wrong(values) for name, values in of.items()}
        if not any(mark.any() for mark in marks.values()):
            return None
        rows = np.flatnonzero(np.logical_or.reduce(list(marks.values())))
        name = next(name for name, mark in marks.items() if mark[rows[0]])
        return f"{len(rows)} {what} (row={first_row + int(rows[0])}, column={name}, value={of[name][rows[0]]:.8g})"

    with np.errstate(invalid="ignore"):
        if found := report("not finite", columns | speeds | masses, lambda v: ~np.isfinite(v)):
            yield found, "remove the rows that are not finite"
        beyond = report("outside the box", columns, lambda v: np.isfinite(v) & ((v < low) | (v > high)))
        if beyond:
            yield f"{beyond[:-1]}, limits={low:.6g} to {high:.6g})", remedy()
        if found := report("of negative mass", masses, lambda v: np.isfinite(v) & (v < 0)):
            yield found, "remove the rows without a mass"
        if found := report("of an absurd mass", masses, lambda v: np.isfinite(v) & (v > HEAVIEST)):
            yield found, f"state the masses' unit, as {HEAVIEST:g} h⁻¹M⊙ is the limit"
        if found := report("too fast", speeds, lambda v: np.isfinite(v) & (np.abs(v) > FASTEST)):
            yield found, f"state the velocities' unit, as {FASTEST:.0f} km/s is the limit"


def check_reach(extent: Extent, *, boxsize: float | None, where: str) -> None:
    """Refuse a whole catalogue whose positions do not reach beyond a corner of the box: they are in another unit.

    Parameters
    ----------
    extent : Extent
        Of all its positions, as the catalogue has them.
    boxsize : float or None
        Side of the volume [h⁻¹Mpc]; None where it is not known.
    where : str
        The catalogue, as ``name=value``.
    """
    if boxsize is not None and extent.in_a_corner(boxsize):
        reach = f"from {min(extent.lower):.6g} to {max(extent.upper):.6g}"
        raise CatalogueError(
            f"positions in a corner of the box: {where}, rows={extent.rows}, {reach}, span={extent.span:.6g}, "
            f"boxsize={boxsize:g}; {_other_unit(extent, boxsize)}"
        )


def _other_unit(extent: Extent, boxsize: float) -> str:
    """What to do with positions in a corner of the box."""
    unit = extent.unit(boxsize)
    if unit is None:
        return "check the positions' unit and the boxsize"
    return f"they seem to be in {unit[0]}: name it with the column, as in 'x=NAME [{unit[1]}]', or check the boxsize"


def _outside_remedy(pos: NDArray[Any], boxsize: float | None, whole: bool) -> str:
    """What to do with positions of which some lie outside; to wrap is proposed only for those next to the box."""
    extent, side = Extent.of(pos), boxsize or np.inf
    if extent.in_a_corner(side) and (whole or extent.unit(side)):
        return _other_unit(extent, side)
    furthest = float(np.abs(pos, where=np.isfinite(pos), out=np.zeros(pos.shape)).max()) / side
    unit = " (they may be in kpc)" if 300 < furthest < 3000 else " (they may lack h)" if 1.25 < furthest < 2 else ""
    choices = "wrap or drop" if furthest <= 2 else "drop"
    return f"check the positions' unit{unit} and the boxsize, or choose outside={choices} (--outside)"


def _count_beyond(values: NDArray[Any], low: float, high: float) -> int:
    # limits of the values' own type: the loop then takes several values at a time
    return int(_count(values.ravel(), values.dtype.type(low), values.dtype.type(high)))


@kernel
def _count(values, low, high):
    """How many are not in [low, high]; what is no number is in no interval."""
    count = 0
    for i in range(len(values)):
        count += not (low <= values[i] <= high)
    return count


@kernel
def _add_velocities(vel, total):
    speed = 0.0
    for p in range(len(vel)):
        x, y, z = np.float64(vel[p, 0]), np.float64(vel[p, 1]), np.float64(vel[p, 2])
        total[0] += x
        total[1] += y
        total[2] += z
        speed += np.sqrt(x * x + y * y + z * z)
    return speed
