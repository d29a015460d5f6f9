"""Whether a field store can be a complete catalogue, and whether velocities predicted from it can be right.

The bounds are those of `velfield.physics.plausible`; here boxes are read for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import ImplausibleError, StoreError, VelfieldError
from velfield.physics.plausible import EMPTY_SHARE, FAR_SHARE, Tracers, boost_of, possible
from velfield.physics.plausible import VelocitySums as VelocitySums
from velfield.stores.halo_bias import least_mass
from velfield.stores.store import cosmology_of, decoding
from velfield.stores.store_layout import EMPTY, IMPLAUSIBLE, OUTSIDE
from velfield.theory.parent import Parent
from velfield.theory.whole import check_one_parent, inside_parent, knowledge, layout_of

BLOCKS = 8  # along the side of a parent, at least
ACCEPT = "implausible"  # what is accepted all the same
WAY_OUT = "or write it all the same, flagged, with --accept implausible"
Far = Callable[[xr.Dataset, int], int]  # cells of a box's core that are far from what a network learnt from


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is looked at in a field store; from its metadata alone.

    Parameters
    ----------
    variable : str
        The counts: ``halo_number`` or ``matter_number``.
    tracers : Tracers
        What they are of, if they are complete.
    reach : int or None
        Cells on each side of a cell that make the cube which a complete catalogue never leaves empty; None where that
        is more than half the parent.
    split : int
        Blocks along a box's side in which is counted.
    joined : bool
        Whether each box's neighbours lie beside it, as boxes of one parent that are seen in one way.
    """

    variable: str
    tracers: Tracers
    reach: int | None
    split: int
    joined: bool


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found in some boxes.

    Parameters
    ----------
    counts : list
        By box the counts in blocks (x, y, z).
    empty, far, cells : list of int
        By box its cells without a tracer in the cube around, those that are far from a training, and all.
    """

    counts: list[Any] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    far: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)

    @classmethod
    def total(cls, parts: Iterable[Mapping[str, Any]]) -> Seen:
        """What was found in the boxes of all parts, in their order; each as `vars` of one."""
        whole = cls()
        for part in parts:
            for name, values in vars(whole).items():
                values.extend(part[name])
        return whole


class Verdict(NamedTuple):
    """Why something cannot be right, in a line, None where it can; and what was found, as plain values."""

    reason: str | None
    found: dict[str, Any]


def expected_of(ds: xr.Dataset, variables: Iterable[str]) -> Expected | None:
    """What to look at where a model takes these variables; None where nothing can be expected of their counts."""
    halos = any(name.startswith("halo") for name in variables)
    name = "halo_number" if halos else "matter_number"
    if name not in ds or not 0 < float(ds[name].attrs["mean"]) < np.inf:
        return None
    cosmology, z, layout = cosmology_of(ds), float(ds.attrs["redshift"]), layout_of(ds)
    cellsize = float(ds.attrs["cellsize"])
    boost = 1.0
    if halos:
        try:
            bias = cosmology.effective_bias(least_mass(ds, cosmology), z, weight="number")
        except VelfieldError:  # more or fewer than any mass function gives
            return None
        boost = boost_of(bias, 0.0 if ds.attrs["rsd"] == "none" else cosmology.growth_rate(z))
    density = float(ds[name].attrs["mean"]) / cellsize**3
    tracers = Tracers(cosmology=cosmology, redshift=z, density=density, boost=boost)
    side = layout.ngrid if _fills(ds) else layout.cells
    blocks = min(layout.cells, -(-BLOCKS // layout.boxes) if _fills(ds) else BLOCKS)
    return Expected(
        variable=name,
        tracers=tracers,
        reach=tracers.reach(cellsize, (side - 1) // 4),
        split=blocks,
        joined=_joined(ds),
    )


def look(ds: xr.Dataset, boxes: Sequence[int], expected: Expected | None, far: Far | None = None) -> Seen:
    """Count in boxes what `judge_input` wants."""
    seen = Seen()
    parent = Parent(ds) if expected is not None and expected.joined else None
    for box in boxes:
        seen.cells.append(int(ds.attrs["cells"]) ** 3)
        seen.far.append(far(ds, box) if far is not None else 0)
        if expected is None:
            seen.counts.append([])
            seen.empty.append(0)
            continue
        seen.counts.append(_counts(ds, box, expected).tolist())
        mask = empty_cells(ds, box, expected, parent)
        seen.empty.append(0 if mask is None else int(mask.sum()))
    return seen


def judge_input(ds: xr.Dataset, expected: Expected | None, seen: Seen) -> Verdict:
    """Whether the input can be a complete catalogue, and one that the network can be asked of."""
    cells = max(sum(seen.cells), 1)
    empty, far = sum(seen.empty) / cells, sum(seen.far) / cells
    found: dict[str, Any] = {"empty_share": empty, "far_share": far}
    faults = []
    if expected is not None:
        uneven = max(_scatter(ds, expected, seen), key=lambda one: one[1] / one[2], default=None)
        if uneven is not None:
            side, variance, most = uneven
            found |= {"blocks": side, "blocks_variance": variance, "blocks_most": most}
            if variance > most:
                faults.append(
                    f"relative variance of counts in blocks of {side:.3g} Mpc/h={variance:.2g}, at most={most:.2g}"
                )
        if expected.reach is not None and empty > EMPTY_SHARE:
            width = (2 * expected.reach + 1) * float(ds.attrs["cellsize"])
            faults.append(
                f"cells without a tracer in a cube of {width:.3g} Mpc/h={100 * empty:.2g} %, "
                f"at most={100 * EMPTY_SHARE:g} %"
            )
    if faults:
        what = "halos do" if expected is not None and expected.variable == "halo_number" else "particles do"
        reason = (
            f"the {what} not fill the volume as a complete catalogue does: {', '.join(faults)}; a survey needs its "
            "selection (its mask, and how its density falls with distance), which no model here is given: take a "
            f"complete catalogue that fills its cube, {WAY_OUT}"
        )
        return Verdict(reason, found)
    if far > FAR_SHARE:
        reason = (
            f"the input is far from all that the network learnt from: cells={100 * far:.2g} %, at most="
            f"{100 * FAR_SHARE:g} %; see whether its means, masses and units are right, {WAY_OUT}"
        )
        return Verdict(reason, found)
    return Verdict(None, found)


def judge_velocity(ds: xr.Dataset, sums: VelocitySums) -> Verdict:
    """Whether velocities predicted from a field store can be right."""
    sigma_v = cosmology_of(ds).velocity_dispersion(float(ds.attrs["redshift"]))
    found = {"rms": list(sums.rms), "sigma_v": sigma_v, "fast_cells": sums.fast, "lost_cells": sums.lost}
    if not (faults := sums.faults(sigma_v)):
        return Verdict(None, found)
    reason = (
        f"the velocities cannot be right: {', '.join(faults)}; see whether the input is what the model takes (all "
        f"tracers of the volume, its mean, mass threshold, redshift and boxsize), {WAY_OUT}"
    )
    return Verdict(reason, found)


def refuse(reason: str | None, accept: Sequence[str]) -> None:
    """Raise what is wrong, unless it is accepted."""
    if reason is not None and ACCEPT not in accept:
        raise ImplausibleError(reason)


def check_accept(accept: Sequence[str]) -> None:
    """Refuse what cannot be accepted."""
    if unknown := [name for name in accept if name != ACCEPT]:
        raise VelfieldError(f"nothing that can be accepted: accept={unknown[0]}; leave it out, or name {ACCEPT}")


def notes_of(found: Mapping[str, Any]) -> list[str]:
    """Sentences on what is worth knowing of an input that is taken."""
    notes = []
    if (share := float(found.get("empty_share", 0))) > 0:
        notes.append(f"nothing is known around {100 * share:.2g} % of the cells, far from any tracer; they are flagged")
    if (share := float(found.get("far_share", 0))) > FAR_SHARE / 100:
        notes.append(f"the input of {100 * share:.2g} % of the cells is far from all that the network learnt from")
    return notes


def attributes(*verdicts: Verdict) -> dict[str, str]:
    """What a velocity store says of them: what was found, and why it is implausible, where it was accepted as that."""
    found = {name: value for verdict in verdicts for name, value in verdict.found.items()}
    return {"checks": json.dumps(found)} | ({"implausible": why} if (why := why_of(*verdicts)) else {})


def why_of(*verdicts: Verdict) -> str | None:
    """What is wrong of all that was looked at, without the ways out; None where nothing is."""
    return "; ".join(verdict.reason.rpartition("; ")[0] for verdict in verdicts if verdict.reason) or None


def flags(
    ds: xr.Dataset,
    box: int,
    velocity: NDArray[Any],
    expected: Expected | None,
    *,
    context: int = 0,
    parent: Parent | None = None,
) -> tuple[NDArray[np.uint8], VelocitySums]:
    """``velocity_flag`` (x, y, z) of a box whose velocity (3, x, y, z) was predicted, and its sums.

    ``context`` is what a cell needs around it to be known (`velfield.theory.whole.knowledge`); without ``expected``
    no cell is taken for one without a tracer around.
    """
    flag = knowledge(ds, box, context)
    known = flag != OUTSIDE
    flag[known & ~possible(velocity)] |= np.uint8(IMPLAUSIBLE)
    empty = None if expected is None else empty_cells(ds, box, expected, parent)
    if empty is not None:
        flag[known & empty] |= np.uint8(EMPTY)
    return flag, VelocitySums.of(velocity, known)


def empty_cells(ds: xr.Dataset, box: int, expected: Expected, parent: Parent | None = None) -> NDArray[np.bool_] | None:
    """The cells (x, y, z) of a box's core in whose cube of `Expected.reach` there is no tracer; None where none is.

    Where nothing is known of the surroundings, beyond the edge of a parent or of a box by itself, there may be one.
    """
    if expected.reach is None:
        return None
    there = np.asarray(_around(ds, box, expected, parent) > 0)
    width = 2 * expected.reach + 1
    for axis in range(3):
        there = np.asarray(np.lib.stride_tricks.sliding_window_view(there, width, axis=axis).any(axis=-1))
    return ~there


def _around(ds: xr.Dataset, box: int, expected: Expected, parent: Parent | None) -> NDArray[np.float32]:
    """Counts of a box's core and of ``reach`` cells around it; 1 where they are not known."""
    reach, layout = expected.reach or 0, layout_of(ds)
    side = layout.cells + 2 * reach
    if expected.joined:
        parent = Parent(ds) if parent is None else parent
        return parent.window(expected.variable, [layout.cells * p - reach for p in parent.place(box)], (side,) * 3)
    margin = min(reach, layout.margin)
    out = np.ones((side,) * 3, dtype=np.float32)
    inner = (slice(reach - margin, side - reach + margin),) * 3
    out[inner] = _values(ds, box, expected.variable, margin)
    known = inside_parent(ds, box, reach)
    return out if known is None else np.where(known, out, np.float32(1))


def _counts(ds: xr.Dataset, box: int, expected: Expected) -> NDArray[np.float64]:
    """Counts (x, y, z) of a box's core in blocks."""
    values = np.asarray(_values(ds, box, expected.variable, 0), dtype=np.float64)
    for axis in range(3):
        values = np.add.reduceat(values, _edges(ds, expected)[:-1], axis=axis)
    return values


def _values(ds: xr.Dataset, box: int, variable: str, margin: int) -> NDArray[Any]:
    cut = slice(int(ds.attrs["margin"]) - margin, int(ds.attrs["margin"]) + int(ds.attrs["cells"]) + margin)
    with decoding(ds, variable, box):
        values = ds[variable].isel({"box": box, **dict.fromkeys("xyz", cut)}).transpose("x", "y", "z").values
    known = inside_parent(ds, box, margin)
    if not np.isfinite(values if known is None else values[known]).all():  # a chunk that is not there reads as NaN
        raise StoreError(
            f"a box of the store has lost its data: store={ds.encoding.get('source')}, box={box}, "
            f"variable={variable}; check it with velfield verify, and paint it again"
        )
    return np.asarray(values)


def _edges(ds: xr.Dataset, expected: Expected) -> NDArray[np.int64]:
    """First cells of the blocks along a box's side, and its end."""
    return np.arange(expected.split + 1) * int(ds.attrs["cells"]) // expected.split


def _scatter(ds: xr.Dataset, expected: Expected, seen: Seen) -> list[tuple[float, float, float]]:
    """`Tracers.scatter` of the whole parent; of each box by itself where they do not fill it."""
    layout, split = layout_of(ds), expected.split
    counts = np.asarray(seen.counts, dtype=np.float64)
    widths = np.diff(_edges(ds, expected)) * float(ds.attrs["cellsize"])
    if not _fills(ds) or len(counts) < layout.nbox:
        return [one for box in counts for one in expected.tracers.scatter(box, widths)]
    whole = np.empty((layout.boxes * split,) * 3)
    for values, (x, y, z) in zip(counts, split * _places(ds), strict=True):
        whole[x : x + split, y : y + split, z : z + split] = values
    return expected.tracers.scatter(whole, np.tile(widths, layout.boxes))


def _places(ds: xr.Dataset) -> NDArray[np.int64]:
    """Place (box, 3) of each box in the parent, in boxes."""
    return np.rint(np.asarray(ds["origin"].values).reshape(-1, 3) / layout_of(ds).side).astype(np.int64)


def _fills(ds: xr.Dataset) -> bool:
    """Whether the boxes fill their parent."""
    layout = layout_of(ds)
    there = set(map(tuple, _places(ds).tolist()))
    return len(there) == ds.sizes["box"] == layout.nbox and there == {layout.index(b) for b in range(layout.nbox)}


def _joined(ds: xr.Dataset) -> bool:
    try:
        check_one_parent(ds, "")
    except VelfieldError:
        return False
    return True
