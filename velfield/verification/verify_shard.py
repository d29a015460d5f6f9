"""Whether the shards of a store are what its manifest says, and whether the boxes in them make sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from velfield.errors import StorageError
from velfield.files import manifest, shards, storage
from velfield.verification.findings import Finding, fault
from velfield.verification.verify_boxes import Scene, check_box, check_predicted
from velfield.verification.verify_whole import Summary, summarise

Entry = Mapping[str, Any] | None  # of the manifest


@dataclass(frozen=True, kw_only=True)
class Part:
    """One shard of every variable: the boxes it holds, and its objects with what the manifest says of them."""

    shard: int
    boxes: range
    objects: Mapping[str, Entry]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `check_part` finds; ``unread`` are boxes that could not be looked at."""

    findings: Sequence[Finding]
    summaries: Mapping[int, Summary]
    unread: Sequence[int]
    nbytes: int


def check_part(
    part: Part, url: str, documents: Mapping[str, bytes], scene: Scene | None, variables: Mapping[str, tuple[int, ...]]
) -> Checked:
    """Read a shard of every variable once: hash it, decode it, and look at each of its boxes.

    Parameters
    ----------
    documents : mapping
        The metadata document of each variable, by name.
    variables : mapping
        The variables that the store should have, with their shapes in a box.
    """
    found: list[Finding] = []
    data: dict[str, bytes] = {}
    for key, entry in part.objects.items():
        try:
            data[key] = storage.read_bytes(storage.join(url, *key.split("/")))
        except (OSError, StorageError) as error:
            found.append(fault("an object cannot be read", f"object={key}", str(error), "its bytes"))
            continue
        found += against_manifest(key, data[key], entry)
    summaries: dict[int, Summary] = {}
    unread = []
    decoded = {name: _array(name, documents, data) for name in variables}
    for box in part.boxes:
        arrays: dict[str, NDArray[Any]] = {}
        for name, array in decoded.items():
            try:
                values = np.asarray(array[box])
            except Exception as error:  # whatever a codec makes of damaged bytes
                if array is not None:
                    where = f"variable={name}, box={box}"
                    found.append(fault("a chunk cannot be decoded", where, said(error), "a whole chunk"))
                continue
            if values.shape == variables[name]:
                arrays[name] = values
            else:
                where, shape = f"variable={name}, box={box}", f"shape {variables[name]}"
                found.append(fault("a chunk has another shape", where, f"shape {values.shape}", shape))
        if arrays.keys() != variables.keys():
            unread.append(box)
        elif scene is None:
            found += check_predicted(box, arrays)
        else:
            found += check_box(scene, box, arrays)
            summaries[box] = summarise(scene, box, arrays)
    return Checked(findings=found, summaries=summaries, unread=unread, nbytes=sum(map(len, data.values())))


def against_manifest(key: str, data: bytes, entry: Entry) -> Iterator[Finding]:
    """Hold an object against its size and hash."""
    if entry is None:
        return  # unknown to the manifest, which is said already
    if len(data) != entry["bytes"]:
        yield fault("an object has another size", f"object={key}", f"{len(data)} bytes", f"{entry['bytes']} bytes")
    elif (digest := manifest.entry(data)["sha256"]) != entry["sha256"]:
        what = "an object has other bytes"
        yield fault(what, f"object={key}", f"sha256 {digest[:16]}…", f"sha256 {entry['sha256'][:16]}…")


def _array(name: str, documents: Mapping[str, bytes], data: Mapping[str, bytes]) -> Any:
    """The array of one variable that holds one shard; None where that is missing or its document is damaged."""
    of_it = {key.removeprefix(f"{name}/"): value for key, value in data.items() if key.startswith(f"{name}/")}
    if not of_it or name not in documents:
        return None
    try:
        return zarr.open_array(shards.in_memory({**of_it, shards.ROOT: documents[name]}), mode="r", zarr_format=3)
    except Exception:  # a damaged document, which is said already
        return None


def said(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
