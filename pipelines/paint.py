"""The painting job: catalogues in, field store out (docs/design.md, "Painting").

Two kinds of task, both restartable: a block task reads one block once and leaves its patches and a receipt beneath
``OUT/.work/``; a shard task adds the patches of its boxes and writes whole shards. The root metadata comes last.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from velfield import patches, shards, storage, store
from velfield.catalogue import Catalogue
from velfield.errors import StoreError, VelfieldError
from velfield.paint import fill_velocity
from velfield.pipelines.cluster import run_tasks
from velfield.pipelines.paint_job import Job, PaintConfig, files_of, painted_of, spec_of
from velfield.pipelines.receipts import Receipts
from velfield.progress import Progress, Silent

FLOAT32_SUM = 1e-6  # relative: sums are float64, and what is stored is rounded to float32 cell by cell


def paint(client: Client, job: Job, progress: Progress | None = None) -> bool:
    """Run the job, or what is left of it. Returns False if the store was finished already."""
    progress = progress or Silent()
    if not job.receipts.begin({"fingerprint": job.fingerprint, "config": asdict(job.config)}):
        return False
    blocks = _run_blocks(client, job, progress)
    totals = _add_up(job, blocks)
    layout = store.field_layout(spec_of(job, _means(job, totals), totals))
    shards.create(job.out, layout)
    written = _run_shards(client, job, layout, blocks, progress)
    shards.publish(job.out, layout, written)
    job.receipts.clear()
    return True


def _run_blocks(client: Client, job: Job, progress: Progress) -> Mapping[tuple[str, int], dict[str, Any]]:
    """Paint the blocks that are not painted yet; returns the receipts of all."""
    done = {block: receipt for block in job.blocks if (receipt := job.receipts.find("blocks", _name(*block)))}
    left = [block for block in job.blocks if block not in done]
    before = len(done)
    rows = {(kind, i): job.catalogues[kind].blocks[i].nrows for kind, i in left}
    progress.start("paint blocks", sum(rows.values()), "rows")
    per_shard = store.field_layout(spec_of(job, dict.fromkeys(painted_of(job), 1.0), {})).boxes_per_shard
    common = (job.config, job.scene, job.receipts, per_shard, job.versions)
    for block, receipt in run_tasks(client, paint_block, left, *common, name="read-paint"):
        done[block] = receipt
        progress.advance(rows[block], f"{len(done)}/{len(job.blocks)} blocks")
    progress.done(f"{len(left)} blocks" + (f", {before} were done before" if before else ""))
    return done


def _run_shards(
    client: Client,
    job: Job,
    layout: shards.Layout,
    blocks: Mapping[tuple[str, int], Mapping[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """Write the shards that are not written yet; returns size and hash of the objects of all."""
    done = {s: receipt for s in range(layout.nshard) if (receipt := job.receipts.find("shards", f"{s:05d}"))}
    left = [s for s in range(layout.nshard) if s not in done]
    before = len(done)
    sources = {s: [block for block in job.blocks if s in blocks[block]["shards"]] for s in left}
    progress.start("assemble boxes", sum(len(layout.boxes_of(s)) for s in left), "boxes")
    common = (job.scene, layout, job.receipts)
    for (shard, _), receipt in run_tasks(client, write_shard, list(sources.items()), *common, name="assemble-write"):
        done[shard] = receipt
        progress.advance(len(layout.boxes_of(shard)))
    progress.done(f"{len(left)} shards" + (f", {before} were done before" if before else ""))
    return {key: entry for receipt in done.values() for key, entry in receipt["objects"].items()}


def paint_block(
    block: tuple[str, int],
    config: PaintConfig,
    scene: patches.Scene,
    receipts: Receipts,
    boxes_per_shard: int,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Task: read one block, write its patches, one file for each shard it reaches, and a receipt."""
    kind, index = block
    if found := receipts.find("blocks", _name(kind, index)):
        return found  # a worker died after it had written the receipt
    halos = kind == "halos"
    moved = halos and config.rsd != "none"
    cat = _catalogue(config, kind, versions[kind])
    tracers = cat.tracers(blocks=[index], velocities=moved or not halos, masses=halos)
    pos, vel, mass = tracers.pos, tracers.vel, tracers.mass
    read = len(pos)
    if halos and mass is not None and config.min_mass > 0:
        keep = mass >= config.min_mass
        pos, mass = pos[keep], mass[keep]
        vel = None if vel is None else vel[keep]
    receipt: dict[str, Any] = {"read": read, "kept": len(pos), "furthest": 0.0, "painted": {}}
    receipt["sums"] = _sums(pos, None if halos else vel, mass)
    by_shard: dict[int, dict[int, patches.Patch]] = {}
    for box, patch, shift in patches.patches_of(scene, pos, vel, mass, shifted=moved, momentum=not halos):
        receipt["furthest"] = max(receipt["furthest"], shift)
        _accumulate(receipt["painted"], patches.core_sums(scene.boxes, patch))
        by_shard.setdefault(box // boxes_per_shard, {})[box] = patch
    if receipt["furthest"] > scene.max_shift:
        raise VelfieldError(
            f"halos carried too far by redshift space: file={cat.url}, block={index}, "
            f"furthest={receipt['furthest']:.1f} h⁻¹Mpc, max_shift={scene.max_shift}; "
            "check the velocities' unit, or raise --max-shift"
        )
    for shard, patch_of in by_shard.items():
        file = io.BytesIO()
        np.savez(file, **patches.pack(patch_of))  # type: ignore[arg-type]
        storage.write_bytes(_patch_url(receipts, kind, index, shard), file.getvalue())
    receipt["shards"] = sorted(by_shard)
    receipts.leave(receipt, "blocks", _name(kind, index))
    return receipt


def write_shard(
    part: tuple[int, Sequence[tuple[str, int]]], scene: patches.Scene, layout: shards.Layout, receipts: Receipts
) -> dict[str, Any]:
    """Task: add the patches of a shard's boxes in block order, write the shard of every variable, and a receipt."""
    shard, sources = part
    if done := receipts.find("shards", f"{shard:05d}"):
        return done
    found: dict[tuple[str, int], list[patches.Patch]] = {}
    for kind, index in sources:
        with np.load(io.BytesIO(storage.read_bytes(_patch_url(receipts, kind, index, shard)))) as file:
            for box, patch in patches.unpack(file).items():
                found.setdefault((kind, box), []).append(patch)
    boxes = layout.boxes_of(shard)
    arrays = {
        name: np.empty((len(boxes), *variable.shape), variable.dtype) for name, variable in layout.variables.items()
    }
    for i, box in enumerate(boxes):
        for name, values in _box(scene, layout, box, found).items():
            arrays[name][i] = values
    written = shards.write_boxes(receipts.out, layout, boxes, arrays)
    receipt = {"boxes": [boxes[0], boxes[-1]], "objects": written}
    receipts.leave(receipt, "shards", f"{shard:05d}")
    return receipt


def _box(
    scene: patches.Scene, layout: shards.Layout, box: int, found: Mapping[tuple[str, int], list[patches.Patch]]
) -> dict[str, NDArray[Any]]:
    shape = scene.boxes.shape
    arrays: dict[str, NDArray[Any]] = {}
    if "halo_number" in layout.variables:
        halos = patches.put_together(found.get(("halos", box), []), shape, mass=True, momentum=False)
        arrays["halo_number"] = halos.number
        if halos.mass is not None:
            arrays["halo_mass"] = halos.mass
    if "matter_number" in layout.variables:
        matter = patches.put_together(found.get(("particles", box), []), shape, mass=False, momentum=True)
        outside = None if scene.periodic else patches.outside_parent(scene.boxes, box)
        arrays["matter_number"] = matter.number
        if matter.momentum is not None:
            arrays["velocity"], arrays["velocity_flag"] = fill_velocity(matter.momentum, matter.number, outside)
    return arrays


def _add_up(job: Job, blocks: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """Add the receipts in block order and hold what was painted against what was read."""
    totals: dict[str, Any] = {}
    for kind in job.catalogues:
        total: dict[str, Any] = {"read": 0, "kept": 0, "furthest": 0.0, "sums": {}, "painted": {}}
        for block in job.blocks:
            if block[0] != kind:
                continue
            receipt = blocks[block]
            total["read"] += receipt["read"]
            total["kept"] += receipt["kept"]
            total["furthest"] = max(total["furthest"], receipt["furthest"])
            _accumulate(total["sums"], receipt["sums"])
            _accumulate(total["painted"], receipt["painted"])
        if total["kept"] == 0:
            raise VelfieldError(
                f"no tracers left to paint: {kind}={job.catalogues[kind].url}, rows={total['read']}, "
                f"min_mass={job.config.min_mass}; lower --min-mass"
            )
        conserved = job.scene.periodic and (kind == "particles" or job.scene.sightlines.shared)
        if conserved:
            _check_sums(kind, total)
        totals[kind] = total | {"conserved": conserved}
    return totals


def _check_sums(kind: str, total: Mapping[str, Any]) -> None:
    for name in ("number", "mass", "momentum"):
        if name not in total["sums"]:
            continue
        read, painted = np.array(total["sums"][name]), np.array(total["painted"][name])
        scale = total["sums"]["speed"] if name == "momentum" else np.abs(read)
        if (np.abs(painted - read) > FLOAT32_SUM * scale).any():
            raise StoreError(
                f"painted sums differ from the catalogue's: {kind} {name}, read={read.tolist()}, "
                f"painted={painted.tolist()}; do not use this store, report the case"
            )


def _sums(pos: NDArray[Any], vel: NDArray[Any] | None, mass: NDArray[Any] | None) -> dict[str, Any]:
    sums: dict[str, Any] = {"number": float(len(pos))}
    if mass is not None:
        sums["mass"] = float(mass.sum(dtype=np.float64))
    if vel is not None:
        sums["momentum"] = vel.sum(0, dtype=np.float64).tolist()
        sums["speed"] = float(np.sqrt((vel.astype(np.float64) ** 2).sum(1)).sum())
    return sums


def _accumulate(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        total[name] = (np.array(total.get(name, 0.0)) + np.array(value)).tolist()


def _means(job: Job, totals: Mapping[str, Any]) -> dict[str, float]:
    cells = job.scene.boxes.ngrid**3
    source = {
        "halo_mass": ("halos", "mass"),
        "halo_number": ("halos", "number"),
        "matter_number": ("particles", "number"),
    }
    return {name: totals[source[name][0]]["sums"][source[name][1]] / cells for name in painted_of(job)}


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


def _name(kind: str, index: int) -> str:
    return f"{kind}-{index:06d}"


def _patch_url(receipts: Receipts, kind: str, index: int, shard: int) -> str:
    return storage.join(receipts.work, "patches", _name(kind, index), f"{shard:05d}.npz")
