"""Zarr v3 groups written by many tasks at once: whole shards only, root metadata last.

Writing a part of a shard means reading the rest and writing it back; two tasks that do so lose each other's data
without an error. So `write_boxes` takes whole shards and refuses anything else. A group opens only once its root
``zarr.json`` is there, and `publish` writes that last: a store that opens is complete. Beside it lies a manifest with
the size and the hash of every object (`velfield.files.manifest`).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from velfield.errors import StoreError
from velfield.files import manifest, storage

SHARD_BYTES = 32 * 2**20  # of the widest variable: large enough for object storage, small enough for any worker
LEAST_SHARDS = 8  # so that a small store, too, is written by several workers
CHUNK_BYTES = 64 * 2**20  # a box of more is cut into several chunks, so that a part of it can be read
CHUNK_CELLS = (16, 128)  # along a side of such a chunk, from and to
ROOT = "zarr.json"


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A data variable: one chunk is one box, unless that is a large one (`chunk`).

    ``shape`` and ``dims`` are those of a box, without the box axis.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk: the box's, or for one above `CHUNK_BYTES` cubes of cells that divide it, where any do."""
        n = self.shape[-1]
        if int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize <= CHUNK_BYTES:
            return self.shape
        least, most = CHUNK_CELLS
        side = next((c for c in range(most, least - 1, -1) if n % c == 0), n)
        return (*self.shape[:-3], side, side, side)


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """A coordinate: small, written when the store is made."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All of a store but its data: what `create` and `publish` write."""

    nbox: int
    variables: Mapping[str, Variable]
    coords: Mapping[str, Coordinate]
    attrs: Mapping[str, Any]

    @property
    def boxes_per_shard(self) -> int:
        """Boxes in a shard, the same for every variable; it depends on the layout alone, never on the workers."""
        widest = max(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in self.variables.values())
        return max(1, min(SHARD_BYTES // widest, -(-self.nbox // LEAST_SHARDS)))

    @property
    def nshard(self) -> int:
        """Number of shards of each variable."""
        return -(-self.nbox // self.boxes_per_shard)

    def boxes_of(self, shard: int) -> range:
        """The boxes that a shard holds."""
        first = shard * self.boxes_per_shard
        return range(first, min(first + self.boxes_per_shard, self.nbox))


def create(url: str, layout: Layout) -> None:
    """Write the metadata of the arrays and the coordinates, not the root: the store does not open yet."""
    for key, data in metadata(layout).items():
        if key != ROOT:
            storage.write_bytes(storage.join(url, *key.split("/")), data)


def publish(url: str, layout: Layout, written: manifest.Objects) -> None:
    """Remove what killed writers left, write the manifest, then the root metadata: from here on the store opens.

    Parameters
    ----------
    written : mapping
        What the calls of `write_boxes` returned, together.

    Raises
    ------
    StoreError
        Where this process does not find what was written: the store would open and hold nothing.
    """
    _check_here(url, written)
    storage.remove_torn(url)
    documents = metadata(layout)
    manifest.write(url, {**written, **{key: manifest.entry(data) for key, data in documents.items()}})
    storage.write_bytes(storage.join(url, ROOT), documents[ROOT])


def _check_here(url: str, written: manifest.Objects) -> None:
    """Refuse objects that others wrote to another place of the same name, as a path that is not on a shared disk."""
    if not storage.lists(url):
        return
    here = storage.sizes(url)
    lost = [key for key, entry in written.items() if here.get(key) != int(entry["bytes"])]
    if lost:
        raise StoreError(
            f"what the workers wrote is not here: out={url}, objects={len(lost)} of {len(written)}, such as {lost[0]}; "
            "name a place that this machine and all workers share: an absolute path on a shared disk, or s3://…"
        )


def published(url: str) -> bool:
    """Whether the store at ``url`` has its root metadata."""
    return storage.exists(storage.join(url, ROOT))


def write_boxes(
    url: str,
    layout: Layout,
    boxes: Sequence[int],
    arrays: Mapping[str, NDArray[Any]],
    names: Collection[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write consecutive boxes that make up whole shards.

    Parameters
    ----------
    boxes : sequence of int
        Consecutive box numbers, from a shard's first to a shard's last.
    arrays : mapping of str to ndarray
        For every variable of the layout its values, boxes along the first axis.
    names : collection of str, optional
        The variables that are written, or written again; by default all of the layout.

    Returns
    -------
    dict
        By key, size and hash of the objects that were written: `publish` wants them.
    """
    first, end = boxes[0], boxes[-1] + 1
    per = layout.boxes_per_shard
    if list(boxes) != list(range(first, end)) or first % per or (end % per and end != layout.nbox):
        raise StoreError(
            f"a write that does not cover whole shards: boxes={first}..{end - 1}, boxes per shard={per}; "
            "write from a shard's first box to a shard's last"
        )
    expected = set(layout.variables if names is None else names)
    if set(arrays) != expected:
        raise StoreError(f"variables do not match the layout: got {sorted(arrays)}, expected {sorted(expected)}")
    written: dict[str, dict[str, Any]] = {}
    for name, values in arrays.items():
        variable = layout.variables[name]
        if values.shape != (end - first, *variable.shape) or values.dtype != np.dtype(variable.dtype):
            raise StoreError(
                f"wrong shape or type: variable={name}, got {values.shape} {values.dtype}, "
                f"expected {(end - first, *variable.shape)} {variable.dtype}"
            )
        noted = _Noted(zarr_store(storage.join(url, name)), document=_document(layout, name))
        array = zarr.open_array(noted, mode="r+", zarr_format=3)
        array[first:end] = values
        written |= {f"{name}/{key}": entry for key, entry in noted.written.items()}
    return written


def zarr_store(url: str) -> Any:
    """Return the Zarr store behind a URL."""
    fs, path = storage.filesystem(url)
    if storage.is_local(url):
        return zarr.storage.LocalStore(path)
    if storage.is_object_store(url):
        return zarr.storage.FsspecStore(storage.object_store(url, asynchronous=True), path=path)
    return zarr.storage.FsspecStore.from_url(url, storage_options=dict(fs.storage_options))


def in_memory(objects: Mapping[str, bytes]) -> Any:
    """A read-only Zarr store of these objects, by key."""
    make = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes
    return zarr.storage.MemoryStore({key: make(data) for key, data in objects.items()}, read_only=True)


class _Noted(zarr.storage.WrapperStore[Any]):
    """A Zarr store of one array that notes size and hash of every object on its way out, and lets nothing in.

    Zarr reads a shard before it writes it, even one that it writes whole: what a killed writer left is none of ours.
    """

    def __init__(self, store: Any, document: bytes) -> None:
        super().__init__(store)
        self._document = document
        self.written: dict[str, dict[str, Any]] = {}

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:  # noqa: ARG002
        """Return the array's metadata, which need not be fetched; of data there are none."""
        return prototype.buffer.from_bytes(self._document) if key == ROOT else None

    async def set(self, key: str, value: Any) -> None:
        """Write an object and note it."""
        await super().set(key, value)
        self.written[key] = manifest.entry(value.as_numpy_array())


def metadata(layout: Layout) -> dict[str, bytes]:
    """Every metadata document and coordinate chunk of the store, by key."""
    memory = zarr.storage.MemoryStore()
    root = zarr.create_group(memory, attributes=dict(layout.attrs))
    for name in layout.variables:
        _create_variable(root, layout, name)
    for name, coord in layout.coords.items():
        values = coord.values
        array = root.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=str if values.dtype.kind in "UOT" else values.dtype,
            dimension_names=coord.dims,
            attributes=dict(coord.attrs),
        )
        array[...] = values.astype(object) if values.dtype.kind in "UT" else values
    with warnings.catch_warnings():
        # one document describes the whole group: a reader needs one request; readers without the extension ignore it
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part", category=UserWarning)
        zarr.consolidate_metadata(memory)
    return {key: buffer.to_bytes() for key, buffer in memory._store_dict.items()}


def _create_variable(root: zarr.Group, layout: Layout, name: str) -> None:
    variable = layout.variables[name]
    on_box = " ".join(sorted(coord for coord in layout.coords if coord not in layout.coords[coord].dims))
    root.create_array(
        name,
        shape=(layout.nbox, *variable.shape),
        chunks=(1, *variable.chunk),
        shards=(layout.boxes_per_shard, *variable.shape),
        dtype=variable.dtype,
        fill_value=np.nan if np.dtype(variable.dtype).kind == "f" else 255,  # a lost chunk shows
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
        dimension_names=("box", *variable.dims),
        attributes={**variable.attrs, "coordinates": on_box},
    )


def _document(layout: Layout, name: str) -> bytes:
    """The metadata document of one variable."""
    memory = zarr.storage.MemoryStore()
    _create_variable(zarr.create_group(memory), layout, name)
    return bytes(memory._store_dict[f"{name}/{ROOT}"].to_bytes())
