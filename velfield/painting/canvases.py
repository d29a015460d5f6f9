"""Canvases on a parent's grid: which cells they cover, and what they hold of each box."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.geometry.boxes import BoxLayout
from velfield.painting import scatter
from velfield.painting.paint import Canvas
from velfield.painting.scatter import Patch

Region = tuple[tuple[int, int, int], tuple[int, int, int]]  # first cell on the parent's grid, cells along each axis


def region_bytes(region: Region, fields: int) -> float:
    """Bytes of a canvas of so many fields."""
    return float(np.prod(region[1], dtype=float) * fields * 8)


def contains(canvas: Canvas, region: Region) -> bool:
    """Whether the canvas covers all of the region."""
    return all(
        s <= r and r + m <= s + n for s, n, r, m in zip(canvas.start, canvas.shape, region[0], region[1], strict=True)
    )


def union(canvas: Canvas, region: Region) -> Region:
    """The smallest region that covers both."""
    start = [min(s, r) for s, r in zip(canvas.start, region[0], strict=True)]
    stop = [max(s + n, r + m) for s, n, r, m in zip(canvas.start, canvas.shape, region[0], region[1], strict=True)]
    shape = [b - a for a, b in zip(start, stop, strict=True)]
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def cut(canvas: Canvas, boxes: BoxLayout, *, periodic: bool) -> Iterator[tuple[int, Patch]]:
    """What a canvas holds of each box, in the order of the boxes."""
    sums = canvas.sums
    axes = [_segments(boxes, s, n, periodic) for s, n in zip(canvas.start, canvas.shape, strict=True)]
    ny, nz = boxes.shape[1:]
    for index in product(*(sorted(axis) for axis in axes)):
        cells, values = [], []
        for x, y, z in product(*(axis[i] for axis, i in zip(axes, index, strict=True))):
            found, added = scatter.filled(sums[x[0], y[0], z[0]], ((x[1] * ny) + y[1]) * nz + z[1], ny, nz)
            cells.append(found)
            values.append(added)
        if any(len(found) for found in cells):
            box = (index[0] * boxes.boxes + index[1]) * boxes.boxes + index[2]
            yield box, Patch(cells=_joined(cells), sums=_joined(values))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _segments(boxes: BoxLayout, start: int, n: int, periodic: bool) -> dict[int, list[tuple[slice, int]]]:
    """Along one axis: the parts of a canvas that each box's window covers, and where in the window they begin."""
    width, found = boxes.shape[0], {}
    for box in range(boxes.boxes):
        first = box * boxes.cells - boxes.margin
        turns = range(1)
        if periodic:
            turns = range((start - first - width) // boxes.ngrid, (start + n - first) // boxes.ngrid + 1)
        parts = []
        for turn in turns:
            window = first + turn * boxes.ngrid
            low, high = max(start, window), min(start + n, window + width)
            if low < high:
                parts.append((slice(low - start, high - start), low - window))
        if parts:
            found[box] = parts
    return found
