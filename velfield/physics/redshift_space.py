"""The shift of tracers into redshift space, and the lines of sight of a survey's boxes.

s = x + n̂ (v·n̂)/(aH): n̂ points away from the observer, so a tracer that recedes is seen further away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velfield.arguments import POSITIONS, VELOCITIES, numbers, redshift_of, rows
from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.kernel import kernel
from velfield.physics.cosmology import Background, Cosmology, background_of

MOVING = ("plane_parallel", "center_radial", "random_radial")  # these move halos by their velocities
PATTERNS = ("none", *MOVING, "observed")
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}  # that a line of sight may lie along
FURTHEST = 1e6  # h⁻¹Mpc along an axis: no observer is further away
CHOICES = (
    "none (positions are in real space and stay there), plane_parallel, center_radial or random_radial (move the halos "
    "by their velocities), or observed (positions are in redshift space already)"
)


@dataclass(frozen=True, kw_only=True)
class Sightlines:
    """From where, or along what, each box is seen.

    Attributes
    ----------
    pattern : str
        One of `PATTERNS`.
    line_of_sight : ndarray (nbox, 3) or None
        Unit vectors, with ``plane_parallel``, and with ``observed`` where one is given.
    observer : ndarray (nbox, 3) or None
        Positions in the parent [h⁻¹Mpc], with the radial patterns, and with ``observed`` where one is given.
    shared : bool
        Whether all boxes are seen alike: then tracers are shifted once, in the periodic parent, and the boxes are cut
        afterwards.
    given : mapping
        What does not follow from pattern and seed, by the names of a store's attributes: the ``observer`` or the
        ``line_of_sight`` that was given; a line of sight ``unknown`` where nobody says how halos were observed.
    """

    pattern: str
    line_of_sight: NDArray[np.float64] | None
    observer: NDArray[np.float64] | None
    shared: bool
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def moves(self) -> bool:
        """Whether halos are moved by their velocities."""
        return self.pattern in MOVING


def redshift_space(
    pos: NDArray[Any],
    vel: NDArray[Any],
    *,
    redshift: float,
    cosmology: Cosmology | Background,
    line_of_sight: ArrayLike | None = None,
    observer: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Positions in redshift space (N, 3) [h⁻¹Mpc], not wrapped into a periodic parent.

    Parameters
    ----------
    pos : ndarray (N, 3)
        Comoving positions [h⁻¹Mpc]; seen by an observer, the periodic images that this observer sees.
    vel : ndarray (N, 3)
        Proper peculiar velocities [km/s].
    redshift : float
        Of the snapshot, from 0 on.
    cosmology : Cosmology, or one of astropy's
        Gives aH, 100 km/s per h⁻¹Mpc at z = 0.
    line_of_sight : array_like (3,), optional
        Unit vector, for an observer at infinity.
    observer : array_like (3,), optional
        The observer's position [h⁻¹Mpc]. A tracer exactly there is not moved. Give this or ``line_of_sight``.
    """
    cosmology, redshift = background_of(cosmology), redshift_of(redshift)
    pos, vel = rows(pos, "pos", POSITIONS, h=cosmology.h), rows(vel, "vel", VELOCITIES)
    if pos.ndim != 2 or pos.shape[1] != 3 or vel.shape != pos.shape:
        raise VelfieldError(f"tracers' shapes do not fit: pos={pos.shape}, vel={vel.shape}; give (N, 3) and (N, 3)")
    if (line_of_sight is None) == (observer is None):
        raise VelfieldError(
            f"no single view: line_of_sight={line_of_sight!r}, observer={observer!r}; give exactly one of the two"
        )
    radial = observer is not None
    place, quantity = (observer, "length") if radial else (line_of_sight, "number")
    view = numbers(place, "observer" if radial else "line_of_sight", quantity, h=cosmology.h).astype(np.float64)
    if view.shape != (3,) or not np.isfinite(view).all():
        raise VelfieldError(f"no point or direction in space: view={view.tolist()}; give three finite numbers")
    # 1e-6: rounding of a float32 unit vector, 20 times over
    if not radial and abs(view @ view - 1) > 1e-6:
        raise VelfieldError(f"line of sight of the wrong length: line_of_sight={view.tolist()}; give a unit vector")
    shifted = np.empty(pos.shape)
    _shift(shifted, pos, vel, view[0], view[1], view[2], radial, 1 / cosmology.aH(redshift))
    return shifted


def check_pattern(
    pattern: str | None,
    *,
    observer: Sequence[float] | None = None,
    line_of_sight: str | None = None,
    observer_per_box: bool = False,
) -> None:
    """Refuse a pattern that is not said, or that what is given with it does not fit."""
    if not pattern:
        raise VelfieldError(
            f"it is not said whether halos are in redshift space: rsd=None; give rsd (--rsd): {CHOICES}"
        )
    if pattern not in PATTERNS:
        raise VelfieldError(f"unknown redshift-space pattern: rsd={pattern!r}; choose {', '.join(PATTERNS)}")
    place = None if observer is None else [float(value) for value in observer]
    if place is not None and line_of_sight is not None:
        raise VelfieldError(
            f"two views at once: observer={place}, line_of_sight={line_of_sight}; give --observer or --line-of-sight"
        )
    if line_of_sight is not None and line_of_sight not in AXES:
        raise VelfieldError(f"not an axis: line_of_sight={line_of_sight!r}; choose {', '.join(AXES)}")
    if place is not None and (len(place) != 3 or not all(abs(value) <= FURTHEST for value in place)):
        raise VelfieldError(
            f"an observer out of this world: observer={place}; give x, y and z in the parent [h⁻¹Mpc], "
            f"at most {FURTHEST:g} away"
        )
    if place is not None and (pattern not in ("random_radial", "observed") or observer_per_box):
        raise VelfieldError(
            f"no place for an observer: rsd={pattern}, observer={place}, observer_per_box={observer_per_box}; "
            "give one with random_radial or observed, and without --observer-per-box"
        )
    if line_of_sight is not None and pattern not in ("plane_parallel", "observed"):
        raise VelfieldError(
            f"no single line of sight: rsd={pattern}, line_of_sight={line_of_sight}; "
            "give one with plane_parallel or observed"
        )


def sightlines(
    pattern: str,
    layout: BoxLayout,
    *,
    seed: int,
    observer_per_box: bool = False,
    observer: Sequence[float] | None = None,
    line_of_sight: str | None = None,
) -> Sightlines:
    """Lines of sight or observers of all boxes.

    Parameters
    ----------
    pattern : {"none", "plane_parallel", "center_radial", "random_radial", "observed"}
        No shift; along an axis; from the box's own centre; from the centre of a box drawn at random; or no shift,
        as the positions are in redshift space already.
    layout : BoxLayout
        How the parent is cut.
    seed : int
        Of the draw, for ``random_radial``.
    observer_per_box : bool
        With ``random_radial``: draw for each box the centre of another one. Otherwise one observer, drawn among all,
        sees all boxes, its own included.
    observer : sequence of 3 floats, optional
        With ``random_radial`` the one observer instead of the drawn one, with ``observed`` the one who observed: a
        place in the parent's coordinates [h⁻¹Mpc], which may lie outside the parent.
    line_of_sight : {"x", "y", "z"}, optional
        With ``plane_parallel`` (by default z) and ``observed``: the axis that points away from a distant observer.
    """
    check_pattern(pattern, observer=observer, line_of_sight=line_of_sight, observer_per_box=observer_per_box)
    if observer_per_box and (pattern != "random_radial" or layout.nbox < 2):
        raise VelfieldError(
            f"no other box to draw an observer from: rsd={pattern!r}, boxes={layout.boxes}, observer_per_box=True; "
            "use it with random_radial and at least 2 boxes along a side"
        )
    given: dict[str, Any] = {}
    if observer is not None:
        given = {"observer": [float(value) for value in observer]}
    elif line_of_sight is not None:
        given = {"line_of_sight": line_of_sight}
    elif pattern == "observed":
        given = {"line_of_sight": "unknown"}
    along = line_of_sight or ("z" if pattern == "plane_parallel" else None)
    sight, place = None, None
    if along is not None:
        sight = np.tile(AXES[along], (layout.nbox, 1))
    elif observer is not None:
        place = np.tile(given["observer"], (layout.nbox, 1))
    elif pattern in MOVING:
        seen_from = _boxes_seen_from(pattern, layout.nbox, seed, observer_per_box)
        place = np.array([layout.centre(int(b)) for b in seen_from])
    shared = pattern != "center_radial" and not observer_per_box
    return Sightlines(pattern=pattern, line_of_sight=sight, observer=place, shared=shared, given=given)


def _boxes_seen_from(pattern: str, nbox: int, seed: int, observer_per_box: bool) -> NDArray[np.int64]:
    """For each box the one in whose centre its observer sits."""
    boxes = np.arange(nbox)
    if pattern == "center_radial":
        return boxes
    if observer_per_box:
        return (boxes + np.random.default_rng(seed).integers(1, nbox, size=nbox)) % nbox
    return np.full(nbox, np.random.default_rng(seed).integers(nbox))


def nearest_image(pos: NDArray[Any], centre: ArrayLike, boxsize: float) -> NDArray[np.float64]:
    """Periodic images nearest to ``centre`` (3,), as float64 (N, 3) [h⁻¹Mpc].

    Along each axis they lie in [centre − boxsize/2, centre + boxsize/2); those already there keep their value exactly.
    """
    pos = np.asarray(pos, dtype=np.float64)
    return np.asarray(pos - boxsize * np.floor((pos - np.asarray(centre)) / boxsize + 0.5))


@kernel
def _shift(shifted, pos, vel, x, y, z, radial, per_velocity):
    """Write the shifted positions; (x, y, z) is the observer if ``radial``, otherwise the direction of sight."""
    for p in range(len(pos)):
        if radial:
            nx, ny, nz = pos[p, 0] - x, pos[p, 1] - y, pos[p, 2] - z
            square = nx * nx + ny * ny + nz * nz
        else:
            nx, ny, nz, square = x, y, z, 1.0
        along = nx * vel[p, 0] + ny * vel[p, 1] + nz * vel[p, 2]
        step = along * per_velocity / square if square > 0 else 0.0
        shifted[p, 0] = pos[p, 0] + nx * step
        shifted[p, 1] = pos[p, 1] + ny * step
        shifted[p, 2] = pos[p, 2] + nz * step
