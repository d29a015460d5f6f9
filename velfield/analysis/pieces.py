"""Some boxes of a store, predicted and measured: the piece of an evaluation that another process can be given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.accuracy.measures import OUTSIDE, measure_box
from velfield.accuracy.places import Tracers
from velfield.analysis.judged import Judged, Test
from velfield.errors import StoreError
from velfield.theory.plausible import VelocitySums

KNOWN = ("matter_number", "halo_number")  # of cells, the better one for their density first


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured and how, in words that another process can be sent.

    ``tracers`` are the variables that every store has, of `KNOWN`; ``identity`` is the bundle's (`Judged`).
    """

    model: str
    tracer: str
    smoothing: float | None
    average: int
    count_filled: bool
    tracers: tuple[str, ...]
    identity: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some boxes of the store ``number``, which are predicted together; ``drawn`` is the one that figures show."""

    number: int
    url: str
    fingerprint: str
    boxes: tuple[int, ...]
    drawn: int | None


# measures of each box, the drawn one's prediction, and sums of all predictions
Answer = tuple[list[dict[str, Any]], NDArray[Any] | None, VelocitySums]
Spread = Callable[[Sequence[Piece], Asked], Iterable[tuple[Piece, Answer]]]  # answers in any order


def measure_piece(piece: Piece, asked: Asked, judged: Judged, test: Test) -> Answer:
    """Predict and measure some boxes of a store."""
    prediction = judged.predict(test, piece.boxes)
    cellsize = float(test.ds.attrs["cellsize"])
    measured, kept, sums = [], None, []
    for i, box in enumerate(piece.boxes):
        true, flag = truth_of(test, box)
        measured.append(
            measure_box(
                prediction.velocity[i],
                true,
                cellsize=cellsize,
                flag=flag,
                count_filled=asked.count_filled,
                std=None if prediction.std is None else prediction.std[i],
                tracers=_tracers(test, box, asked.tracers),
            )
        )
        sums.append(VelocitySums.of(prediction.velocity[i], flag != OUTSIDE))
        if box == piece.drawn:
            kept = prediction.velocity[i]
    return measured, kept, VelocitySums.total(sums)


def _tracers(test: Test, box: int, names: Sequence[str]) -> Tracers:
    """1 + δ and the number of halos of a box's cells; refuses a box that lost them."""
    one = test.ds.isel(box=box)
    found = {name: np.asarray(one.velfield.core(one[name]).transpose("x", "y", "z")) for name in names}
    for name, values in found.items():
        if not np.isfinite(values).all():  # a chunk that is not there reads as NaN
            raise StoreError(
                f"a box of the store has lost its data: store={test.url}, box={box}, variable={name}; "
                "check it with velfield verify, and paint it again"
            )
    density = next((found[name] / float(one[name].attrs["mean"]) for name in KNOWN if name in found), None)
    return Tracers(density=density, halos=found.get("halo_number"))


def truth_of(test: Test, box: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """True velocity (3, x, y, z) [km/s] and flags (x, y, z) of a box's core; refuses a box that lost its truth."""
    one = test.ds.isel(box=box)
    core = one.velfield.core(one[["velocity", "velocity_flag"]])
    velocity = np.asarray(core["velocity"].transpose("component", "x", "y", "z"))
    flag = np.asarray(core["velocity_flag"].transpose("x", "y", "z"))
    if flag.max(initial=0) > OUTSIDE or not np.isfinite(velocity[:, flag != OUTSIDE]).all():  # reads as 255, as NaN
        raise StoreError(
            f"a box of the store has lost its truth: store={test.url}, box={box}; "
            "check it with velfield verify, and paint it again"
        )
    return velocity, flag
