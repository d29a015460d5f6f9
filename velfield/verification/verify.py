"""``velfield verify``: what lies at a URL, and whether it is whole. docs/verify.md: which fault is found by what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from velfield.catalogues.catalogue import Catalogue, open_catalogue
from velfield.errors import SENSELESS, CatalogueError, StorageError, StoreError, VelfieldError
from velfield.files import manifest, shards, shipped, storage
from velfield.stores import store
from velfield.verification.findings import Finding, fault

STORE, MODEL, SIMULATION, CATALOGUE = "store", "model bundle", "simulation", "catalogue"
_MARKS = {  # what is in a folder says what it is
    MODEL: ("metadata.json", "model.safetensors"),
    SIMULATION: ("simulation.json",),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was looked at and what was found; ``checked`` counts by name."""

    url: str
    what: str
    findings: Sequence[Finding]
    checked: dict[str, int]

    @property
    def damaged(self) -> bool:
        """Whether anything is wrong; notes are not."""
        return any(not finding.note for finding in self.findings)

    def lines(self) -> list[str]:
        """A line for each finding and one for the whole."""
        faults = sum(not finding.note for finding in self.findings)
        state = f"damaged, {faults} finding{'s' * (faults != 1)}" if faults else "whole"
        counts = ", ".join(f"{name}={count}" for name, count in self.checked.items())
        return [finding.line() for finding in self.findings] + [f"{state}: {self.what}={self.url}, {counts}"]

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "url": self.url,
            "what": self.what,
            "damaged": self.damaged,
            "findings": [finding.plain() for finding in self.findings],
            "checked": self.checked,
        }


def kind_of(url: str) -> str:
    """`STORE`, `MODEL`, `SIMULATION` or `CATALOGUE`, by what lies there; a place without any of them is refused."""
    url = shipped.place(url)
    if shards.published(url) or storage.exists(storage.join(url, *manifest.KEY.split("/"))):
        return STORE
    for kind, names in _MARKS.items():
        if any(storage.exists(storage.join(url, name)) for name in names):
            return kind
    if storage.exists(storage.join(url, store.WORK)):
        raise StoreError(f"this store is not finished: url={url}; run the command that makes it again to go on")
    if not storage.exists(url):
        raise VelfieldError(f"no such file or folder: url={url}; {storage.did_you_mean(url)}check the path")
    if storage.is_folder(url):
        raise VelfieldError(f"nothing of velfield's is here: url={url}; name a catalogue, a store or a model bundle")
    return CATALOGUE


def check_model(url: str) -> Report:
    """Whether a model bundle loads: checksum, names and shapes; and whether all its numbers are finite."""
    from velfield.network.model import load_model

    findings: list[Finding] = []
    checked = {"tensors": 0, "parameters": 0}
    try:
        model = load_model(url, device="cpu")
    except StorageError:
        raise
    except VelfieldError as error:
        findings.append(fault("the model cannot be used", f"model={url}", str(error), "a whole bundle"))
        return Report(url=url, what=MODEL, findings=findings, checked=checked)
    for name, tensor in model.net.state_dict().items():
        checked["tensors"] += 1
        checked["parameters"] += tensor.numel()
        if (bad := int((~tensor.isfinite()).sum())) > 0:
            findings.append(fault("weights that are not finite", f"tensor={name}", f"{bad} values", "finite numbers"))
    for name, number in _numbers("normalisation", model.metadata["normalisation"]):
        if not math.isfinite(number):
            findings.append(fault("a scale that is not finite", f"metadata={name}", f"{number}", "a finite number"))
    return Report(url=url, what=MODEL, findings=findings, checked=checked)


def catalogues_of(url: str) -> tuple[list[tuple[str, dict[str, Any], int | None]], list[Finding]]:
    """Catalogues of a simulation, how they are to be read, and their rows, as its record has them."""
    record = storage.join(url, "simulation.json")
    try:
        found = [
            (storage.join(url, snapshot[kind]), {"redshift": float(snapshot["redshift"])}, int(snapshot[f"n{kind}"]))
            for snapshot in storage.read_json(record)["snapshots"]
            for kind in ("halos", "particles")
        ]
    except SENSELESS as error:
        return [], [fault("the record makes no sense", f"file={record}", f"{error}", "what velfield simulate writes")]
    return list(found), []


def open_it(url: str, reading: Mapping[str, Any], rows: int | None = None) -> tuple[Catalogue | None, list[Finding]]:
    """Open a catalogue that is there; what keeps it from opening is damage."""
    try:
        cat = open_catalogue(url, **reading)
    except VelfieldError as error:
        return None, [fault("a catalogue cannot be opened", f"file={url}", str(error), "a whole catalogue")]
    if rows is not None and len(cat) != rows:
        return cat, [fault("rows are not those of the record", f"file={url}", f"{len(cat)}", f"{rows}")]
    return cat, []


def check_block(cat: Catalogue, block: int) -> list[Finding]:
    """Read every column of a block, its checksum where the format has one; then see whether its tracers make sense."""
    where = f"file={cat.blocks[block].url}, block={block}"
    found: list[Finding] = []
    for name in cat.columns:
        try:
            cat.read([name], [block])
        except CatalogueError as error:
            found.append(fault("a column cannot be read", f"{where}, column={name}", str(error), "whole data"))
    if not found:
        meaning = cat.meaning
        velocities = "vx" in meaning.sources and meaning.velocity is not None and cat.redshift is not None
        try:
            cat.tracers([block], velocities=velocities, masses="mass" in meaning.sources)
        except CatalogueError as error:
            found.append(fault("tracers make no sense", where, str(error), "places in the box, masses, speeds"))
    return found


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(f"{path}.{name}", item)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _numbers(f"{path}[{i}]", item)
    elif isinstance(value, float | int):
        yield path, float(value)
