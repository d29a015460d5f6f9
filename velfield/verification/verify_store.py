"""Whether a field or velocity store is what was written, and what should have been written.

Two layers. The manifest names every object with its size and hash: damage since the store was made shows there. And the
store's root attributes imply nearly all else: layout, coordinates, units, means and sums are made anew from them and
compared, which also shows a store that was written wrong. Here metadata and coordinates are compared, shards in
`velfield.verification.verify_shard`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.catalogue import open_catalogue
from velfield.catalogues.universe import UNWRITTEN
from velfield.errors import SENSELESS
from velfield.files import shards
from velfield.stores.store_layout import VARIABLES, attributes_of_today
from velfield.verification.findings import Finding, fault, note
from velfield.verification.verify_opened import Opened, boxes_per_shard, coordinate, read_store
from velfield.verification.verify_shard import Entry, Part, said

COMPARED = ("node_type", "shape", "data_type", "fill_value", "dimension_names", "attributes")  # of an array's document


def open_store(url: str, *, inputs: bool = True) -> Opened:
    """Read and check all of a store but its data.

    Parameters
    ----------
    inputs : bool
        Whether the catalogues, field store or model that it was made from are looked at, where they can be reached.
    """
    opened = read_store(url, inputs=inputs)
    _compare_objects(opened)
    if opened.layout is not None:
        _compare_documents(opened, opened.layout)
        _compare_coordinates(opened, opened.layout)
    if inputs:
        opened.findings += list(_provenance(opened))
    return opened


def parts_of(opened: Opened) -> list[Part]:
    """Every shard, with the objects that lie there."""
    listed = opened.listed or {}
    by_shard: dict[int, dict[str, Entry]] = {}
    for key in opened.present:
        name, _, chunk = key.partition("/c/")
        first = chunk.partition("/")[0]
        if name in VARIABLES and first.isdecimal():
            by_shard.setdefault(int(first), {})[key] = listed.get(key)
    per = {boxes_per_shard(opened, name) for name in (opened.layout.variables if opened.layout else ())}
    nbox = opened.layout.nbox if opened.layout and len(per) == 1 else 0
    step = per.pop() if nbox else 1
    return [
        Part(shard=s, boxes=range(min(s * step, nbox), min((s + 1) * step, nbox)), objects=objects)
        for s, objects in sorted(by_shard.items())
    ]


def _compare_objects(opened: Opened) -> None:
    """Objects that are missing, unknown or of another size."""
    missing: set[str] = set()
    unknown: set[str] = set()
    if opened.listed is not None:
        missing |= opened.listed.keys() - opened.present.keys()
        unknown |= opened.present.keys() - opened.listed.keys()
    if opened.layout is not None:
        expected = set(shards.metadata(opened.layout)) | set(_data_keys(opened, opened.layout))
        missing |= expected - opened.present.keys()
        if opened.complete:
            unknown |= opened.present.keys() - expected
    for key in sorted(missing):
        opened.findings.append(fault("an object is missing", f"object={key}", "nothing", _size(opened.listed, key)))
    for key in sorted(unknown):
        size = f"{opened.present[key]} bytes"
        opened.findings.append(fault("an unknown object", f"object={key}", size, "nothing"))


def _compare_documents(opened: Opened, layout: shards.Layout) -> None:
    """Metadata as they are against metadata made anew; the root's summary against the arrays' own."""
    for key, data in shards.metadata(layout).items():
        if not key.endswith(shards.ROOT) or key not in opened.documents:
            continue
        try:
            document, expected = json.loads(opened.documents[key]), json.loads(data)
            if key == shards.ROOT:
                opened.findings += _compare_root(opened, document, expected)
            else:
                if not opened.complete:  # which coordinates there are is not known
                    document["attributes"].pop("coordinates", None), expected["attributes"].pop("coordinates", None)
                # an older store says the same in other words
                document["attributes"] = attributes_of_today(key.partition("/")[0], document["attributes"])
                for name in COMPARED:
                    opened.findings += _differences(key, name, document.get(name), expected.get(name))
        except SENSELESS as error:
            opened.findings.append(fault("metadata make no sense", f"object={key}", said(error), "a Zarr document"))


def _compare_root(opened: Opened, document: Any, expected: Any) -> Iterator[Finding]:
    for name in ("velfield_version",):  # of the program that made it: any
        document["attributes"].pop(name, None), expected["attributes"].pop(name, None)
    yield from _differences(shards.ROOT, "attributes", document["attributes"], expected["attributes"])
    summary = document["consolidated_metadata"]["metadata"]
    own = {
        key.partition("/")[0]: json.loads(data)
        for key, data in opened.documents.items()
        if key.endswith(f"/{shards.ROOT}")
    }
    for name in sorted(own.keys() | summary.keys()):
        fields = own.get(name, {}).keys() | summary.get(name, {}).keys()
        for part in sorted(fields - {"consolidated_metadata"}):
            where = f"consolidated_metadata.{name}.{part}"
            yield from _differences(shards.ROOT, where, summary.get(name, {}).get(part), own.get(name, {}).get(part))


def _compare_coordinates(opened: Opened, layout: shards.Layout) -> None:
    for name, coord in layout.coords.items():
        if not any(key.startswith(f"{name}/c") for key in opened.documents):
            continue  # missing, which is said already
        try:
            values = coordinate(opened, name)
        except Exception as error:  # whatever a codec makes of damaged bytes
            found, expected = said(error), "a whole chunk"
            opened.findings.append(fault("a coordinate cannot be decoded", f"variable={name}", found, expected))
            continue
        opened.findings += _coordinate_differences(name, values, coord.values)


def _coordinate_differences(name: str, values: NDArray[Any], expected: NDArray[Any]) -> Iterator[Finding]:
    if values.shape != expected.shape:
        yield fault("a coordinate is off", f"variable={name}", f"shape {values.shape}", f"shape {expected.shape}")
        return
    if expected.dtype.kind == "f":
        # values are made by the same few operations: last digits only
        same = np.isclose(values.astype(np.float64), expected, rtol=1e-12, atol=1e-9)
    else:
        same = values.astype(object) == expected.astype(object)
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        where = f"variable={name}, values={int((~same).sum())} of {same.size}, first={list(at)}"
        yield fault("a coordinate is off", where, f"{values[at]}", f"{expected[at]}")


def _provenance(opened: Opened) -> Iterator[Finding]:
    """Whether the catalogues that a store names are those that it, or what it was predicted from, was painted from."""
    try:
        inputs = opened.inputs
    except SENSELESS as error:
        where = f"object={shards.ROOT}, attribute=catalogue"
        yield fault("the attributes make no sense", where, said(error), "what a catalogue was")
        return
    for kind, known in inputs.items():
        where = f"catalogue={kind}, url={known['url']}"
        if known["url"].startswith(UNWRITTEN):
            yield note("an input was never written", where, "a universe in memory", "a catalogue to compare with")
            continue
        try:
            reading = {"boxsize": opened.attrs["boxsize"], "kind": kind} | known.get("read_as", {})
            cat = open_catalogue(known["url"], opened.attrs["redshift"], **reading)
            found = {"fingerprint": cat.fingerprint, "rows": len(cat), "bytes": cat.nbytes}
        except Exception as error:  # of any file system, for any reason
            yield note("an input cannot be reached", where, said(error), "the catalogue that was painted")
            continue
        for name, value in found.items():
            if value != known.get(name):
                yield fault("an input is not what was painted", f"{where}, {name}", f"{value}", f"{known.get(name)}")


def _differences(key: str, path: str, found: Any, expected: Any) -> Iterator[Finding]:
    """Where two documents differ, value by value."""
    if isinstance(found, str) and isinstance(expected, str) and expected.startswith("{"):
        with contextlib.suppress(ValueError):
            found, expected = json.loads(found), json.loads(expected)  # an attribute that is a document itself
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys()):
            yield from _differences(key, f"{path}.{name}", found.get(name), expected.get(name))
        return
    numbers = isinstance(found, float | int) and isinstance(expected, float) and not isinstance(found, bool)
    same = abs(found - expected) <= 1e-12 * abs(expected) if numbers else (found == expected)
    if not same:
        yield fault("metadata differ", f"object={key}, {path}", _short(found), _short(expected))


def _data_keys(opened: Opened, layout: shards.Layout) -> Iterator[str]:
    for name, variable in layout.variables.items():
        for shard in range(-(-layout.nbox // boxes_per_shard(opened, name))):
            yield "/".join([name, "c", str(shard), *["0"] * len(variable.shape)])


def _size(listed: Mapping[str, Any] | None, key: str) -> str:
    return f"{listed[key]['bytes']} bytes" if listed and key in listed else "an object"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
