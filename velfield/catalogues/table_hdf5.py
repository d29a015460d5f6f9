"""HDF5 as a table: OpenCosmo's layout, columns that lie in one group, or one dataset of records.

OpenCosmo (ArgonneCPAC/OpenCosmo, SPEC.md): a group ``data`` holds a dataset for each column with the attributes
``unit`` and ``description``; ``header/file`` says redshift, kind and the convention of the units, ``header/simulation``
the box and h. In its *scalefree* convention, which is the default, lengths are comoving h⁻¹Mpc and velocities comoving;
*comoving* differs by h; *physical* lengths and velocities are proper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, check_names, chosen_blocks
from velfield.catalogues.table_format import (
    BLOCK_ROWS,
    NOT_STATED,
    Column,
    Facts,
    TableReader,
    reading,
    row_blocks,
)
from velfield.catalogues.universe import STATED
from velfield.errors import CatalogueError
from velfield.files import storage

MAGIC = b"\x89HDF\r\n\x1a\n"
KINDS = {"halo_properties": "halos", "halo_particles": "particles"}
FRAMES = {"scalefree": "comoving", "comoving": "comoving", "physical": "proper"}
PAGE = 2**18  # bytes that a remote file is read by: what little lies between columns and their tables


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a table lies in a file: its group or its dataset of records, and whether it is OpenCosmo's."""

    name: str
    path: str
    records: bool
    opencosmo: bool


class HDF5Table(TableReader):
    """A table in an HDF5 file; see `velfield.catalogues.table_format.Table`."""

    format = "HDF5"

    def __init__(self, url: str, size: int, place: Place, root: Any) -> None:
        self.url, self.files, self.sizes, self.place = url, (url,), (size,), place
        node = root[place.path]
        if place.records:
            nrows = int(node.shape[0])
            fields = {name: node.dtype[name] for name in node.dtype.names}
            self.columns: Mapping[str, Column] = {name: _column(dtype, {}) for name, dtype in fields.items()}
            self._stored = {name: node.id.get_storage_size() / max(nrows, 1) for name in self.columns}
        else:
            found = {name: node[name] for name in node if _is_column(node[name])}
            lengths = {len(dataset) for dataset in found.values()}
            if len(lengths) != 1:
                raise CatalogueError(
                    f"columns of different lengths: file={url}, group={place.path}, rows={sorted(lengths)}; "
                    "keep the columns of a table in a group of their own"
                )
            nrows = lengths.pop()
            # a column without a unit may be taken to be in h⁻¹Mpc only where the file does not say that h is left out
            unit = "" if not place.opencosmo or _convention(url, _header(root, place)) == "scalefree" else NOT_STATED
            self.columns = {
                name: _column(np.dtype((d.dtype, d.shape[1:])) if d.ndim > 1 else d.dtype, d.attrs, unit=unit)
                for name, d in found.items()
            }
            self._stored = {name: d.id.get_storage_size() / max(nrows, 1) for name, d in found.items()}
        self.facts = _opencosmo_facts(url, root, place) if place.opencosmo else _plain_facts(root, node)
        self.blocks = row_blocks(url, nrows, size=BLOCK_ROWS)
        self._edges = [0, *np.cumsum([block.nrows for block in self.blocks]).tolist()]

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes that reading them fetches, about: a chunk that two blocks share is read for both."""
        check_names(self.url, self.columns, columns)
        nrows = sum(b.nrows for b in chosen_blocks(self.url, self.blocks, blocks))
        width = (
            max(self._stored.values(), default=0.0)
            if self.place.records
            else sum(self._stored[name] for name in columns)
        )
        return round(nrows * width)

    def _beyond(self, columns: Sequence[str]) -> int:
        return 2 * 2**20 * (1 + len(columns))  # the open file, and HDF5's cache of chunks, for each column 1 MiB

    def _rows(self, columns: Sequence[str], block: Block, start: int, stop: int) -> dict[str, NDArray[Any]]:
        unread = [name for name in columns if self.columns[name].dtype.base.kind not in "fiu"]
        if unread:
            raise CatalogueError(
                f"not a column of numbers: file={self.url}, column={unread[0]}; only numbers can be read, leave it out"
            )
        first = self._edges[block.index]
        rows = slice(first + start, first + stop)
        with opened(self.url) as root:
            node = root[self.place.path]
            if self.place.records:
                table = node.fields(list(columns))[rows]
                found = {name: table[name] for name in columns}
            else:
                found = {name: node[name][rows] for name in columns}
        return {name: np.ascontiguousarray(v, dtype=v.dtype.newbyteorder("=")) for name, v in found.items()}


def open_table(url: str, table: str | None = None, kind: str | None = None) -> HDF5Table:
    """Open a table: the one that there is, the one of this name, or OpenCosmo's of this kind."""
    fs, path = storage.filesystem(url)
    with opened(url) as root:
        places = list(_places(root))
        chosen = [p for p in places if table is None or table.strip("/") == p.name.strip("/")]
        if table is None and len(chosen) > 1 and kind:
            chosen = [p for p in chosen if p.opencosmo and KINDS.get(p.name) == kind]
        if len(chosen) != 1:
            raise CatalogueError(
                f"which table is not clear: file={url}, table={table}, tables={', '.join(p.name for p in places)}; "
                "name one (table=, --halo-table, --extension)"
            )
        return HDF5Table(url, int(fs.size(path)), chosen[0], root)


def elsewhere(url: str) -> Iterator[str]:
    """Names in a file of what lies in none or another: links but hard ones, external and virtual datasets."""
    import h5py

    with opened(url) as root:
        nodes = [root]
        root.visititems(lambda _, node: nodes.append(node))
        for node in nodes:
            if hasattr(node, "keys"):
                links = {name: node.get(name, getlink=True) for name in node}
                yield from (name for name, link in links.items() if not isinstance(link, h5py.HardLink))
            elif node.external or node.is_virtual:
                yield node.name


@contextlib.contextmanager
def opened(url: str) -> Iterator[Any]:
    """The top of an HDF5 file."""
    import h5py

    fs, path = storage.filesystem(url)
    with reading(url, "HDF5"):
        if storage.is_local(url):
            with h5py.File(path, "r") as root:
                yield root
        else:
            with fs.open(path, "rb", block_size=PAGE, cache_type="blockcache") as file, h5py.File(file, "r") as root:
                yield root


def _places(root: Any) -> Iterator[Place]:
    """All tables in a file. OpenCosmo's layout is known by its header, then only its groups are tables."""
    if "header" in root and "file" in root["header"]:
        for name, node in [("data", root), *root.items()]:
            if hasattr(node, "keys") and "data" in node and name not in ("header",):
                yield Place(name=name, path=f"{node.name.rstrip('/')}/data", records=False, opencosmo=True)
        return
    nodes = [root]
    root.visititems(lambda _, node: nodes.append(node))  # append returns None, so the visit goes on
    for node in nodes:
        if hasattr(node, "keys"):
            columns = [node[name] for name in node]
            if sum(_is_column(column) for column in columns) >= 3:
                yield Place(name=node.name.strip("/") or "/", path=node.name, records=False, opencosmo=False)
        elif node.dtype.names and len(node.dtype.names) >= 3 and node.ndim == 1:
            yield Place(name=node.name.strip("/"), path=node.name, records=True, opencosmo=False)


def _is_column(node: Any) -> bool:
    return not hasattr(node, "keys") and node.ndim >= 1 and node.dtype.names is None


def _column(dtype: np.dtype[Any], attrs: Mapping[str, Any], unit: str = "") -> Column:
    base = dtype.base.newbyteorder("=")
    unit = _text(attrs.get("unit", attrs.get("units", ""))) or unit
    return Column(
        dtype=np.dtype((base, dtype.shape)) if dtype.shape else base,
        unit="" if unit == "None" else unit,
        description=_text(attrs.get("description", "")),
    )


def _header(root: Any, place: Place) -> Any:
    """OpenCosmo's header; that of the table's own group, where it has one."""
    own = root[place.path].parent
    return own["header"] if "header" in own else root["header"]


def _convention(url: str, header: Any) -> str:
    convention = _text(header["file"].attrs.get("unit_convention", "scalefree"))
    if convention not in FRAMES:
        raise CatalogueError(
            f"unknown convention of units: file={url}, unit_convention={convention}; known are {', '.join(FRAMES)}"
        )
    return convention


def _opencosmo_facts(url: str, root: Any, place: Place) -> Facts:
    """What OpenCosmo's header says."""
    header = _header(root, place)
    file = header["file"].attrs
    frame = FRAMES[_convention(url, header)]
    parameters = header["simulation/parameters"].attrs if "simulation/parameters" in header else {}
    cosmology = header["simulation/cosmology"].attrs if "simulation/cosmology" in header else {}
    return Facts(
        kind=KINDS.get(place.name) or KINDS.get(_text(file.get("data_type", ""))),
        boxsize=_number(parameters.get("box_size")),
        redshift=_number(file.get("redshift")),
        h=_number(cosmology.get("h")),
        cosmology=_cosmology(cosmology),
        velocity=frame,
        length=frame,
        lightcone=bool(file.get("is_lightcone", False)),
    )


def _cosmology(attrs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a cosmology that a header states, under our names."""
    found = {ours: next((_number(attrs[n]) for n in (ours, *others) if n in attrs), None)
             for ours, others in STATED.items()}  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _plain_facts(root: Any, node: Any) -> Facts:
    """A redshift among the attributes of the table, its group or the file."""
    found = (_number(n.attrs.get("redshift")) for n in (node, node.parent, root))
    return Facts(redshift=next((z for z in found if z is not None), None))


def _number(value: Any) -> float | None:
    return None if value is None or _text(value) == "" else float(np.asarray(value).reshape(-1)[0])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
