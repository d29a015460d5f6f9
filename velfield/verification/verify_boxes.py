"""Whether the fields of a box make sense by themselves: possible values that agree with each other.

Arrays in, findings out. Boxes are held against each other and against the totals in
`velfield.verification.verify_whole`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.painting.fill import fill_velocity
from velfield.painting.patches import outside_parent
from velfield.painting.tracers import FASTEST, HEAVIEST
from velfield.stores.store_layout import EMPTY, IMPLAUSIBLE, KNOWLEDGE, OUTSIDE, PREDICTED
from velfield.verification.findings import Finding, fault

ROUNDING = 1e-6  # relative: sums of float32 cells, each at most 6e-8 off

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the boxes of a field store must obey.

    Parameters
    ----------
    boxes : BoxLayout
        How the parent is cut.
    periodic : bool
        Whether it repeats.
    assignment : str
        With ``ngp`` counts are whole numbers.
    min_mass : float
        No halo is lighter [h⁻¹M⊙].
    shared : bool
        Whether all boxes see the halos alike, so that margins are the neighbours' cores.
    rows : mapping
        By ``halos`` and ``particles``, how many were painted: no cell holds more.
    """

    boxes: BoxLayout
    periodic: bool
    assignment: str
    min_mass: float
    shared: bool
    rows: Mapping[str, float]


def check_box(scene: Scene, box: int, arrays: Arrays) -> list[Finding]:
    """Look at the values of one box: finite, possible, and in agreement with each other."""
    found: list[Finding] = []
    for name, kind in (("halo_number", "halos"), ("matter_number", "particles"), ("halo_mass", "")):
        if name in arrays:
            found += _amounts(scene, name, kind, box, arrays[name])
    if "halo_mass" in arrays and "halo_number" in arrays:
        found += _halos(scene, box, arrays["halo_mass"], arrays["halo_number"])
    if "velocity" in arrays:
        outside = np.zeros(scene.boxes.shape, dtype=bool)
        if not scene.periodic:
            outside = outside_parent(scene.boxes, box)
        flags = _flags(box, arrays["velocity_flag"], arrays["matter_number"], outside)
        values = check_velocity(box, arrays["velocity"], outside)
        found += flags + values
        if not flags and not values:
            found += _filled(box, arrays, outside)
    return found


def check_velocity(box: int, velocity: NDArray[Any], outside: NDArray[np.bool_] | None = None) -> list[Finding]:
    """Look at velocities (3, x, y, z) [km/s]: finite, NaN only in ``outside`` cells, and of a possible size."""
    where = f"variable=velocity, box={box}"
    inside = np.ones(velocity.shape[1:], dtype=bool) if outside is None else ~outside
    finite = np.isfinite(velocity).all(0)
    found = []
    if (bad := int((inside & ~finite).sum())) > 0:
        found.append(fault("values that are not finite", where, f"{bad} cells", "finite numbers in all cells"))
    if (bad := int((~inside & ~np.isnan(velocity).all(0)).sum())) > 0:
        found.append(fault("values outside the parent", where, f"{bad} cells", "NaN in all cells out there"))
    speed = np.sqrt((np.where(inside & finite, velocity, 0).astype(np.float64) ** 2).sum(0).max(initial=0))
    if speed > FASTEST:
        found.append(fault("an absurd velocity", where, f"{speed:.4g} km/s", f"at most {FASTEST:g} km/s"))
    return found


def check_predicted(box: int, arrays: Arrays) -> list[Finding]:
    """What is wrong with a box of a velocity store: its velocities, and error bars and flags where there are any."""
    found, outside = [], np.zeros(arrays["velocity"].shape[1:], dtype=bool)
    if "velocity_flag" in arrays:
        flag = arrays["velocity_flag"]
        outside = flag & KNOWLEDGE == OUTSIDE
        if (bad := (flag & KNOWLEDGE > OUTSIDE) | (flag > KNOWLEDGE + IMPLAUSIBLE + EMPTY)).any():
            cells = f"{int(bad.sum())} cells, {', '.join(f'{v}' for v in np.unique(flag[bad])[:4])} there"
            rule = "0, 1 or 2, with 4 and 8 beside it"
            found.append(fault("an unknown flag", f"variable=velocity_flag, box={box}", cells, rule))
        doubted = ~outside & (flag & IMPLAUSIBLE > 0) & (flag <= KNOWLEDGE + IMPLAUSIBLE + EMPTY)
        arrays = {  # of cells that are flagged as implausible nothing is expected
            name: np.where(doubted, 1, values) if name in PREDICTED else values for name, values in arrays.items()
        }
    found += check_velocity(box, arrays["velocity"], outside)
    return found + check_std(box, arrays["velocity_std"], outside) if "velocity_std" in arrays else found


def check_std(box: int, std: NDArray[Any], outside: NDArray[np.bool_]) -> list[Finding]:
    """Error bars of a box (3, x, y, z): finite, above zero and not absurd; NaN in ``outside`` cells."""
    where = f"variable=velocity_std, box={box}"
    finite = np.isfinite(std)
    found = []
    if (bad := int((outside & ~np.isnan(std).all(0)).sum())) > 0:
        found.append(fault("values outside the parent", where, f"{bad} cells", "NaN in all cells out there"))
    if (bad := int((~finite & ~outside).sum())) > 0:
        found.append(fault("values that are not finite", where, f"{bad} values", "finite values"))
    if (bad := int((finite & (std <= 0)).sum())) > 0:
        found.append(fault("error bars that are not positive", where, f"{bad} values", "values above 0"))
    if (largest := float(np.where(finite, std, 0).max(initial=0))) > FASTEST:
        found.append(fault("an absurd error bar", where, f"{largest:.4g} km/s", f"at most {FASTEST:g} km/s"))
    return found


def _amounts(scene: Scene, name: str, kind: str, box: int, values: NDArray[Any]) -> Iterator[Finding]:
    where = f"variable={name}, box={box}"
    finite = np.isfinite(values)
    if (bad := int((~finite).sum())) > 0:
        yield fault("values that are not finite", where, f"{bad} cells", "finite numbers in all cells")
    values = values[finite]
    if (bad := int((values < 0).sum())) > 0:
        yield fault("negative values", where, f"{bad} cells, {values.min():g} the least", "0 or more")
    if kind and scene.assignment == "ngp" and (bad := int((values != np.rint(values)).sum())) > 0:
        yield fault("counts that are no whole numbers", where, f"{bad} cells", "whole numbers, assignment=ngp")
    if kind and values.max(initial=0) > scene.rows[kind] * (1 + ROUNDING):
        most = f"at most the {scene.rows[kind]:g} {kind} painted"
        yield fault("an absurd count", where, f"{values.max():g}", most)


def _halos(scene: Scene, box: int, mass: NDArray[Any], number: NDArray[Any]) -> Iterator[Finding]:
    where = f"variable=halo_mass, box={box}"
    if (bad := int(((mass > 0) & (number == 0)).sum())) > 0:
        yield fault("mass without a halo", where, f"{bad} cells", "mass only where halo_number is above 0")
    if (bad := int((mass < scene.min_mass * number * (1 - ROUNDING)).sum())) > 0:
        yield fault(
            "halos lighter than the threshold", where, f"{bad} cells", f"at least {scene.min_mass:g} Msun/h a halo"
        )
    if (bad := int((mass > HEAVIEST * np.maximum(number, 1)).sum())) > 0:
        yield fault("an absurd mass", where, f"{bad} cells", f"at most {HEAVIEST:g} Msun/h a halo")


def _flags(box: int, flag: NDArray[Any], number: NDArray[Any], outside: NDArray[np.bool_]) -> list[Finding]:
    where = f"variable=velocity_flag, box={box}"
    expected = np.where(outside, 2, (number <= 0).astype(np.uint8))
    if (bad := flag != expected).any():
        cells = f"{int(bad.sum())} cells, {', '.join(f'{v}' for v in np.unique(flag[bad])[:4])} there"
        rule = "0 with particles, 1 without, 2 outside the parent"
        return [fault("flags contradict the counts", where, cells, rule)]
    return []


def _filled(box: int, arrays: Arrays, outside: NDArray[np.bool_]) -> list[Finding]:
    """Cells without a particle must have the mean of their neighbours."""
    velocity, empty = arrays["velocity"].astype(np.float64), arrays["velocity_flag"] == 1
    if not empty.any():
        return []
    number = np.where(empty, 0.0, 1.0)
    try:
        again, _ = fill_velocity(np.where(empty | outside, 0, velocity), number, outside)
    except VelfieldError:  # not one particle in the box: there is nothing to fill from
        return []
    allowed = 1e-5 * np.abs(np.where(outside, 0, velocity)).max()  # float32 of what the means are taken of
    bad = int((np.abs(again - velocity)[:, empty].max(0) > allowed).sum())
    if bad:
        where = f"variable=velocity, box={box}"
        return [fault("empty cells were filled wrongly", where, f"{bad} cells", "the mean of their neighbours")]
    return []
