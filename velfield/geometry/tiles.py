"""How a whole parent is shown to a network: overlapping tiles, and the weights with which their predictions are added.

Along each axis tiles begin at places that follow from the parent alone. A tile's outermost cells, its *rim*, weigh
nothing: they are the context of those inside. Over the rest of what two neighbours share the weight goes from one to
the other as sin²; divided by their sum, the weights of all tiles add up to one in each cell. Weights of a cell are
products of those along the three axes.

A network pools cells two by two, so what it makes of a cell depends on the cell's place in the pooled ones. All tiles
begin at the same place modulo 2ᵈ, whatever their side, so that a cell is pooled alike in all of them. (Around a
periodic parent whose cells do not divide by 2ᵈ this cannot be: there it changes at the parent's edge.)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError


class Piece(NamedTuple):
    """What a stretch of cells has of a box, along one axis: the box's place, its cells, and where they begin in it."""

    box: int
    first: int
    end: int
    at: int


def pieces(start: int, length: int, cells: int, ngrid: int, *, periodic: bool) -> list[Piece]:
    """The boxes of ``cells`` cells that a stretch of ``length`` cells from ``start`` on meets, along one axis.

    Around a periodic parent of ``ngrid`` cells it goes on at the other side; of any other it has what lies inside.
    """
    found, at = [], 0
    while at < length:
        cell = start + at
        inside = cell % ngrid if periodic else cell
        if not 0 <= inside < ngrid:
            at += -inside if inside < 0 else length
            continue
        first = inside % cells
        end = min(cells, first + length - at)
        found.append(Piece(inside // cells, first, end, at))
        at += end - first
    return found


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Cubic tiles over a cubic parent.

    Parameters
    ----------
    ngrid : int
        Cells along the parent's side.
    periodic : bool
        Whether it repeats. Tiles of one that does not reach ``context`` cells beyond its edge, or a little further.
    side : int
        Cells along a tile's side.
    context : int
        Cells at a tile's edge that a network sees and predicts nothing for.
    rim : int
        Cells at a tile's edge that weigh nothing, at least ``context``; at the edge of a parent that does not repeat
        only ``context``.
    overlap : int
        Cells that neighbours share, at least twice the rim. Over those between the rims the weights change.
    multiple : int
        Tiles begin at the same place modulo this.
    phase : int
        At which: that of the cell from which on the parent is pooled.
    """

    ngrid: int
    periodic: bool
    side: int
    context: int
    rim: int
    overlap: int
    multiple: int = 1
    phase: int = 0

    def __post_init__(self) -> None:
        if min(self.ngrid, self.side, self.multiple) < 1 or not 0 <= self.context <= self.rim:
            raise VelfieldError(
                f"no such tiles: ngrid={self.ngrid}, tile={self.side}, context={self.context}, rim={self.rim}; "
                "sizes must be positive, the rim at least the context"
            )
        fault = f"tiles do not overlap so: tile={self.side}, overlap={self.overlap}"
        if self.overlap < 2 * self.rim:
            raise VelfieldError(
                f"{fault}; choose an overlap of at least {2 * self.rim} cells, both neighbours' context"
            )
        if self.side - self.overlap < self.multiple:
            raise VelfieldError(
                f"{fault}; choose an overlap of at most {self.side - self.multiple} cells, or a wider tile"
            )

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """First cell of each tile along an axis; below 0 and beyond the parent it goes on around a periodic one."""
        low = (-self.side % self.multiple) // 2  # cells with which a network pads the tile below
        begin = (self.phase + low) % self.multiple  # of every tile, modulo `multiple`
        step = self.multiple * ((self.side - self.overlap) // self.multiple)
        if self.periodic:
            first = begin - self.multiple * (begin > 0)
            return tuple(range(first, first + self.ngrid, step))
        first = -self.context - (-self.context - begin) % self.multiple
        last = self.ngrid + self.context - self.side  # the last tile begins here or later
        return tuple(range(first, max(first, last) + (step if last > first else 1), step))

    @functools.cached_property
    def weights(self) -> NDArray[np.float32]:
        """Weight of each cell of each tile along one axis (tile, cell); in each of the parent's cells they sum to 1."""
        place = np.arange(self.side) + 0.5
        blend = self.overlap - 2 * self.rim
        inward = np.minimum(place, self.side - place) - self.rim
        ramp = np.sin(0.5 * np.pi * np.clip(inward / blend, 0, 1)) ** 2 if blend else (inward > 0).astype(float)
        raw = np.tile(ramp, (len(self.starts), 1))
        if not self.periodic:
            half = self.side // 2
            raw[0, :half] = place[:half] > self.context
            raw[-1, half:] = self.side - place[half:] > self.context
            if len(self.starts) == 1:
                raw[0] = np.minimum(place, self.side - place) > self.context
        cells = np.asarray(self.starts)[:, None] + np.arange(self.side)
        inside = np.ones(cells.shape, dtype=bool) if self.periodic else (cells >= 0) & (cells < self.ngrid)
        raw = np.where(inside, raw, 0)
        total = np.zeros(self.ngrid)
        np.add.at(total, cells % self.ngrid, raw)
        if not (total > 0).all():
            raise VelfieldError(
                f"tiles leave cells out: tile={self.side}, overlap={self.overlap}, ngrid={self.ngrid}; "
                "choose a wider tile or overlap"
            )
        return (raw / total[cells % self.ngrid]).astype(np.float32)

    def support(self, tile: int) -> slice:
        """The cells of a tile along an axis from the first that weighs anything to the last."""
        there = np.flatnonzero(self.weights[tile])
        return slice(int(there[0]), int(there[-1]) + 1)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.starts) ** 3

    @property
    def overhead(self) -> float:
        """Cells of all tiles over cells of the parent."""
        return self.count * self.side**3 / self.ngrid**3


def tiling(
    *,
    ngrid: int,
    periodic: bool,
    side: int | None,
    overlap: int | None,
    context: int,
    reach: int,
    multiple: int,
    local: bool,
    trained: int,
    largest: int = 0,
) -> Tiling:
    """Settle how a parent is cut into tiles for a network.

    Parameters
    ----------
    ngrid, periodic :
        The parent.
    side, overlap : int, optional
        As asked for. By default the training's side, a wider one where the result is local; and the two contexts with,
        between them, a sixteenth of what is left, a third where there is no context, whose cells at the edge are then
        the worse ones.
    context : int
        Cells that the network sees around what it predicts.
    reach : int
        Cells on each side on which a cell's velocity depends at most.
    multiple : int
        2ᵈ of its poolings.
    local : bool
        Whether nothing else that a velocity depends on, as a guide, sees where its tile ends: with an overlap of twice
        the reach no cell that weighs anything does then, and the result is the same for all tiles. Otherwise, and
        with a narrower overlap, a third of it, at least the context, is cut off and the rest is blended.
    trained : int
        Cells along the side, context included, on which it was trained.
    largest : int
        Cells of a tile that there is memory for. Where the result is local tiles are as wide as that: a network is the
        better the more it sees, and fewer of its cells are at an edge.
    """
    unit = multiple * (1 if context else 3)  # so that a third of it leaves whole steps
    widest = unit * int(round(largest ** (1 / 3), 6) / unit) if local else 0
    if periodic:
        widest = min(widest, unit * -(-3 * ngrid // (2 * unit)))  # then one tile, a third of it shared, reaches around
    taken = max(trained, widest, multiple + 2 * context) if side is None else side
    if not periodic and taken >= ngrid + 2 * context:  # one tile, as a box by itself
        whole = ngrid + 2 * context
        return Tiling(ngrid=ngrid, periodic=False, side=whole, context=context, rim=context, overlap=2 * context)
    inner = taken - 2 * context
    if inner < multiple:
        raise VelfieldError(
            f"the tile is too narrow: tile={taken}, context={context}; choose one of at least "
            f"{multiple + 2 * context} cells"
        )
    exact = local and 2 * reach <= taken - multiple
    if overlap is None:
        wanted = 2 * reach if exact and 2 * reach <= taken // 3 else 2 * context + inner // (16 if context else 3)
        step = multiple * ((taken - max(wanted, 2 * context)) // multiple)
        overlap = taken - max(step, multiple)
    rim = max(context, reach) if exact and overlap >= 2 * reach else max(context, overlap // 3)
    low = (-trained % multiple) // 2
    return Tiling(
        ngrid=ngrid,
        periodic=periodic,
        side=taken,
        context=context,
        rim=rim,
        overlap=overlap,
        multiple=multiple,
        phase=(-context - low) % multiple,
    )


def spread(ngrid: int, side: int, context: int, *, periodic: bool, along: int = 3) -> tuple[tuple[int, int, int], ...]:
    """First cells of tiles spread evenly over a parent, up to ``along`` along each axis, fewer where these fill it.

    Those of a parent that does not repeat reach ``context`` cells beyond its edge and no further.
    """
    count = min(along, -(-ngrid // side))
    if periodic:
        firsts = [ngrid * i // count for i in range(count)]
    else:
        last = max(ngrid + context - side, -context)
        firsts = sorted({int(first) for first in np.linspace(-context, last, count)})
    return tuple((i, j, k) for i in firsts for j in firsts for k in firsts)
