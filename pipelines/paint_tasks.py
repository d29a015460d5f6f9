"""The two kinds of task of the painting job; both leave a receipt when their piece is whole, and are skipped then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.catalogue import Catalogue
from velfield.errors import DamagedError, VelfieldError
from velfield.files import shards, storage
from velfield.geometry.extent import Extent
from velfield.painting import patches
from velfield.painting.fill import fill_velocity
from velfield.painting.paint import split_sums
from velfield.painting.scatter import add_patch
from velfield.painting.tracers import Tracers, momentum_of
from velfield.pipelines import patch_files
from velfield.pipelines.paint_job import FIELDS, HELD_BYTES, ROWS, PaintConfig, files_of, reads
from velfield.pipelines.receipts import Receipts
from velfield.pipelines.stages import stage

FETCHES = 4  # of a block whose checksums are wrong, before that is believed


@dataclass(frozen=True)
class Reopened:
    """Opens the job's catalogues where a task runs, and sees that they are still those that the job began with."""

    config: PaintConfig
    versions: Mapping[str, str]

    def __call__(self, kind: str) -> Catalogue:
        """The catalogue of this kind."""
        return _catalogue(self.config, kind, self.versions[kind])


def paint_block(
    block: tuple[str, int],
    opened: Callable[[str], Catalogue],
    config: PaintConfig,
    scene: patches.Scene,
    receipts: Receipts,
    boxes_per_shard: int,
) -> dict[str, Any]:
    """Task: read one block in ranges of rows, write its patches, files for each shard it reaches, and a receipt.

    ``opened`` gives the catalogue of a kind.
    """
    kind, index = block
    if found := receipts.find("blocks", block_name(kind, index)):
        return found  # a worker died after it had written the receipt
    cat = opened(kind)
    for fetch in range(FETCHES):
        try:
            receipt = _paint(cat, kind, index, config, scene, receipts, boxes_per_shard)
            break
        except DamagedError:  # on the way from a distant place bytes may turn
            if storage.is_local(cat.url) or fetch == FETCHES - 1:
                raise
    return receipts.leave(receipt, "blocks", block_name(kind, index))


def _paint(
    cat: Catalogue,
    kind: str,
    index: int,
    config: PaintConfig,
    scene: patches.Scene,
    receipts: Receipts,
    boxes_per_shard: int,
) -> dict[str, Any]:
    halos = kind == "halos"
    wanted = reads(cat, scene)
    painted = {"mass": wanted["masses"], "momentum": not halos}
    painter = patches.BlockPainter(scene, shifted=halos, **painted)
    receipt: dict[str, Any] = {"read": 0, "kept": 0, "dropped": 0, "sums": {}, "painted": {}, "files": []}

    extent = Extent()

    def write() -> None:
        by_shard: dict[int, dict[int, patches.Patch]] = {}
        with stage("paint"):
            for box, patch in painter.take().items():
                accumulate(receipt["painted"], patches.core_sums(scene.boxes, patch, **painted))
                by_shard.setdefault(box // boxes_per_shard, {})[box] = patch
        if by_shard:
            part = len({number for _, number, *_ in receipt["files"]})
            with stage("write") as writing:
                stretches, writing.nbytes = patch_files.write(_patch_url(receipts, kind, index, part), by_shard)
            receipt["files"] += [[shard, part, *place] for shard, *place in stretches]

    for read in _read_block(cat, index, **wanted):
        with stage("paint", rows=len(read.pos)):
            tracers = _above(read, config.min_mass) if halos else read
            receipt["read"] += len(read.pos) + read.dropped
            receipt["dropped"] += read.dropped
            receipt["kept"] += len(tracers.pos)
            accumulate(receipt["sums"], _sums(tracers, momentum=not halos))
            extent |= read.extent
            painter.add(tracers.pos, tracers.vel, tracers.mass)
        if painter.held_bytes > HELD_BYTES:
            write()
    write()
    if painter.too_far:
        raise VelfieldError(
            f"halos carried too far by redshift space: file={cat.url}, block={index}, times={painter.too_far}, "
            f"furthest={painter.furthest:.1f} h⁻¹Mpc, max_shift={scene.max_shift}; "
            "check the velocities' unit, or raise --max-shift"
        )
    receipt |= {"furthest": painter.furthest, "extent": extent.to_dict()}
    return receipt


def write_shard(
    part: tuple[int, Sequence[tuple[str, int, int, int, int, int]]],
    scene: patches.Scene,
    layout: shards.Layout,
    receipts: Receipts,
) -> dict[str, Any]:
    """Task: add the patches of a shard's boxes in block order, write the shard of every variable, and a receipt.

    ``part`` is the shard and its stretches of patch files: kind, block, and number of the file, then as `patch_files`
    has them.
    """
    shard, sources = part
    if done := receipts.find("shards", shard_name(shard)):
        return done
    boxes = layout.boxes_of(shard)
    arrays = {
        name: np.empty((len(boxes), *variable.shape), variable.dtype) for name, variable in layout.variables.items()
    }
    for kind, number in (("halos", "halo_number"), ("particles", "matter_number")):
        if number not in layout.variables:
            continue
        mass = kind == "halos" and "halo_mass" in layout.variables
        fields = FIELDS[kind] - (kind == "halos" and not mass)
        stretches = [
            (_patch_url(receipts, kind, index, number), start, stop, checksum)
            for of, index, number, start, stop, checksum in sources
            if of == kind
        ]
        with stage("assemble") as assembling:
            sums = np.zeros((len(boxes), int(np.prod(scene.boxes.shape)), fields))
            for patch_of in patch_files.read(stretches, assembling):
                for box, patch in patch_of.items():
                    add_patch(sums[box - boxes[0]], patch)
            for i, box in enumerate(boxes):
                for name, values in _finished(scene, box, kind, sums[i], mass=mass).items():
                    arrays[name][i] = values
            del sums
    with stage("write", nbytes=sum(values.nbytes for values in arrays.values())):
        written = shards.write_boxes(receipts.out, layout, boxes, arrays)
    receipt = {"boxes": [boxes[0], boxes[-1]], "objects": written}
    return receipts.leave(receipt, "shards", shard_name(shard))


def block_name(kind: str, index: int) -> str:
    """Name of a block's receipt."""
    return f"{kind}-{index:06d}"


def shard_name(shard: int) -> str:
    """Name of a shard's receipt."""
    return f"{shard:05d}"


def accumulate(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add numbers, or lists of numbers, by name."""
    for name, value in part.items():
        total[name] = (np.array(total.get(name, 0.0)) + np.array(value)).tolist()


def _finished(
    scene: patches.Scene, box: int, kind: str, sums: NDArray[np.float64], *, mass: bool
) -> dict[str, NDArray[Any]]:
    """The variables of a box that come from one kind of tracers."""
    halos = kind == "halos"
    painted = split_sums(sums.reshape(*scene.boxes.shape, -1), mass=mass, momentum=not halos)
    if halos:
        return {"halo_number": painted.number} | ({} if painted.mass is None else {"halo_mass": painted.mass})
    assert painted.momentum is not None
    outside = None if scene.periodic else patches.outside_parent(scene.boxes, box)
    velocity, flag = fill_velocity(painted.momentum, painted.number, outside)
    return {"matter_number": painted.number, "velocity": velocity, "velocity_flag": flag}


def _read_block(cat: Catalogue, block: int, *, velocities: bool, masses: bool) -> Iterator[Tracers]:
    """A block in ranges of rows; what is waited for them is the stage "read"."""
    columns = cat.tracer_columns(velocities=velocities, masses=masses)
    with stage("read", nbytes=cat.stored_bytes(columns, [block]), rows=cat.blocks[block].nrows):
        chunks = cat.chunks(block, rows=ROWS, velocities=velocities, masses=masses)
    while True:
        with stage("read"):
            tracers = next(chunks, None)
        if tracers is None:
            return
        yield tracers


def _above(tracers: Tracers, min_mass: float) -> Tracers:
    if tracers.mass is None or min_mass <= 0:
        return tracers
    keep = tracers.mass >= min_mass
    vel = None if tracers.vel is None else tracers.vel[keep]
    return Tracers(pos=tracers.pos[keep], vel=vel, mass=tracers.mass[keep])


def _sums(tracers: Tracers, *, momentum: bool) -> dict[str, Any]:
    sums: dict[str, Any] = {"number": float(len(tracers.pos))}
    if tracers.mass is not None:
        sums["mass"] = float(tracers.mass.sum(dtype=np.float64))
    if momentum and tracers.vel is not None:
        total, speed = momentum_of(tracers.vel)
        sums |= {"momentum": total.tolist(), "speed": speed}
    return sums


@functools.lru_cache(maxsize=8)
def _catalogue(config: PaintConfig, kind: str, version: str) -> Catalogue:
    """Open a catalogue, once a worker, and see that it is still the one that the job began with."""
    cat = config.open(kind)
    if (found := storage.version(files_of(cat))) != version:
        raise VelfieldError(
            f"the catalogue changed while it was painted: url={cat.url}, version of its files={found[:16]}, "
            f"at the start {version[:16]}; run the same command again"
        )
    return cat


def _patch_url(receipts: Receipts, kind: str, index: int, part: int) -> str:
    return storage.join(receipts.work, "patches", f"{block_name(kind, index)}-{part}")
