"""From tracers to boxes: what one block of a catalogue adds to each box it reaches, and boxes put together from that.

A block is read once, range by range. It adds to a box only where its tracers fall, so what is kept of it is a *patch*:
the cells of the box's window that it filled, and their sums. A box is the sum of its patches in block order, which
gives the same bits however the blocks were shared out among workers.

Where all boxes are seen alike, a block's tracers are painted once, onto a canvas that covers the block, and the boxes
are cut out of it; tracers that lie all over the parent are sorted by cell instead. Where each box has an observer of
its own, a box's tracers are shifted and painted for that box alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.painting import scatter
from velfield.painting.canvases import Region, contains, cut, region_bytes, union
from velfield.painting.clouds import CELLS_PER_AXIS
from velfield.painting.paint import Canvas
from velfield.painting.scatter import Patch
from velfield.physics.cosmology import Cosmology
from velfield.physics.redshift_space import Sightlines, nearest_image, redshift_space

CANVAS_BYTES = 2**27  # of the largest canvas: the sums of 3.3 million cells, many times an Outer Rim block
SPARSE = 64  # cells a tracer from which on sorting is faster than a canvas
ROOM = 4  # cells that a canvas is larger than its first tracers need, on every side


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


class BlockPainter:
    """Takes the tracers of a block, range by range, and gives its patches.

    Parameters
    ----------
    scene : Scene
        How the parent is painted.
    shifted : bool
        Whether the tracers are seen in redshift space.
    mass, momentum : bool
        Whether these are painted beside the number.

    Attributes
    ----------
    furthest : float
        The furthest that redshift space carried a tracer [h⁻¹Mpc].
    too_far : int
        How many were carried further than the scene allows; seen by several observers, as often as they were.
    """

    def __init__(self, scene: Scene, *, shifted: bool, mass: bool, momentum: bool) -> None:
        self.scene = scene
        self.shifted = shifted and scene.sightlines.moves
        self.mass, self.momentum = mass, momentum
        self.furthest, self.too_far = 0.0, 0
        self._canvas: Canvas | None = None
        self._held: dict[int, list[Patch]] = {}
        self.held_bytes = 0

    def add(self, pos: NDArray[Any], vel: NDArray[Any] | None, mass: NDArray[Any] | None) -> None:
        """Paint tracers: positions (N, 3) [h⁻¹Mpc], proper velocities (N, 3) [km/s], masses (N,) [h⁻¹M⊙]."""
        if len(pos) == 0:
            return
        if self.shifted and vel is None:
            raise VelfieldError("redshift space needs velocities: vel=None; give them, or paint without redshift space")
        mass = mass if self.mass else None
        if self.shifted and not self.scene.sightlines.shared:
            self._add_by_box(pos, vel, mass)
            return
        seen = self._see(pos, vel, 0) if self.shifted else pos
        self._add_seen(seen, vel if self.momentum else None, mass)

    def take(self) -> dict[int, Patch]:
        """The patches of all tracers since the last time, by box; they are the caller's then."""
        self._cut_canvas()
        taken = {box: scatter.merge(patches) if len(patches) > 1 else patches[0] for box, patches in self._held.items()}
        self._held, self.held_bytes = {}, 0
        return {box: taken[box] for box in sorted(taken)}

    def _see(self, pos: NDArray[Any], vel: NDArray[Any] | None, box: int) -> NDArray[np.float64]:
        sight = self.scene.sightlines
        assert vel is not None
        seen = redshift_space(
            pos,
            vel,
            redshift=self.scene.redshift,
            cosmology=self.scene.cosmology,
            line_of_sight=None if sight.line_of_sight is None else sight.line_of_sight[box],
            observer=None if sight.observer is None else sight.observer[box],
        )
        furthest, too_far = scatter.shifts(pos, seen, self.scene.max_shift)
        self.furthest = max(self.furthest, furthest)
        self.too_far += too_far
        return seen

    def _add_seen(self, seen: NDArray[Any], vel: NDArray[Any] | None, mass: NDArray[Any] | None) -> None:
        region = self._region(seen)
        if region is None:
            self._hold(scatter.patches(self.scene.boxes, self.scene.ngrid, self.scene.assignment, seen, vel, mass))
            return
        canvas = self._canvas
        if canvas is None or not contains(canvas, region):
            wider = region if canvas is None else union(canvas, region)
            if canvas is not None and not self._fits(wider):
                self._cut_canvas()
                canvas, wider = None, region
            self._canvas = self._new_canvas(wider)
            if canvas is not None:
                offset = [c - r for c, r in zip(canvas.start, wider[0], strict=True)]
                at = tuple(slice(o, o + n) for o, n in zip(offset, canvas.shape, strict=True))
                self._canvas.sums[at] = canvas.sums
        assert self._canvas is not None
        self._canvas.add(seen, vel, mass)

    def _fits(self, region: Region) -> bool:
        within = max(region[1]) <= (self.scene.ngrid or 2**31)
        return within and region_bytes(region, self._fields) <= CANVAS_BYTES

    @property
    def _fields(self) -> int:
        return 1 + self.mass + 3 * self.momentum

    def _new_canvas(self, region: Region) -> Canvas:
        start, shape = region
        return Canvas(
            cellsize=self.scene.boxes.cellsize,
            start=start,
            shape=shape,
            ngrid=self.scene.ngrid,
            assignment=self.scene.assignment,
            mass=self.mass,
            momentum=self.momentum,
        )

    def _region(self, seen: NDArray[Any]) -> Region | None:
        """Cells that the tracers touch, with some room; None where a canvas of them would be too large or too empty."""
        low, high = scatter.bounds(seen, self.scene.boxes.cellsize)
        cloud = CELLS_PER_AXIS[self.scene.assignment] // 2
        if not max(abs(low).max(), abs(high).max()) < 2**31:
            return None
        start, stop = low.astype(np.int64) - cloud - ROOM, high.astype(np.int64) + 1 + cloud + ROOM
        ngrid, margin = self.scene.boxes.ngrid, self.scene.boxes.margin
        if self.scene.periodic:
            whole = stop - start >= ngrid
            start, stop = np.where(whole, 0, start), np.where(whole, ngrid, stop)
        else:
            start, stop = np.clip(start, -margin, ngrid + margin - 1), np.clip(stop, 1 - margin, ngrid + margin)
        region = _triple(start), _triple(stop - start)
        if region_bytes(region, self._fields) > CANVAS_BYTES or np.prod(region[1], dtype=float) > SPARSE * len(seen):
            inside = self._canvas is not None and contains(self._canvas, region)
            return region if inside else None
        return region

    def _cut_canvas(self) -> None:
        if self._canvas is not None:
            self._hold(cut(self._canvas, self.scene.boxes, periodic=self.scene.periodic))
            self._canvas = None

    def _hold(self, patches: Iterable[tuple[int, Patch]]) -> None:
        for box, patch in patches:
            self._held.setdefault(box, []).append(patch)
            self.held_bytes += patch.cells.nbytes + patch.sums.nbytes

    def _add_by_box(self, pos: NDArray[Any], vel: NDArray[Any] | None, mass: NDArray[Any] | None) -> None:
        scene, boxes = self.scene, self.scene.boxes
        assert vel is not None
        reach = boxes.cellsize * (CELLS_PER_AXIS[scene.assignment] // 2 + 1) + scene.max_shift
        # however far they lie: one whose speed carries it beyond max_shift must not go unnoticed
        fast = scatter.faster(vel, scene.max_shift * scene.cosmology.aH(scene.redshift))
        side = (boxes.cells / 2 + boxes.margin) * boxes.cellsize
        for box in _reached(scene, pos, scene.max_shift) if not fast.any() else range(boxes.nbox):
            centre = boxes.centre(box)
            near = scatter.near(pos, centre, side + reach, boxes.boxsize if scene.periodic else 0.0) | fast
            if not near.any():
                continue
            here = pos[near]
            if scene.periodic and scene.sightlines.pattern == "center_radial":
                here = nearest_image(here, centre, boxes.boxsize)
            seen = self._see(here, vel[near], box)
            carried = vel[near] if self.momentum else None
            self._hold(_box_patch(self, box, seen, carried, None if mass is None else mass[near]))


def core_sums(boxes: BoxLayout, patch: Patch, *, mass: bool, momentum: bool) -> dict[str, Any]:
    """Number, mass and momentum of a patch inside the box proper: over all boxes these add up to the parent's."""
    inside: Any = slice(None)
    if boxes.margin:
        axes = np.unravel_index(patch.cells, boxes.shape)
        inside = np.logical_and.reduce([(axis >= boxes.core.start) & (axis < boxes.core.stop) for axis in axes])
    total = patch.sums[inside].sum(0)
    sums: dict[str, Any] = {"number": float(total[0])}
    if mass:
        sums["mass"] = float(total[1])
    if momentum:
        sums["momentum"] = total[-3:].tolist()
    return sums


def outside_parent(boxes: BoxLayout, box: int) -> NDArray[np.bool_]:
    """Cells of the box's window that lie beyond the edge of its parent."""
    axes = [np.arange(n) + s for s, n in zip(boxes.start(box), boxes.shape, strict=True)]
    beyond = [(axis < 0) | (axis >= boxes.ngrid) for axis in axes]
    return beyond[0][:, None, None] | beyond[1][None, :, None] | beyond[2][None, None, :]


def pack(patches: Mapping[int, Patch]) -> dict[str, NDArray[Any]]:
    """Patches by box as four arrays, for a file; `unpack` is the way back."""
    return {
        "box": np.array(list(patches), dtype=np.int64),
        "count": np.array([len(p.cells) for p in patches.values()], dtype=np.int64),
        "cells": np.concatenate([p.cells for p in patches.values()]).astype(np.uint32),
        "sums": np.concatenate([p.sums for p in patches.values()]),
    }


def unpack(arrays: Mapping[str, NDArray[Any]]) -> dict[int, Patch]:
    """Patches by box, from what `pack` made."""
    cells, sums, edges = arrays["cells"].astype(np.int64), arrays["sums"], np.cumsum(arrays["count"])
    parts = zip(arrays["box"], np.split(cells, edges[:-1]), np.split(sums, edges[:-1]), strict=True)
    return {int(box): Patch(cells=c, sums=s) for box, c, s in parts}


def _box_patch(
    painter: BlockPainter, box: int, seen: NDArray[Any], vel: NDArray[Any] | None, mass: NDArray[Any] | None
) -> Iterator[tuple[int, Patch]]:
    """Tracers painted into one box's window."""
    boxes, period = painter.scene.boxes, painter.scene.ngrid or 2**60
    width = min(boxes.shape[0], period)
    canvas = painter._new_canvas((boxes.start(box), (width, width, width)))
    canvas.add(seen, vel, mass)
    sums = canvas.sums
    if width != boxes.shape[0]:  # a window wider than its parent: cells repeat
        sums = sums[np.ix_(*(np.arange(n) % period for n in boxes.shape))]
    cells, values = scatter.filled(sums, 0, *sums.shape[1:3])
    if len(cells):
        yield box, Patch(cells=cells, sums=values)


def _reached(scene: Scene, pos: NDArray[Any], reach: float) -> list[int]:
    """Boxes whose windows tracers at ``pos`` can touch when they move by up to ``reach``."""
    boxes = scene.boxes
    own = scatter.own_boxes(pos, boxes, scene.periodic)
    wide = boxes.boxes + 2
    cells = boxes.margin + CELLS_PER_AXIS[scene.assignment] // 2 + int(np.ceil(reach / boxes.cellsize))
    spread = -(-cells // boxes.cells)
    steps = range(-spread, spread + 1)
    found = set()
    for code in own:
        i, j, k = code // wide**2 - 1, code // wide % wide - 1, code % wide - 1
        for di, dj, dk in product(steps, steps, steps):
            place = np.array([i + di, j + dj, k + dk])
            if scene.periodic:
                place %= boxes.boxes
            elif (place < 0).any() or (place >= boxes.boxes).any():
                continue
            found.add(int((place[0] * boxes.boxes + place[1]) * boxes.boxes + place[2]))
    return sorted(found)


def _triple(values: NDArray[Any]) -> tuple[int, int, int]:
    i, j, k = (int(v) for v in values)
    return i, j, k
