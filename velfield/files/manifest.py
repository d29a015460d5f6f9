"""The manifest of a finished store: size and SHA-256 of every object, metadata and data alike, but of itself.

It is a Zarr group without members, whose attributes list the objects: readers that list a store would warn of a file
that Zarr does not know. It is written before the root document, from what the writers of the shards have counted and
hashed on their way out: nothing is read back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from velfield.errors import SENSELESS, StoreError
from velfield.files import storage

SCHEMA = 1
KEY = "manifest/zarr.json"

Objects = Mapping[str, Mapping[str, Any]]  # by key: {"bytes": …, "sha256": …}


def entry(data: Any) -> dict[str, Any]:
    """Size and SHA-256 of an object's bytes."""
    return {"bytes": memoryview(data).nbytes, "sha256": hashlib.sha256(data).hexdigest()}


def document(objects: Objects) -> bytes:
    """The manifest as it is stored. It ends with its own checksum, so that damage to it is told from the store's."""
    listed = {key: {"bytes": objects[key]["bytes"], "sha256": objects[key]["sha256"]} for key in sorted(objects)}
    attributes = {
        "velfield_kind": "manifest",
        "velfield_schema": SCHEMA,
        "objects": listed,
        "sha256": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
    }
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1).encode()


def write(url: str, objects: Objects) -> None:
    """Write the manifest of the store at ``url``."""
    storage.write_bytes(storage.join(url, *KEY.split("/")), document(objects))


def read(url: str) -> dict[str, dict[str, Any]]:
    """Read the manifest of the store at ``url``; one that is absent, damaged or of another schema is refused."""
    where = storage.join(url, *KEY.split("/"))
    if not storage.exists(where):
        raise StoreError(f"no manifest: file={where}; the store was made without one, or it was removed")
    data = storage.read_bytes(where)
    try:
        attributes = json.loads(data)["attributes"]
        schema, objects = attributes["velfield_schema"], dict(attributes["objects"])
        whole = document(objects) == data
    except SENSELESS as error:
        raise StoreError(f"the manifest cannot be read: file={where}, reason={error}; fetch the store again") from error
    if schema != SCHEMA:
        raise StoreError(f"a manifest of another schema: file={where}, schema={schema}, expected={SCHEMA}")
    if not whole:
        raise StoreError(f"the manifest is damaged, its checksum does not match: file={where}; fetch the store again")
    return objects
