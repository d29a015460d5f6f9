"""From tracers to boxes: what one block of a catalogue adds to each box it reaches, and boxes put together from that.

A block is read once. It adds to a box only where its tracers fall, so what is kept of it is a *patch*: the sums in the
smallest part of the box's window that holds all cells it filled. A box is the sum of its patches in block order, which
gives the same bits however the blocks were shared out among workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.boxes import BoxLayout
from velfield.cosmology import Cosmology
from velfield.errors import VelfieldError
from velfield.paint import CELLS_PER_AXIS, Painted, paint
from velfield.redshift_space import Sightlines, nearest_image, redshift_space


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Sums in a part of a box's window.

    ``corner`` is the part's first cell in the window, ``number`` (nx, ny, nz), ``mass`` the same [h⁻¹M⊙] or None,
    ``momentum`` (3, nx, ny, nz) [km/s × number] or None; all float64.
    """

    corner: tuple[int, int, int]
    number: NDArray[np.float64]
    mass: NDArray[np.float64] | None
    momentum: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How the tracers of a parent are painted: shared by all its blocks.

    ``max_shift`` [h⁻¹Mpc] is the furthest that redshift space may carry a tracer.
    """

    boxes: BoxLayout
    cosmology: Cosmology
    redshift: float
    periodic: bool
    sightlines: Sightlines
    assignment: str
    max_shift: float

    @property
    def ngrid(self) -> int | None:
        """Cells along the parent's side, None where it does not repeat."""
        return self.boxes.ngrid if self.periodic else None


def patches_of(
    scene: Scene,
    pos: NDArray[Any],
    vel: NDArray[Any] | None,
    mass: NDArray[Any] | None,
    *,
    shifted: bool,
    momentum: bool,
) -> Iterator[tuple[int, Patch, float]]:
    """Paint tracers into every box that they reach.

    Parameters
    ----------
    pos, vel, mass : ndarray (N, 3), (N, 3), (N,)
        [h⁻¹Mpc], proper peculiar [km/s], [h⁻¹M⊙].
    shifted : bool
        Whether the tracers are seen in redshift space.
    momentum : bool
        Whether momenta are painted.

    Yields
    ------
    box, patch, shift
        In the order of the boxes; ``shift`` is the furthest that a tracer was carried [h⁻¹Mpc].
    """
    if len(pos) == 0:
        return
    carried = vel if momentum else None
    sight = scene.sightlines
    if not shifted or sight.pattern == "none":
        for box in _reached(scene, pos, 0.0):
            yield from _patch(scene, box, pos, carried, mass, 0.0)
    elif sight.shared:
        seen, shift = _shift(scene, pos, vel, 0)
        for box in _reached(scene, seen, 0.0):
            yield from _patch(scene, box, seen, carried, mass, shift)
    else:
        for box in _reached(scene, pos, scene.max_shift):
            near = pos
            if scene.periodic and sight.pattern == "center_radial":
                near = nearest_image(pos, scene.boxes.centre(box), scene.boxes.boxsize)
            seen, shift = _shift(scene, near, vel, box)
            yield from _patch(scene, box, seen, carried, mass, shift)


def put_together(patches: Iterable[Patch], shape: tuple[int, int, int], *, mass: bool, momentum: bool) -> Painted:
    """Add patches, in the order given, into a window of ``shape`` cells."""
    painted = Painted(
        number=np.zeros(shape),
        mass=np.zeros(shape) if mass else None,
        momentum=np.zeros((3, *shape)) if momentum else None,
    )
    for patch in patches:
        part = tuple(slice(c, c + n) for c, n in zip(patch.corner, patch.number.shape, strict=True))
        painted.number[part] += patch.number
        if painted.mass is not None and patch.mass is not None:
            painted.mass[part] += patch.mass
        if painted.momentum is not None and patch.momentum is not None:
            painted.momentum[(slice(None), *part)] += patch.momentum
    return painted


def core_sums(boxes: BoxLayout, patch: Patch) -> dict[str, Any]:
    """Number, mass and momentum of a patch inside the box proper: over all boxes these add up to the parent's."""
    part = tuple(slice(max(0, boxes.core.start - c), max(0, boxes.core.stop - c)) for c in patch.corner)
    sums: dict[str, Any] = {"number": float(patch.number[part].sum())}
    if patch.mass is not None:
        sums["mass"] = float(patch.mass[part].sum())
    if patch.momentum is not None:
        sums["momentum"] = patch.momentum[(slice(None), *part)].sum((1, 2, 3)).tolist()
    return sums


def outside_parent(boxes: BoxLayout, box: int) -> NDArray[np.bool_]:
    """Cells of the box's window that lie beyond the edge of its parent."""
    axes = [np.arange(n) + s for s, n in zip(boxes.start(box), boxes.shape, strict=True)]
    beyond = [(axis < 0) | (axis >= boxes.ngrid) for axis in axes]
    return beyond[0][:, None, None] | beyond[1][None, :, None] | beyond[2][None, None, :]


def pack(patches: Mapping[int, Patch]) -> dict[str, NDArray[Any]]:
    """Patches by box as arrays by name, for a file; `unpack` is the way back."""
    arrays: dict[str, NDArray[Any]] = {}
    for box, patch in patches.items():
        arrays[f"{box}/corner"] = np.array(patch.corner)
        for name in ("number", "mass", "momentum"):
            values = getattr(patch, name)
            if values is not None:
                arrays[f"{box}/{name}"] = values
    return arrays


def unpack(arrays: Mapping[str, NDArray[Any]]) -> dict[int, Patch]:
    """Patches by box, from what `pack` made."""
    found = {int(name.split("/")[0]) for name in arrays}
    return {
        box: Patch(
            corner=_triple(arrays[f"{box}/corner"]),
            number=arrays[f"{box}/number"],
            mass=arrays.get(f"{box}/mass"),
            momentum=arrays.get(f"{box}/momentum"),
        )
        for box in sorted(found)
    }


def _triple(values: NDArray[Any]) -> tuple[int, int, int]:
    i, j, k = (int(v) for v in values)
    return i, j, k


def _shift(scene: Scene, pos: NDArray[Any], vel: NDArray[Any] | None, box: int) -> tuple[NDArray[np.float64], float]:
    if vel is None:
        raise VelfieldError("redshift space needs velocities: vel=None; give them, or paint without redshift space")
    sight = scene.sightlines
    seen = redshift_space(
        pos,
        vel,
        redshift=scene.redshift,
        cosmology=scene.cosmology,
        line_of_sight=None if sight.line_of_sight is None else sight.line_of_sight[box],
        observer=None if sight.observer is None else sight.observer[box],
    )
    return seen, float(np.sqrt(((seen - pos) ** 2).sum(1).max()))


def _reached(scene: Scene, pos: NDArray[Any], reach: float) -> list[int]:
    """Boxes whose windows tracers at ``pos`` can touch when they move by up to ``reach``."""
    boxes = scene.boxes
    cell = pos.astype(np.float64) / boxes.cellsize
    if scene.periodic:  # as the kernel does: L / (L / n) may round to just below n, and boxsize is 0
        cell[(cell >= boxes.ngrid * (1 - 4.5e-16)) & (cell < boxes.ngrid)] = 0
    own = np.floor(cell).astype(np.int64) // boxes.cells
    own = own % boxes.boxes if scene.periodic else np.clip(own, -1, boxes.boxes)
    wide = boxes.boxes + 2
    occupied = np.unique(((own[:, 0] + 1) * wide + own[:, 1] + 1) * wide + own[:, 2] + 1)
    cells = boxes.margin + CELLS_PER_AXIS[scene.assignment] // 2 + int(np.ceil(reach / boxes.cellsize))
    spread = -(-cells // boxes.cells)
    steps = range(-spread, spread + 1)
    found = set()
    for code in occupied:
        i, j, k = code // wide**2 - 1, code // wide % wide - 1, code % wide - 1
        for di, dj, dk in product(steps, steps, steps):
            place = np.array([i + di, j + dj, k + dk])
            if scene.periodic:
                place %= boxes.boxes
            elif (place < 0).any() or (place >= boxes.boxes).any():
                continue
            found.add(int((place[0] * boxes.boxes + place[1]) * boxes.boxes + place[2]))
    return sorted(found)


def _patch(
    scene: Scene, box: int, pos: NDArray[Any], vel: NDArray[Any] | None, mass: NDArray[Any] | None, shift: float
) -> Iterator[tuple[int, Patch, float]]:
    boxes = scene.boxes
    window = paint(
        pos,
        vel,
        mass,
        cellsize=boxes.cellsize,
        start=boxes.start(box),
        shape=boxes.shape,
        ngrid=scene.ngrid,
        assignment=scene.assignment,
    )
    filled = window.number != 0
    if not filled.any():
        return
    part = tuple(_extent(filled.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
    yield (
        box,
        Patch(
            corner=(part[0].start, part[1].start, part[2].start),
            number=window.number[part].copy(),
            mass=None if window.mass is None else window.mass[part].copy(),
            momentum=None if window.momentum is None else window.momentum[(slice(None), *part)].copy(),
        ),
        shift,
    )


def _extent(filled: NDArray[np.bool_]) -> slice:
    where = np.flatnonzero(filled)
    return slice(int(where[0]), int(where[-1]) + 1)
