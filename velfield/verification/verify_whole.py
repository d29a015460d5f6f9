"""Whether the boxes of a field store make a whole: margins against the neighbours' cores, sums against the totals.

Of each box a few numbers are kept (`Summary`), from which all of this follows: nothing is read twice, however wide the
margin.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.geometry.boxes import BoxLayout
from velfield.verification.findings import Finding, fault
from velfield.verification.verify_boxes import ROUNDING, Arrays, Scene

TELLING = 8  # filled cells: two boxes that agree in as many do not by chance
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is kept of a box.

    ``sums`` are of its core; ``digests`` tell equal fields; ``even`` names the counts that are all multiples of one
    number above 1; ``seen`` and ``own`` are projections of its margin and of the parts of its core that lie in others'
    margins, by variable, (directions, 2).
    """

    sums: Mapping[str, NDArray[np.float64]]
    digests: Mapping[str, str]
    even: Sequence[str]
    seen: Mapping[str, NDArray[np.float64]]
    own: Mapping[str, NDArray[np.float64]]


@np.errstate(invalid="ignore", over="ignore")  # of damaged values
def summarise(scene: Scene, box: int, arrays: Arrays) -> Summary:
    """Keep of a box what its neighbours and the whole are held against."""
    core: Any = (..., scene.boxes.core, scene.boxes.core, scene.boxes.core)
    sums: dict[str, NDArray[np.float64]] = {
        name: np.array(arrays[name][core].sum(dtype=np.float64))
        for name in ("halo_number", "halo_mass", "matter_number")
        if name in arrays
    }
    compared = dict(arrays) if scene.shared else {k: v for k, v in arrays.items() if not k.startswith("halo")}
    if "velocity" in arrays:
        number = arrays["matter_number"][core].astype(np.float64)
        sums["momentum"] = np.where(number > 0, arrays["velocity"][core] * number, 0).sum((1, 2, 3))
        measured = (arrays["velocity_flag"] == 0) & (arrays["matter_number"] > 0)
        compared["velocity"] = np.where(measured, arrays["velocity"], 0)  # filled cells depend on the window
        del compared["velocity_flag"]
    digests, even = {}, []
    for name in sums.keys() & arrays.keys():
        values = np.ascontiguousarray(arrays[name][core])
        filled = values[values != 0]
        if len(filled) >= TELLING:
            digests[name] = hashlib.sha256(values.tobytes()).hexdigest()[:16]
            whole = name != "halo_mass" and (np.abs(filled) < 2**53).all() and (filled == np.rint(filled)).all()
            if whole and np.gcd.reduce(filled.astype(np.int64)) > 1:
                even.append(name)
    seen, own = _projections(scene, box, compared) if scene.boxes.margin else ({}, {})
    return Summary(sums=sums, digests=digests, even=even, seen=seen, own=own)


def check_margins(scene: Scene, summaries: Mapping[int, Summary]) -> list[Finding]:
    """Hold every box's margin against the cores of its neighbours."""
    found = []
    sides = [d for d, _, _ in _directions(scene.boxes)]
    for box, summary in sorted(summaries.items()):
        for name, seen in summary.seen.items():
            differ = []
            for side, direction in enumerate(sides):
                neighbour = _neighbour(scene, box, direction)
                if neighbour is None or neighbour not in summaries:
                    continue
                own = summaries[neighbour].own[name]
                if not abs(seen[side, 0] - own[side, 0]) <= ROUNDING * max(seen[side, 1], own[side, 1]):
                    differ.append(neighbour)
            if differ:
                boxes = ", ".join(map(str, sorted(set(differ))[:8])) + (" …" if len(set(differ)) > 8 else "")
                found.append(
                    fault(
                        "a margin differs from the neighbours' cores",
                        f"variable={name}, box={box}",
                        f"{len(differ)} of {len(sides)} sides differ, neighbours {boxes}",
                        "the same cells in both",
                    )
                )
    return found


def check_totals(scene: Scene, totals: Mapping[str, Any], summaries: Mapping[int, Summary]) -> list[Finding]:
    """Hold the sums over all cores against what the store says was painted."""
    found = []
    for kind, quantity, name in (
        ("halos", "number", "halo_number"),
        ("halos", "mass", "halo_mass"),
        ("particles", "number", "matter_number"),
        ("particles", "momentum", "momentum"),
    ):
        if quantity not in totals.get(kind, {}).get("sums", {}):  # halos may have no masses
            continue
        painted = np.array(totals[kind]["painted"][quantity], dtype=np.float64)
        stored = np.sum([summary.sums[name] for summary in summaries.values()], axis=0)
        allowed: Any = ROUNDING * np.abs(painted)
        if quantity == "number" and scene.assignment == "ngp":
            allowed = 0.0
        elif quantity == "momentum":
            allowed = ROUNDING * totals[kind]["sums"]["speed"]
        if not (np.abs(stored - painted) <= allowed).all():
            found.append(
                fault(f"{quantity} sums are off", f"variable={name}, boxes=all", _text(stored), _text(painted))
            )
    return found + (_likely(summaries) if found else [])


def check_books(totals: Mapping[str, Any], inputs: Mapping[str, Any], min_mass: float) -> list[Finding]:
    """Whether the totals agree with each other and with the inputs: read, kept, and painted where all is conserved."""
    found = []
    for kind, total in totals.items():
        where = f"attribute=totals, catalogue={kind}"
        rows = inputs[kind]["rows"]
        some = inputs[kind].get("read_as", {}).get("outside") == "drop"
        if total["read"] != rows and not (some and total["read"] < rows):
            found.append(fault("rows read are not the catalogue's", where, f"{total['read']}", f"{rows}"))
        all_kept = kind == "particles" or min_mass == 0
        if total["kept"] > total["read"] or (all_kept and total["kept"] != total["read"]):
            limit = f"{total['read']}" if all_kept else f"at most {total['read']}"
            found.append(fault("rows kept do not fit the rows read", where, f"{total['kept']}", limit))
        if total["sums"]["number"] != total["kept"]:
            found.append(
                fault(
                    "the number is not that of the rows kept", where, f"{total['sums']['number']}", f"{total['kept']}"
                )
            )
        for quantity in total["painted"] if total["conserved"] else ():
            read, painted = (np.array(total[which][quantity], dtype=np.float64) for which in ("sums", "painted"))
            scale = total["sums"]["speed"] if quantity == "momentum" else np.abs(read)
            if not (np.abs(painted - read) <= ROUNDING * scale).all():
                found.append(fault(f"{quantity} was not conserved", where, _text(painted), _text(read)))
    return found


def _likely(summaries: Mapping[int, Summary]) -> list[Finding]:
    """Which boxes may be to blame where sums are off: those that are equal, and those that look painted twice."""
    found = []
    for name in sorted({name for summary in summaries.values() for name in summary.digests}):
        first: dict[str, int] = {}
        for box, summary in sorted(summaries.items()):
            digest = summary.digests.get(name)
            if digest is not None and first.setdefault(digest, box) != box:
                where = f"variable={name}, box={box}"
                found.append(fault("two boxes hold the same data", where, f"those of box {first[digest]}", "its own"))
    for name in ("halo_number", "matter_number"):
        even = [box for box, summary in sorted(summaries.items()) if name in summary.even]
        if len(even) < len(summaries):
            for box in even:
                where = f"variable={name}, box={box}"
                found.append(fault("painted more than once", where, "only multiples of one count", "any counts"))
    return found


def _directions(boxes: BoxLayout) -> Iterator[tuple[tuple[int, ...], Any, Any]]:
    """Where neighbours lie, in boxes; the cells of the margin that are theirs; these in the neighbours' windows."""
    reach = math.ceil(boxes.margin / boxes.cells)
    for direction in product(range(-reach, reach + 1), repeat=3):
        if any(direction):
            spans = [
                (max(d * boxes.cells, -boxes.margin), min((d + 1) * boxes.cells, boxes.cells + boxes.margin))
                for d in direction
            ]
            mine = tuple(slice(lo + boxes.margin, hi + boxes.margin) for lo, hi in spans)
            theirs = tuple(
                slice(lo + boxes.margin - d * boxes.cells, hi + boxes.margin - d * boxes.cells)
                for d, (lo, hi) in zip(direction, spans, strict=True)
            )
            yield direction, mine, theirs


def _projections(
    scene: Scene, box: int, arrays: Arrays
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in arrays}
    own: dict[str, list[tuple[float, float]]] = {name: [] for name in arrays}
    for direction, mine, theirs in _directions(scene.boxes):
        inside = _neighbour(scene, box, direction) is not None
        for name, values in arrays.items():
            seen[name].append(_projection(values[(..., *mine)]) if inside else (0.0, 0.0))
            own[name].append(_projection(values[(..., *theirs)]))
    return {k: np.array(v) for k, v in seen.items()}, {k: np.array(v) for k, v in own.items()}


def _projection(values: NDArray[Any]) -> tuple[float, float]:
    """Sum with weights that are different for each cell, and the sum of the sizes: tells any two fields apart."""
    weighted = values.ravel().astype(np.float64) * (0.5 + np.arange(1, values.size + 1) * _GOLDEN % 1)
    return float(weighted.sum()), float(np.abs(weighted).sum())


def _neighbour(scene: Scene, box: int, direction: Sequence[int]) -> int | None:
    n = scene.boxes.boxes
    place = [i + d for i, d in zip(scene.boxes.index(box), direction, strict=True)]
    if not scene.periodic and not all(0 <= i < n for i in place):
        return None
    i, j, k = (p % n for p in place)
    return (i * n + j) * n + k


def _text(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.9g}" for value in np.atleast_1d(values))
