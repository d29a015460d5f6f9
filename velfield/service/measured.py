"""How near velocities are to the truth, where one is known, box by box; and how large each of them is.

r and rms are those of `velfield.metrics`: of all components of a box's cells together, then averaged over the boxes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from velfield.accuracy.measures import agreement, agreement_sums, combine
from velfield.service.problems import Problem
from velfield.service.volumes import UNPACKED_BYTES, each

if TYPE_CHECKING:
    from velfield.service.slices import Opened

SIZES = {"rms_velocity": "velocity", "rms_truth": "velocity_truth", "rms_error_bar": "velocity_std"}
MEASURES = (*SIZES, "r", "rms_error")
INSTEAD = "look at one box, or measure the store with velfield evaluate"


def rows(opened: Opened, box: int | None) -> NDArray[np.float64]:
    """`MEASURES` (box, measure) of a box or of all, NaN where they are not known; velocities in km/s.

    Of more boxes than one request may have read, as many as it may, spread evenly.
    """
    if "velocity" not in opened.variables:
        raise Problem(404, "no velocities here", "look at its densities")
    names = [name for name in SIZES.values() if name in opened.variables]
    volumes = {name: opened.volume(name, box or 0) for name in names}
    cuts = list(itertools.product(volumes["velocity"].along, repeat=3))
    most = max(1, UNPACKED_BYTES // (len(cuts) * sum(one.unpacked for one in volumes.values())))
    boxes = [box] if box is not None else _spread(opened.main.sizes["box"], most)

    def sums(piece: tuple[int, tuple[slice, ...]]) -> NDArray[np.float64]:
        read = {name: volumes[name].read(*piece) for name in names}
        sizes = [_square(read[name]) if name in read else (0, 0) for name in SIZES.values()]
        near = agreement_sums(read["velocity"], read["velocity_truth"]) if "velocity_truth" in read else np.zeros(7)
        return np.concatenate([np.ravel(sizes), near])

    pieces = [(number, tuple(slice(one.first, one.end) for one in cut)) for number in boxes for cut in cuts]
    total = np.array(each(sums, pieces, INSTEAD)).reshape(len(boxes), len(cuts), -1).sum(axis=1)
    return np.array([_row(one) for one in total])


def summary(found: NDArray[np.float64]) -> dict[str, Any]:
    """Mean and scatter over the boxes of each of `MEASURES`, None for what is not known; and over how many boxes."""
    told = combine([dict(zip(MEASURES, row, strict=True)) for row in found])
    known = {name: {"mean": one["mean"], "std": one["std"]} for name, one in told.items() if one["mean"] is not None}
    return dict.fromkeys(MEASURES) | known | {"measured": len(found)}


def _row(total: NDArray[np.float64]) -> list[float]:
    sizes = total[: 2 * len(SIZES)].reshape(-1, 2)
    near = agreement(total[2 * len(SIZES) :])
    return [float(np.sqrt(squares / n)) if n else np.nan for n, squares in sizes] + [near["r"], near["rms"]]


def _square(values: NDArray[np.float32]) -> tuple[int, float]:
    """How many components are known, and the sum of their squares."""
    known = values[np.isfinite(values)].astype(np.float64)
    return known.size, float((known * known).sum())


def _spread(boxes: int, most: int) -> list[int]:
    return [int(i) for i in np.unique(np.linspace(0, boxes - 1, min(boxes, most)).round())]
