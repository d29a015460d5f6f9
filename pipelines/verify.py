"""The verification job: a task reads a shard of every variable, or a block of a catalogue, and says what is wrong."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client

from velfield.catalogues.catalogue import Catalogue, open_catalogue
from velfield.files import shards
from velfield.files.progress import Progress, Silent
from velfield.pipelines.tasks import run_tasks
from velfield.verification import verify_store
from velfield.verification.findings import Finding, note
from velfield.verification.verify import (
    CATALOGUE,
    SIMULATION,
    STORE,
    Report,
    catalogues_of,
    check_block,
    kind_of,
    open_it,
)
from velfield.verification.verify_boxes import Scene
from velfield.verification.verify_shard import Checked, Part, check_part
from velfield.verification.verify_whole import Summary, check_books, check_margins, check_totals

Reading = tuple[tuple[str, Any], ...]  # arguments of open_catalogue, hashable
KINDS = {"fields": "field store", "velocity": "velocity store"}


def verify(
    client: Client,
    url: str,
    *,
    inputs: bool = True,
    progress: Progress | None = None,
    **reading: Any,
) -> Report:
    """Verify a store, a simulation or a catalogue; bundles need no cluster: `velfield.verification.verify.check_model`.

    Parameters
    ----------
    inputs : bool
        Whether what a store was made from is looked at, where it can be reached.
    **reading
        How a catalogue is to be read: arguments of `open_catalogue`.
    """
    progress = progress or Silent()
    if kind_of(url) == STORE:
        return _verify_store(client, url, inputs, progress)
    if kind_of(url) == SIMULATION:
        listed, findings = catalogues_of(url)
        return _verify_catalogues(client, url, SIMULATION, listed, findings, progress)
    return _verify_catalogues(client, url, CATALOGUE, [(url, reading, None)], [], progress)


def check_shard(
    part: Part, url: str, documents: dict[str, bytes], scene: Scene | None, variables: dict[str, tuple[int, ...]]
) -> Checked:
    """Task: read and check one shard of every variable."""
    return check_part(part, url, documents, scene, variables)


def check_catalogue_block(item: tuple[str, Reading, int]) -> list[Finding]:
    """Task: read and check one block of a catalogue."""
    url, reading, block = item
    return check_block(_catalogue(url, reading), block)


def _verify_store(client: Client, url: str, inputs: bool, progress: Progress) -> Report:
    opened = verify_store.open_store(url, inputs=inputs)
    findings = list(opened.findings)
    variables = {n: v.shape for n, v in opened.layout.variables.items()} if opened.layout else {}
    documents = {n: opened.documents[k] for n in variables if (k := f"{n}/{shards.ROOT}") in opened.documents}
    parts = verify_store.parts_of(opened)
    summaries: dict[int, Summary] = {}
    unread: list[int] = []
    nbytes = sum(map(len, opened.documents.values()))
    progress.start("verify shards", len(parts), "shards")
    of_shard: dict[int, Sequence[Finding]] = {}
    for part, checked in run_tasks(client, check_shard, parts, url, documents, opened.scene, variables, name="verify"):
        of_shard[part.shard] = checked.findings
        summaries |= checked.summaries
        unread += checked.unread
        nbytes += checked.nbytes
        progress.advance()
    progress.done()
    for _, found in sorted(of_shard.items()):
        findings += found
    scene, nbox = opened.scene, opened.layout.nbox if opened.layout else 0
    if scene is not None:
        totals = opened.totals
        findings += check_books(totals, opened.inputs, scene.min_mass)
        findings += check_margins(scene, summaries)
        if len(summaries) == nbox:
            findings += check_totals(scene, totals, summaries)
        else:
            lost = f"{nbox - len(summaries)} of {nbox} boxes cannot be read"
            findings.append(note("sums were not checked", "boxes=all", lost, "all boxes"))
    seen = {"objects": len(opened.present) + 1, "bytes": nbytes, "boxes": nbox - len(unread)}
    return Report(url=url, what=KINDS.get(opened.kind, STORE), findings=findings, checked=seen)


def _verify_catalogues(
    client: Client,
    url: str,
    what: str,
    listed: Sequence[tuple[str, Mapping[str, Any], int | None]],
    findings: Sequence[Finding],
    progress: Progress,
) -> Report:
    found = list(findings)
    rows: dict[tuple[str, Reading, int], int] = {}
    nbytes = 0
    for place, given, nrows in listed:
        reading = tuple(sorted((name, value) for name, value in given.items() if value))
        cat, wrong = open_it(place, given, nrows)
        found += wrong
        if cat is not None:
            nbytes += cat.nbytes
            rows |= {(place, reading, i): block.nrows for i, block in enumerate(cat.blocks)}
    progress.start("verify blocks", sum(rows.values()), "rows")
    of_block = {}
    for item, wrong in run_tasks(client, check_catalogue_block, list(rows), name="verify"):
        of_block[item] = wrong
        progress.advance(rows[item])
    progress.done()
    for item in rows:
        found += of_block[item]
    seen = {"blocks": len(rows), "rows": sum(rows.values()), "bytes": nbytes}
    return Report(url=url, what=what, findings=found, checked=seen)


@functools.lru_cache(maxsize=8)
def _catalogue(url: str, reading: Reading) -> Catalogue:
    return open_catalogue(url, **dict(reading))
