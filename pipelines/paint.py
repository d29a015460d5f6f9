"""The painting job: catalogues in, field store out (docs/design.md, "Painting").

Two kinds of task (`velfield.pipelines.paint_tasks`), both restartable: a block task reads one block once and leaves its
patches and a receipt beneath ``OUT/.work/``; a shard task adds the patches of its boxes and writes whole shards. The
root metadata comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
from distributed import Client

from velfield.errors import StoreError, VelfieldError
from velfield.files import shards
from velfield.files.progress import Progress, Silent
from velfield.geometry.extent import Extent
from velfield.painting.tracers import check_reach
from velfield.pipelines import lease
from velfield.pipelines.here import Threads
from velfield.pipelines.paint_job import Job, painted_of, spec_of
from velfield.pipelines.paint_tasks import Reopened, accumulate, block_name, paint_block, write_shard
from velfield.pipelines.receipts import bytes_of
from velfield.pipelines.tasks import run_tasks
from velfield.stores import store_layout

FLOAT32_SUM = 1e-6  # relative: sums are float64, and what is stored is rounded to float32 cell by cell


def paint(where: Client | Threads, job: Job, progress: Progress | None = None) -> bool:
    """Run the job, or what is left of it, on a cluster or in threads that share the job's open catalogues.

    Returns False if the store was finished already.
    """
    progress = progress or Silent()
    with lease.hold(job.receipts) as held:
        if held is None or not job.receipts.begin({"fingerprint": job.fingerprint, "config": asdict(job.config)}):
            return False
        blocks = _run_blocks(where, job, progress)
        totals = _add_up(job, blocks)
        layout = store_layout.field_layout(spec_of(job, store_layout.means_of(totals, job.scene.boxes), totals))
        shards.create(job.out, layout)
        written = _run_shards(where, job, layout, blocks, progress)
        held.check()
        shards.publish(job.out, layout, written)
    job.receipts.clear()
    return True


def _run_blocks(where: Client | Threads, job: Job, progress: Progress) -> Mapping[tuple[str, int], dict[str, Any]]:
    """Paint the blocks that are not painted yet; returns the receipts of all."""
    found = job.receipts.all("blocks")
    done = {block: found[block_name(*block)] for block in job.blocks if block_name(*block) in found}
    left = [block for block in job.blocks if block not in done]
    before = len(done)
    rows = {(kind, i): job.catalogues[kind].blocks[i].nrows for kind, i in left}
    progress.start("paint blocks", sum(rows.values()), "particles" if "particles" in job.catalogues else "halos")
    per_shard = store_layout.field_layout(spec_of(job, dict.fromkeys(painted_of(job), 1.0), {})).boxes_per_shard
    here = isinstance(where, Threads)
    opened = job.catalogues.__getitem__ if here else Reopened(job.config, job.versions)
    common = (opened, job.config, job.scene, job.receipts, per_shard)
    with closing(_run(where, paint_block, left, *common, name="read-paint")) as ended:
        for block, receipt in ended:
            done[block] = receipt
            progress.advance(rows[block], f"{len(done)}/{len(job.blocks)} blocks", nbytes=bytes_of(receipt, "read"))
    progress.done(f"{len(left)} blocks" + (f", {before} were done before" if before else ""))
    return done


def _run_shards(
    where: Client | Threads,
    job: Job,
    layout: shards.Layout,
    blocks: Mapping[tuple[str, int], Mapping[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """Write the shards that are not written yet; returns size and hash of the objects of all."""
    done = {int(name): receipt for name, receipt in job.receipts.all("shards").items()}
    left = [s for s in range(layout.nshard) if s not in done]
    before = len(done)
    sources: dict[int, list[tuple[str, int, int, int, int, int]]] = {s: [] for s in left}
    for kind, index in job.blocks:
        for shard, part, start, stop, checksum in blocks[kind, index]["files"]:
            if shard in sources:
                sources[shard].append((kind, index, part, start, stop, checksum))
    progress.start("assemble boxes", sum(len(layout.boxes_of(s)) for s in left), "boxes")
    common = (job.scene, layout, job.receipts)
    with closing(_run(where, write_shard, list(sources.items()), *common, name="assemble-write")) as ended:
        for (shard, _), receipt in ended:
            done[shard] = receipt
            boxes = len(layout.boxes_of(shard))
            progress.advance(boxes, f"{len(done)}/{layout.nshard} shards", nbytes=bytes_of(receipt, "write"))
    progress.done(f"{len(left)} shards" + (f", {before} were done before" if before else ""))
    return {key: entry for receipt in done.values() for key, entry in receipt["objects"].items()}


def _run(
    where: Client | Threads, task: Callable[..., Any], items: Sequence[Any], *common: Any, name: str
) -> Generator[tuple[Any, Any], None, None]:
    """Items and results as they come; closed, what is left is not begun."""
    if isinstance(where, Threads):
        yield from where.run_tasks(task, items, *common, name=name)
    else:
        yield from run_tasks(where, task, items, *common, name=name)


def _add_up(job: Job, blocks: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """Add the receipts in block order and hold what was painted against what was read."""
    totals: dict[str, Any] = {}
    for kind in job.catalogues:
        url, extent = job.catalogues[kind].url, Extent()
        total: dict[str, Any] = {"read": 0, "kept": 0, "dropped": 0, "furthest": 0.0, "sums": {}, "painted": {}}
        for block in job.blocks:
            if block[0] != kind:
                continue
            receipt = blocks[block]
            for name in ("read", "kept", "dropped"):
                total[name] += receipt[name]
            total["furthest"] = max(total["furthest"], receipt["furthest"])
            extent |= Extent.from_dict(receipt.get("extent"))
            accumulate(total["sums"], receipt["sums"])
            accumulate(total["painted"], receipt["painted"])
        check_reach(extent, boxsize=job.scene.boxes.boxsize, where=f"{kind}={url}")
        if total["kept"] == 0:
            way_out = "lower --min-mass"
            if total["dropped"] == total["read"] > 0:
                way_out = f"all lie outside the box, boxsize={job.scene.boxes.boxsize:g}: check the positions' unit"
            raise VelfieldError(
                f"no tracers left to paint: {kind}={url}, rows={total['read']}, min_mass={job.config.min_mass}; "
                + way_out
            )
        _check_finite(kind, total)
        conserved = job.scene.periodic and (kind == "particles" or job.scene.sightlines.shared)
        if conserved:
            _check_sums(kind, total)
        totals[kind] = total | {"conserved": conserved}
    return totals


def _check_finite(kind: str, total: Mapping[str, Any]) -> None:
    """No cell holds more than the sum of all: where that is a number of float32, every cell is."""
    for name, value in (total["sums"] | total["painted"]).items():
        if not (np.abs(value) <= np.finfo(np.float32).max).all():
            raise StoreError(
                f"sums that cannot be stored: {kind} {name}={value}, limit={np.finfo(np.float32).max:.3g}; "
                "check the catalogue with velfield verify"
            )


def _check_sums(kind: str, total: Mapping[str, Any]) -> None:
    for name in ("number", "mass", "momentum"):
        if name not in total["sums"]:
            continue
        read, painted = np.array(total["sums"][name]), np.array(total["painted"][name])
        scale = total["sums"]["speed"] if name == "momentum" else np.abs(read)
        if not (np.abs(painted - read) <= FLOAT32_SUM * scale).all():  # so that NaN does not pass
            raise StoreError(
                f"painted sums differ from the catalogue's: {kind} {name}, read={read.tolist()}, "
                f"painted={painted.tolist()}; do not use this store, report the case"
            )
