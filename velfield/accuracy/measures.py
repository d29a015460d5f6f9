"""How near a predicted velocity field is to the true one: the paper's measures, with the choices it leaves open.

Each measure is taken box by box, over all cells of the box and over its centre and its edge apart, and then averaged
over the boxes; the scatter between boxes is kept, because it is large. docs/measures.md has the formulae.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.accuracy.calibration import NOMINAL, calibrate
from velfield.accuracy.labels import matched
from velfield.accuracy.places import Bins, Tracers, by_place
from velfield.accuracy.scales import by_scale
from velfield.arguments import number, numbers
from velfield.errors import VelfieldError

RESIDUAL = 200.0  # km/s: the paper counts the residuals below it
SMALL_RESIDUAL = 100.0  # km/s: for reconstructions of whole volumes, where nearly all are below the paper's
CENTRE = 200.0  # h⁻¹Mpc: side of the central cube that the paper looks at apart
EDGE = 50.0  # h⁻¹Mpc: thickness of the outer shell
PAPER_SIDE = 300.0  # h⁻¹Mpc: smaller boxes take the same shares of their side, 2/3 and 1/6

MEASURES = (
    "slope",
    "slope_inverse",
    "residuals_200",
    "residuals_100",
    "residuals_200_magnitude",
    "residuals_200_vector",
    "cos_theta",
    "coherence",
    "coherence_median",
    "coherence_ratio",
    "r",
    "rms",
)
COUNTS = ("cells", "missing", "zero_vectors")
PARTS = ("", "_centre", "_edge")
MEASURED, FILLED, OUTSIDE = 0, 1, 2  # the store's velocity_flag
NO_TRACERS = Tracers()

Row = dict[str, dict[str, Any]]


def metrics(
    predicted: Any,
    true: Any,
    *,
    cellsize: float | None = None,
    flag: Any = None,
    count_filled: bool = True,
    std: Any = None,
    density: Any = None,
    halos: Any = None,
) -> Row:
    """Measure a predicted velocity field against the truth.

    Parameters
    ----------
    predicted, true : array (box, 3, x, y, z) or (3, x, y, z)
        Velocities [km/s], without margins. A DataArray is put into this order by its dimensions' names, and read one
        box at a time. Where several fields have coordinates, their boxes, components and cells are
        matched by these, and refused where they differ.
    cellsize : float, optional
        Side of a cell [h⁻¹Mpc]. Without it nothing is measured by scale or distance, and centre and edge are shares
        of the side.
    flag : array (box, x, y, z) or (x, y, z), optional
        The store's `velocity_flag`: cells of flag 2 are left out.
    count_filled : bool
        Whether cells without a particle, whose velocity was taken from their neighbours (flag 1), count.
    std : array as ``predicted``, optional
        Standard deviation of the prediction [km/s], for its coverage.
    density, halos : array (box, x, y, z) or (x, y, z), optional
        1 + δ of matter, and number of halos, of each cell: errors are also measured by them.

    Returns
    -------
    dict
        ``{measure: {"mean", "std", "boxes"}}``: mean and scatter over boxes, and the value of each box. ``std`` is that
        of a sample (n − 1), None for a single box. What is undefined is None. With ``cellsize`` also
        ``"r_of_k": {"k", "mean", "std"}`` [h Mpc⁻¹] and others by scale, and ``"error_by_depth": {"edges", "rms",
        "cos_theta", "cells"}`` and others by place, each with its mean and std; an outermost edge of None is open.
    """
    cellsize = None if cellsize is None else number(cellsize, "cellsize", "length")
    given = {"true": true, "predicted": predicted, "flag": flag, "density": density, "halos": halos, "std": std}
    vectors = ("true", "predicted", "std")
    also = {n: _in_order(value, n, vector=n in vectors) for n, value in given.items() if value is not None}
    also = matched(also, cellsize)
    t, p = also.pop("true"), also.pop("predicted")
    unlike = {n: v.shape for n, v in also.items() if v.shape != (t.shape if n == "std" else (t.shape[0], *t.shape[2:]))}
    if p.shape != t.shape or p.shape[1] != 3 or unlike:
        raise VelfieldError(
            f"velocities do not fit each other: predicted={p.shape}, true={t.shape}"
            + "".join(f", {name}={shape}" for name, shape in unlike.items())
            + "; give (box, 3, x, y, z) or (3, x, y, z) for both, cores without margins"
        )
    measured = []
    for b in range(p.shape[0]):
        one: dict[str, Any] = {name: np.asarray(value[b]) for name, value in also.items()}
        tracers = Tracers(density=one.pop("density", None), halos=one.pop("halos", None))
        options = {"cellsize": cellsize, "count_filled": count_filled, "tracers": tracers, **one}
        measured.append(measure_box(np.asarray(p[b]), np.asarray(t[b]), **options))
    return combine(measured)


def measure_box(
    predicted: NDArray[Any],
    true: NDArray[Any],
    *,
    cellsize: float | None = None,
    flag: NDArray[Any] | None = None,
    count_filled: bool = True,
    std: NDArray[Any] | None = None,
    tracers: Tracers = NO_TRACERS,
) -> dict[str, Any]:
    """Measures of one box (3, x, y, z): ``{measure: float}``, with ``cellsize`` also curves by scale, as (k, values).

    Errors by place are `Bins`; ``calibration``, where there is a ``std``, is (nominal, actual) coverage.
    """
    known = np.isfinite(true).all(axis=0)
    if flag is not None:
        known &= (flag != OUTSIDE) & np.isfinite(flag)  # NaN: masked
        if not count_filled:
            known &= flag != FILLED
    usable = known & np.isfinite(predicted).all(axis=0)
    centre, edge = regions(true.shape[1:], cellsize)
    values: dict[str, Any] = {}
    for suffix, part in zip(PARTS, (usable, usable & centre, usable & edge), strict=True):
        chosen = _compare(predicted[:, part].astype(np.float64), true[:, part].astype(np.float64))
        values |= {name + suffix: value for name, value in chosen.items()}
    values["missing"] = int(known.sum() - usable.sum())
    if cellsize is not None:
        values |= by_scale(np.where(usable, predicted, 0), np.where(usable, true, 0), cellsize)
    values |= by_place(predicted, true, usable, cellsize, tracers)
    if std is not None:
        calibrated, actual = calibrate(predicted[:, usable], true[:, usable], std[:, usable])
        values |= calibrated | {"calibration": (NOMINAL, actual)}
    return values


def agreement_sums(predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """What `agreement` needs of a part (3, x, y, z) of a box, from the cells where both velocities are known.

    The sums of several parts add up to those of all of them, so that a large box is measured a part at a time.
    """
    known = np.isfinite(true).all(axis=0) & np.isfinite(predicted).all(axis=0)
    p, t = predicted[:, known].astype(np.float64), true[:, known].astype(np.float64)
    return np.array([p.size, p.sum(), t.sum(), (p * p).sum(), (t * t).sum(), (p * t).sum(), ((p - t) ** 2).sum()])


def agreement(sums: NDArray[np.float64]) -> dict[str, float]:
    """``r`` and ``rms`` [km/s] as `metrics` has them, from `agreement_sums`; NaN where they are not defined."""
    n, p, t, pp, tt, pt, dd = sums
    if n == 0:
        return {"r": np.nan, "rms": np.nan}
    of_p, of_t, of_both = pp - p * p / n, tt - t * t / n, pt - p * t / n
    r = of_both / np.sqrt(of_p * of_t) if of_p > 0 and of_t > 0 else np.nan
    return {"r": float(r), "rms": float(np.sqrt(dd / n))}


def combine(boxes: Sequence[Mapping[str, Any]]) -> Row:
    """Mean and scatter over boxes of what `measure_box` returned for each."""
    if not boxes:
        raise VelfieldError("nothing to average: boxes=0; give at least one box")
    row: Row = {}
    for name, first in boxes[0].items():
        if isinstance(first, tuple):
            axis = "nominal" if name == "calibration" else "k"
            row[name] = {axis: _plain(np.asarray(first[0]))} | _summed(np.array([box[name][1] for box in boxes]))
        elif isinstance(first, Bins):
            row[name] = {"edges": _plain(first.edges)} | {
                what: _summed(np.array([box[name].values[what] for box in boxes])) for what in first.values
            }
        else:
            values = np.array([box[name] for box in boxes], dtype=float)
            row[name] = _summed(values) | {"boxes": _plain(values)}
    return row


def regions(shape: tuple[int, ...], cellsize: float | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (x, y, z) of the cells whose centres lie in the central cube, and in the outer shell.

    The cube is 200 h⁻¹Mpc wide and the shell 50 h⁻¹Mpc thick; in boxes under 300 h⁻¹Mpc, or of unknown cell size, 2/3
    and 1/6 of the side, so that a box always has both.
    """
    depth = []  # of each cell below the nearest face, and of the whole box, along each axis, in units of cells
    for n in shape:
        i = np.arange(n) + 0.5
        depth.append(np.minimum(i, n - i))
    side = min(shape) * cellsize if cellsize is not None else 0.0
    unit = cellsize if cellsize is not None and side >= PAPER_SIDE else PAPER_SIDE / min(shape)
    inside = [d > 0.5 * (n - CENTRE / unit) for d, n in zip(depth, shape, strict=True)]
    within = [d > EDGE / unit for d in depth]
    return _outer_and(inside), ~_outer_and(within)


def _compare(p: NDArray[np.float64], t: NDArray[np.float64]) -> dict[str, float]:
    """Measures of the vectors p against t, both (3, cells)."""
    if p.shape[1] == 0:
        return dict.fromkeys(MEASURES, np.nan) | {"cells": 0, "zero_vectors": 0}
    slope, inverse, r = _lines(p, t)
    difference = p - t
    p2, t2, pt = (p * p).sum(0), (t * t).sum(0), (p * t).sum(0)
    with_angle, with_truth = (p2 > 0) & (t2 > 0), t2 > 0
    coherence = pt[with_truth] / t2[with_truth]
    values = {
        "slope": slope,
        "slope_inverse": inverse,
        "residuals_200": np.mean(np.abs(difference) < RESIDUAL),
        "residuals_100": np.mean(np.abs(difference) < SMALL_RESIDUAL),
        "residuals_200_magnitude": np.mean(np.abs(np.sqrt(p2) - np.sqrt(t2)) < RESIDUAL),
        "residuals_200_vector": np.mean((difference**2).sum(0) < RESIDUAL**2),
        "cos_theta": _mean(pt[with_angle] / np.sqrt(p2[with_angle] * t2[with_angle])),
        "coherence": _mean(coherence),
        "coherence_median": np.median(coherence) if coherence.size else np.nan,
        "coherence_ratio": pt.sum() / t2.sum() if t2.any() else np.nan,
        "r": r,
        "rms": np.sqrt(np.mean(difference**2)),
    }
    return {k: float(v) for k, v in values.items()} | {
        "cells": p.shape[1],
        "zero_vectors": int((~with_angle).sum()),
    }


def _lines(p: NDArray[np.float64], t: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slopes of the lines, fitted with intercept, of p on t and of t on p, and the correlation; components together."""
    dp, dt = p - p.mean(), t - t.mean()
    pp, tt, pt = float((dp * dp).sum()), float((dt * dt).sum()), float((dp * dt).sum())
    slope = pt / tt if tt > 0 else np.nan
    inverse = pt / pp if pp > 0 else np.nan
    return slope, inverse, pt / np.sqrt(pp * tt) if pp > 0 and tt > 0 else np.nan


def _in_order(values: Any, name: str, *, vector: bool) -> Any:
    """Bring an array, or a DataArray by its names, to (box, [3,] x, y, z) without reading it."""
    wanted = ("box", "component", "x", "y", "z") if vector else ("box", "x", "y", "z")
    dims = getattr(values, "dims", None)
    if dims is not None:
        if set(dims) not in (set(wanted), set(wanted[1:])):
            raise VelfieldError(f"not a velocity field: {name}={tuple(dims)}; give the dimensions {', '.join(wanted)}")
        values = values.transpose(*(d for d in wanted if d in dims))
        return values if "box" in dims else values.expand_dims("box")
    values = numbers(values, name, "speed" if vector else "number")
    if values.ndim == len(wanted) - 1:
        values = values[None]
    if values.ndim != len(wanted):
        raise VelfieldError(f"not a field of boxes: {name}={values.shape}; give ({', '.join(wanted)}), or without box")
    return values


def _outer_and(masks: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    a, b, c = masks
    return np.asarray(a[:, None, None] & b[None, :, None] & c[None, None, :])


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _summed(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean and scatter over the first axis, as metrics.json has them."""
    mean, std = _mean_and_scatter(values)
    return {"mean": _plain(mean), "std": _plain(std)}


def _mean_and_scatter(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample deviation over the first axis, of the values that are defined."""
    defined = np.isfinite(values)
    n = defined.sum(axis=0)
    filled = np.where(defined, values, 0)
    mean = np.where(n > 0, filled.sum(axis=0) / np.maximum(n, 1), np.nan)
    square = np.where(defined, (values - mean) ** 2, 0).sum(axis=0)
    return mean, np.where(n > 1, np.sqrt(square / np.maximum(n - 1, 1)), np.nan)


def _plain(values: NDArray[Any]) -> Any:
    """Python numbers, None for what is undefined: JSON has no NaN."""
    if values.ndim:
        return [_plain(v) for v in np.asarray(values)]
    return float(values) if np.isfinite(values) else None
