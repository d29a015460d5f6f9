"""A store as `velfield.verification.verify_store` looks at it: what is there, what its documents say and should say.

Nothing is taken for granted: what cannot be read or understood becomes a finding, and is empty from then on.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from velfield.errors import SENSELESS, StoreError
from velfield.files import manifest, shards, storage
from velfield.stores import store, store_layout
from velfield.stores.store_layout import SCHEMA, VARIABLES
from velfield.verification.findings import Finding, fault, note
from velfield.verification.verify_boxes import Scene
from velfield.verification.verify_shard import against_manifest, said

LARGE = 2**30  # bytes: no coordinate is that large
MOST_BOXES = 1000  # along a side


@dataclass(kw_only=True)
class Opened:
    """A store's metadata as they are, what they should be, and what is wrong with them.

    Parameters
    ----------
    url, kind : str
        Where it is; ``fields`` or ``velocity``, or "" where it does not say.
    present : dict
        Size of each object by key.
    listed : dict or None
        The manifest's objects; None without one.
    documents : dict
        Metadata documents and coordinate chunks, by key.
    attrs : dict
        Root attributes; empty where the root is damaged.
    layout : Layout or None
        What the store should be; None where its attributes make no sense.
    complete : bool
        Whether ``layout`` names all of the store's arrays.
    scene : Scene or None
        What the boxes of a field store must obey.
    """

    url: str
    kind: str = ""
    present: dict[str, int]
    listed: dict[str, Any] | None
    documents: dict[str, bytes] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    layout: shards.Layout | None = None
    complete: bool = False
    scene: Scene | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def totals(self) -> dict[str, Any]:
        """What was read and painted."""
        return dict(json.loads(self.attrs["totals"])) if self.scene else {}

    @property
    def inputs(self) -> dict[str, Any]:
        """What a field store, or a velocity store without one that stayed, was painted from."""
        if "catalogue" in self.attrs:
            return {"halos": {**json.loads(self.attrs["catalogue"]), "url": str(self.attrs.get("input"))}}
        return dict(json.loads(self.attrs["inputs"])) if self.scene else {}


def read_store(url: str, *, inputs: bool) -> Opened:
    """A store's listing, its documents held against the manifest, and what its root attributes imply, made anew."""
    opened = _listing(url)
    _read_documents(opened)
    _rebuild(opened, inputs=inputs)
    return opened


def _listing(url: str) -> Opened:
    if not storage.lists(url):
        return _as_listed(url)
    present = storage.sizes(url)
    findings = []
    left = [key for key in present if key.startswith(f"{store.WORK}/")]
    if left:
        where = f"folder={store.WORK}"
        findings.append(note("work files are left", where, f"{len(left)} files", "none; the verb that made it clears"))
    listed = None
    try:
        listed = manifest.read(url)
    except StoreError as error:
        what = "no manifest" if manifest.KEY not in present else "the manifest is damaged"
        findings.append(fault(what, f"object={manifest.KEY}", str(error), "size and hash of every object"))
    kept = {key: size for key, size in present.items() if key not in left and key != manifest.KEY}
    return Opened(url=url, present=kept, listed=listed, findings=findings)


def _as_listed(url: str) -> Opened:
    """Of a place that cannot be listed: those of the manifest's objects that are there."""
    listed = manifest.read(url)
    present = storage.sizes_of(url, list(listed))
    unseen = note("this place cannot be listed", f"url={url}", f"{len(present)} objects of the manifest", "all objects")
    return Opened(url=url, present=present, listed=listed, findings=[unseen])


def _read_documents(opened: Opened) -> None:
    """Read metadata and coordinates, and hold them against the manifest."""
    for key, size in opened.present.items():
        name, _, rest = key.partition("/")
        small = key == shards.ROOT or rest == shards.ROOT or (rest.startswith("c") and name not in VARIABLES)
        if not small or size > LARGE:
            continue
        opened.documents[key] = data = storage.read_bytes(storage.join(opened.url, *key.split("/")))
        if opened.listed is not None:
            opened.findings += against_manifest(key, data, opened.listed.get(key))
    try:
        opened.attrs = dict(json.loads(opened.documents[shards.ROOT])["attributes"])
        opened.kind = str(opened.attrs["velfield_kind"])
        if (opened.kind, opened.attrs["velfield_schema"]) not in (("fields", SCHEMA), ("velocity", SCHEMA)):
            raise ValueError(f"kind={opened.kind}, schema={opened.attrs['velfield_schema']}")
    except SENSELESS as error:
        opened.attrs = {}
        if shards.ROOT in opened.documents:
            found, expected = said(error), "the root document of a field or velocity store"
            opened.findings.append(fault("the root cannot be understood", f"object={shards.ROOT}", found, expected))


def _rebuild(opened: Opened, *, inputs: bool) -> None:
    """Make anew what the root attributes imply."""
    if not opened.attrs:
        return
    apart = 0
    with contextlib.suppress(Exception):  # damaged, which is said elsewhere
        apart = list(coordinate(opened, "split")).count("validation")
    try:
        if not 0 < opened.attrs["boxes"] <= MOST_BOXES:
            raise ValueError(f"boxes={opened.attrs['boxes']}")
        if opened.kind == "fields":
            spec = store_layout.spec_of_attributes(opened.attrs, apart)
            opened.layout, opened.complete = store_layout.field_layout(spec), True
            opened.scene = Scene(
                boxes=spec.boxes,
                periodic=bool(spec.periodic),
                assignment=spec.assignment,
                min_mass=float(spec.min_mass),
                shared=store_layout.sightlines_of_attributes(opened.attrs, spec.boxes).shared,
                rows={kind: float(total["kept"]) for kind, total in spec.totals.items()},
            )
        else:
            source = _input_store(opened) if inputs and "catalogue" not in opened.attrs else None
            opened.layout = store_layout.bare_velocity_layout(opened.attrs)
            if source is not None:
                opened.layout, opened.complete = source, True
    except SENSELESS as error:
        where = f"object={shards.ROOT}"
        opened.findings.append(fault("the attributes make no sense", where, said(error), "those of a store"))


def _input_store(opened: Opened) -> shards.Layout | None:
    """The layout that follows from the field store that a velocity store was made from, if it can be reached."""
    url = str(opened.attrs["input"])
    try:
        fields = store.open_fields(url, chunks=None)
    except Exception as error:  # of any file system, for any reason
        where = f"store=input, url={url}"
        opened.findings.append(note("an input cannot be reached", where, said(error), "the field store it came from"))
        return None
    model, fingerprint = json.loads(opened.attrs["model"]), opened.attrs["fingerprint"]
    prediction = json.loads(opened.attrs["prediction"]) if "prediction" in opened.attrs else None
    return store_layout.velocity_layout(
        fields,
        model=model,
        source=url,
        fingerprint=fingerprint,
        prediction=prediction,
        looked=store_layout.looked_of(opened.attrs),
    )


def boxes_per_shard(opened: Opened, name: str) -> int:
    """Boxes in a shard, as the store has it."""
    try:
        document = json.loads(opened.documents[f"{name}/{shards.ROOT}"])
        return max(1, int(document["chunk_grid"]["configuration"]["chunk_shape"][0]))
    except SENSELESS:
        return opened.layout.boxes_per_shard if opened.layout else 1


def coordinate(opened: Opened, name: str) -> NDArray[Any]:
    """A coordinate's values; raises what a codec makes of damaged bytes."""
    of_it = {key.partition("/")[2]: data for key, data in opened.documents.items() if key.startswith(f"{name}/")}
    return np.asarray(zarr.open_array(shards.in_memory(of_it), mode="r", zarr_format=3)[...])
