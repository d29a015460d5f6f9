"""The kinds of task of a prediction; each leaves a receipt when its piece is whole, and is skipped then.

Boxes by themselves: a shard task predicts its boxes and writes whole shards. A whole parent: a row task predicts all
tiles along z at one place in x and y and leaves their weighted sum, cut at the boxes' edges, as one file; a shard task
adds what its boxes have of these, in one order, and writes whole shards. Before these, linear theory of the whole
parent, a guide's or as a model, is one task, and an array from which they read windows; and a network with GroupNorm is
shown some tiles, whose statistics hold for all (`velfield.pipelines.predict_network`). First of all the input is looked
at, and each shard notes sums of what it wrote: whether input and result can be right (`velfield.theory.plausible`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from velfield.errors import DamagedError
from velfield.files import shards, storage
from velfield.geometry.tiles import Piece, Tiling, pieces
from velfield.physics.plausible import VelocitySums
from velfield.pipelines.predict_job import Job, receipts_name
from velfield.pipelines.predict_network import bare, fields_of, load, shown, variables, whole_of, whole_url
from velfield.pipelines.stages import stage
from velfield.stores import store
from velfield.stores.sources import symmetries_of_boxes
from velfield.stores.store_layout import EMPTY, IMPLAUSIBLE, KNOWLEDGE, OUTSIDE
from velfield.theory import analytic, plausible
from velfield.theory.parent import Parent
from velfield.theory.whole import READERS, layout_of

WHOLE_CHUNK = 64  # cells along a side of a chunk of the whole parent's velocity

Block = tuple[Piece, Piece, int]  # of a row's file: what it has of the boxes at one place in x and y; its first byte


def look_at_shard(shard: int, job: Job) -> dict[str, Any]:
    """Task: look at the input of a shard's boxes."""
    if found := job.receipts.find("looks", receipts_name(shard)):
        return found
    ds, boxes = fields_of(job), job.layout.boxes_of(shard)
    far = None if job.how and job.tiling is None else bare(job).far
    with stage("read"):
        seen = plausible.look(ds, boxes, job.expected, far)
    return job.receipts.leave(vars(seen), "looks", receipts_name(shard))


def compute_whole(_item: int, job: Job) -> dict[str, Any]:
    """Task: linear theory of the whole parent, for all others."""
    if found := job.receipts.find("whole", "velocity"):
        return found
    ds = fields_of(job)
    n = layout_of(ds).ngrid
    array = zarr.create_array(
        shards.zarr_store(whole_url(job)),
        shape=(3 * len(job.how), n, n, n),
        chunks=(1, *(min(WHOLE_CHUNK, n),) * 3),
        dtype="float32",
        compressors=None,
        fill_value=np.nan,
        overwrite=True,
    )
    for number, how in enumerate(job.how):
        assert isinstance(how, analytic.WholeSettings)
        components = analytic.whole_components(how, ds)
        for axis in range(3):
            with stage("whole"):
                component = next(components)
            with stage("write", nbytes=component.nbytes):
                along = [slice(first, first + WHOLE_CHUNK) for first in range(0, n, WHOLE_CHUNK)]
                for x, y in product(along, along):  # so that no second cube is held while it is written
                    array[3 * number + axis, x, y] = component[x, y]
        del components, component
    return job.receipts.leave({"cells": n**3}, "whole", "velocity")


def predict_row(row: int, job: Job) -> dict[str, Any]:
    """Task: predict the tiles along z at one place in x and y, and write their weighted sum."""
    assert job.tiling is not None
    if found := job.receipts.find("rows", receipts_name(row)):
        return found
    tiles, model = job.tiling, load(job)
    ix, iy = divmod(row, len(tiles.starts))
    ds = fields_of(job)
    around = job.guide_margin - tiles.context  # cells around a tile that its guide sees
    corner = (tiles.starts[ix] - around, tiles.starts[iy] - around, 0)
    side = tiles.side + 2 * around
    with stage("read") as read:
        parent = Parent(ds)
        columns = {v: parent.window(v, corner, (side, side, tiles.ngrid)) for v in variables(job, model)}
        read.nbytes += sum(values.nbytes for values in columns.values())
    x, y = tiles.support(ix), tiles.support(iy)
    flat = tiles.weights[ix, x, None, None] * tiles.weights[iy, None, y, None]
    total: NDArray[np.float32] | None = None
    for first in range(0, len(tiles.starts), job.batch):
        some = range(first, min(first + job.batch, len(tiles.starts)))
        with stage("predict"):
            starts = [(*corner[:2], tiles.starts[tile] - around) for tile in some]
            windows = {
                name: np.stack([_stretch(column, z, side, tiles, ds[name].attrs["mean"]) for *_, z in starts])
                for name, column in columns.items()
            }
            inputs, given = shown(job, model, ds, windows, starts)
            predicted = model.predict_arrays(inputs, job.batch, symmetries_of_boxes(ds, job.average), **given)
            made = np.concatenate([values for values in predicted if values is not None], axis=1)
            if total is None:
                total = np.zeros((tiles.ngrid, made.shape[1], flat.shape[0], flat.shape[1]), dtype=np.float32)
            for tile, values in zip(some, made, strict=True):
                z = tiles.support(tile)
                weighted = values[:, x, y, z] * (flat * tiles.weights[tile, z])
                length = z.stop - z.start
                for p in pieces(
                    tiles.starts[tile] + z.start, length, tiles.ngrid, tiles.ngrid, periodic=tiles.periodic
                ):
                    total[p.first : p.end] += np.moveaxis(weighted[..., p.at : p.at + p.end - p.first], -1, 0)
    assert total is not None
    blocks, _ = blocks_of(tiles, layout_of(ds).cells, ix, iy, total.shape[1])
    parts = [
        np.ascontiguousarray(total[:, :, p.at : p.at + p.end - p.first, q.at : q.at + q.end - q.first]).tobytes()
        for p, q, _ in blocks
    ]
    with stage("write", nbytes=total.nbytes):
        storage.write_bytes(_row_url(job, row), b"".join(parts))
    return job.receipts.leave({"tiles": len(tiles.starts)}, "rows", receipts_name(row))


def blend_shard(shard: int, job: Job) -> dict[str, Any]:
    """Task: add the rows' parts of a shard's boxes, and write it."""
    assert job.tiling is not None
    if found := written(job, shard):
        return found
    boxes = job.layout.boxes_of(shard)
    ds = fields_of(job)
    arrays = _empty(job, len(boxes))
    names = [name for name in job.layout.variables if name != "velocity_flag"]
    with stage("assemble") as assembling:
        parent = Parent(ds)
        for place, box in enumerate(boxes):
            made = np.zeros((3 * len(names), *(parent.layout.cells,) * 3), dtype=np.float32)
            assembling.nbytes += _add_rows(job, parent, box, made)
            for number, name in enumerate(names):
                arrays[name][place] = made[3 * number : 3 * number + 3]
    return _write(job, shard, ds, arrays)


def predict_shard(shard: int, job: Job) -> dict[str, Any]:
    """Task: predict the boxes of one shard, each by itself, and write it."""
    if found := written(job, shard):
        return found  # a worker died after it had written the receipt
    boxes = job.layout.boxes_of(shard)
    ds = fields_of(job)
    arrays = _empty(job, len(boxes))
    if job.takes_whole:
        with stage("read"):
            parent = Parent(ds)
            cells = parent.layout.cells
            for place, box in enumerate(boxes):
                start = [cells * along for along in parent.place(box)]
                arrays["velocity"][place] = whole_of(job, start, cells)
    elif job.how:
        with stage("predict"):
            arrays["velocity"][...] = analytic.velocities(job.how[0], ds, boxes)
    else:
        model, seen, within = load(job), ds, boxes
        if model.guide is None:  # a guide may need other boxes: it reads what it needs
            with stage("read") as read:
                needed = sorted({store.INPUTS[kind][0] for kind in model.inputs})
                with store.decoding(ds, " or ".join(needed), f"{boxes[0]} to {boxes[-1]}"):
                    seen, within = ds[needed].isel(box=slice(boxes[0], boxes[-1] + 1)).load(), range(len(boxes))
                read.nbytes += seen.nbytes
        with stage("predict"):
            made = model.predict(seen, batch=job.batch, boxes=within, average=job.average)
            for name in model.variables:
                arrays[name][...] = made[name].values
    return _write(job, shard, ds, arrays)


def blocks_of(tiles: Tiling, cells: int, ix: int, iy: int, channels: int) -> tuple[list[Block], int]:
    """How the file of a row of tiles is laid out: blocks float32 (z, channel, x, y) of the boxes it meets; its size."""
    found, end = [], 0
    for p, q in ((p, q) for p in _met(tiles, cells, ix) for q in _met(tiles, cells, iy)):
        found.append((p, q, end))
        end += 4 * tiles.ngrid * channels * (p.end - p.first) * (q.end - q.first)
    return found, end


def _stretch(column: NDArray[np.float32], start: int, length: int, tiles: Tiling, mean: float) -> NDArray[np.float32]:
    """What a column of a parent's cells (x, y, z) has from ``start`` on along z; beyond one that ends, its mean."""
    out = np.full((*column.shape[:2], length), mean, dtype=np.float32)
    for p in pieces(start, length, tiles.ngrid, tiles.ngrid, periodic=tiles.periodic):
        out[..., p.at : p.at + p.end - p.first] = column[..., p.first : p.end]
    return out


def _add_rows(job: Job, parent: Parent, box: int, made: NDArray[np.float32]) -> int:
    """Add to a box (channel, x, y, z) what all rows have of it; returns the bytes that were read."""
    tiles = job.tiling
    assert tiles is not None
    cells, channels = parent.layout.cells, len(made)
    i, j, k = parent.place(box)
    reads = []
    for ix in _meeting(tiles, cells, i):
        for iy in _meeting(tiles, cells, j):
            blocks, _ = blocks_of(tiles, cells, ix, iy, channels)
            for p, q, begin in blocks:
                if (p.box, q.box) == (i, j):
                    shape = (cells, channels, p.end - p.first, q.end - q.first)
                    nbytes = 4 * int(np.prod(shape))
                    reads.append((ix * len(tiles.starts) + iy, p, q, begin + k * nbytes, shape))

    def read(one: tuple[int, Piece, Piece, int, tuple[int, ...]]) -> NDArray[np.float32]:
        row, _, _, begin, shape = one
        return _read(_row_url(job, row), begin, shape)

    nbytes = 0
    with ThreadPoolExecutor(READERS) as pool:
        for (_, p, q, _, _), values in zip(reads, pool.map(read, reads), strict=True):
            made[:, p.first : p.end, q.first : q.end] += np.moveaxis(values, 0, -1)
            nbytes += values.nbytes
    return nbytes


def _met(tiles: Tiling, cells: int, tile: int) -> list[Piece]:
    """The boxes that a tile's support meets along an axis."""
    cut = tiles.support(tile)
    length = cut.stop - cut.start
    return pieces(tiles.starts[tile] + cut.start, length, cells, tiles.ngrid, periodic=tiles.periodic)


def _meeting(tiles: Tiling, cells: int, box: int) -> list[int]:
    """The tiles whose support meets a box along an axis."""
    return [t for t in range(len(tiles.starts)) if any(p.box == box for p in _met(tiles, cells, t))]


def _read(url: str, begin: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    end = begin + 4 * int(np.prod(shape))
    (data,) = storage.read_ranges(url, [storage.filesystem(url)[1]], [begin], [end])
    if isinstance(data, BaseException):
        raise data
    if len(data) != end - begin:
        raise DamagedError(
            f"a row of tiles is cut off: file={url}, bytes={begin} to {end}; "
            "remove the unfinished store, then run the same command again"
        )
    return np.frombuffer(data, dtype="<f4").reshape(shape)


def _empty(job: Job, count: int) -> dict[str, NDArray[Any]]:
    return {name: np.empty((count, *v.shape), v.dtype) for name, v in job.layout.variables.items()}


def _write(job: Job, shard: int, ds: xr.Dataset, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Say of each cell what is known, take away what is not, and write the shard and its receipt."""
    boxes = job.layout.boxes_of(shard)
    empty = (job.receipts.find("looks", receipts_name(shard)) or {"empty": [1] * len(boxes)})["empty"]
    parent = Parent(ds) if any(empty) and job.expected is not None and job.expected.joined else None
    sums = []
    for place, box in enumerate(boxes):
        velocity, expected = arrays["velocity"][place], job.expected if empty[place] else None
        flag, made = plausible.flags(ds, box, velocity, expected, context=job.context, parent=parent)
        arrays["velocity_flag"][place] = flag
        sums.append(made)
        if (outside := flag & KNOWLEDGE == OUTSIDE).any():
            for name in arrays.keys() - {"velocity_flag"}:
                arrays[name][place][:, outside] = np.nan
    with stage("write", nbytes=sum(values.nbytes for values in arrays.values())):
        objects = shards.write_boxes(job.out, job.layout, boxes, arrays)
    receipt = {"boxes": [boxes[0], boxes[-1]], "objects": objects, "sums": VelocitySums.total(sums).to_dict()}
    return job.receipts.leave(receipt, "shards", receipts_name(shard))


def written(job: Job, shard: int) -> dict[str, Any] | None:
    """The receipt of a shard, None if it is not done; one that an older version left without sums is done again."""
    found = job.receipts.find("shards", receipts_name(shard))
    return found if found is not None and "sums" in found else None


def flag_shard(shard: int, job: Job) -> dict[str, Any]:
    """Task: flag all cells of a shard that is written as implausible, for they are accepted as that."""
    if found := job.receipts.find("flagged", receipts_name(shard)):
        return found
    boxes, name = job.layout.boxes_of(shard), "velocity_flag"
    array = zarr.open_array(shards.zarr_store(storage.join(job.out, name)), mode="r", zarr_format=3)
    values = np.asarray(array[boxes[0] : boxes[-1] + 1])
    if (values > IMPLAUSIBLE + EMPTY + KNOWLEDGE).any():  # a chunk that is not there reads as 255
        raise DamagedError(
            f"a shard that was written is gone: out={job.out}, variable={name}, boxes={boxes[0]} to {boxes[-1]}; "
            "remove the unfinished store, then run the same command again"
        )
    objects = shards.write_boxes(job.out, job.layout, boxes, {name: values | np.uint8(IMPLAUSIBLE)}, [name])
    return job.receipts.leave({"objects": objects}, "flagged", receipts_name(shard))


def _row_url(job: Job, row: int) -> str:
    return storage.join(job.receipts.work, "tiles", f"{row:06d}")
