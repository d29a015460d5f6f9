"""Catalogues of halos or particles: what a table's columns mean, in which units, at which redshift.

Velocities in HACC files are comoving; `Catalogue.tracers` is the one place that multiplies them by a. The redshift is
not in the files: it is given, or comes from the step in a name as the Outer Rim release has it. docs/catalogues.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from velfield.arguments import number
from velfield.catalogues import table_csv, table_fits, table_genericio, table_hdf5, table_parquet
from velfield.catalogues.blocks import Block
from velfield.catalogues.genericio_layout import BYTE_ORDERS
from velfield.catalogues.hacc import outer_rim_names, redshift_to_step, step_to_redshift
from velfield.catalogues.meaning import Meaning, meaning_of, pairs
from velfield.catalogues.table_catalogue import TableCatalogue
from velfield.catalogues.table_format import Column, Table
from velfield.errors import CatalogueError, VelfieldError
from velfield.files import storage
from velfield.painting.tracers import OUTSIDE, Tracers

__all__ = [
    "Block",
    "Catalogue",
    "Column",
    "TableCatalogue",
    "Tracers",
    "describe",
    "open_catalogue",
    "outer_rim_names",
    "redshift_to_step",
    "step_to_redshift",
]

HEAD = 64 * 1024  # bytes in which a text table has its names and its first row


class Catalogue(Protocol):
    """A table of halos or particles, whatever the format.

    Attributes
    ----------
    url, format, kind : str
        Where it is, the name of its format, and ``halos`` or ``particles``.
    columns : mapping of str to Column
        By the file's own names, in its order.
    blocks : list of Block
        Parts that can be read alone, with their extents from the volume's corner [h⁻¹Mpc] where they are known.
    boxsize : float or None
        Side of the periodic volume [h⁻¹Mpc].
    redshift : float or None
        Of the snapshot.
    cosmology : mapping of str to float
        The numbers of a cosmology that the file states (`velfield.catalogues.universe.STATED`); empty where it does
        not.
    nbytes : int
        Size of all its files.
    files : tuple of str
        Their names.
    meaning : Meaning
        Which columns are positions, velocities and masses, and their units.
    """

    url: str
    format: str
    kind: str
    columns: Mapping[str, Column]
    blocks: list[Block]
    boxsize: float | None
    redshift: float | None
    cosmology: Mapping[str, float]
    nbytes: int
    files: tuple[str, ...]
    meaning: Meaning

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 that a copy keeps wherever it lies, and that other values change."""

    def __len__(self) -> int: ...

    def read(
        self,
        columns: Sequence[str] | None = None,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
    ) -> dict[str, NDArray]:
        """Columns under the file's names with the file's values; rows of one block where ``rows`` is given."""

    def tracers(
        self,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
        *,
        velocities: bool = True,
        masses: bool = True,
    ) -> Tracers:
        """Positions, proper peculiar velocities and masses, each row checked."""

    def chunks(self, block: int, *, rows: int, velocities: bool = True, masses: bool = True) -> Iterator[Tracers]:
        """The tracers of a block, at most ``rows`` rows at a time, in order; the next are read meanwhile."""

    def chunk_bytes(self, rows: int, *, velocities: bool = True, masses: bool = True) -> int:
        """The most bytes that `chunks` holds at a time in any block, the tracers given out included."""

    def stored_bytes(self, columns: Sequence[str] | None = None, blocks: Sequence[int] | None = None) -> int:
        """Bytes that reading them takes."""

    def tracer_columns(self, *, velocities: bool = True, masses: bool = True) -> list[str]:
        """The columns that `tracers` reads."""


def open_catalogue(
    url: str | Table,
    redshift: float | None = None,
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    velocity: str | None = None,
    boxsize: float | None = None,
    h: float | None = None,
    kind: str | None = None,
    table: str | None = None,
    outside: str = "refuse",
) -> Catalogue:
    """Open a catalogue by its content: headers only.

    Parameters
    ----------
    url : str or Table
        Any fsspec URL or path; of a partitioned GenericIO catalogue the rank map. Or a table that is open already.
    redshift : float, optional
        Of the snapshot, where the file does not say. By default from the step in a name like
        ``m000-499.fofproperties`` or ``m000.mpicosmo.499``, else unknown.
    columns : mapping of str to str, or sequence of str, optional
        The file's names of x y z, vx vy vz and mass, where they are others than HACC's or just these:
        ``{"mass": "M200c"}`` or ``["mass=M200c"]``. A name may be followed by its unit in brackets,
        ``"x": "X [Mpc/h]"``, and by the component of a vector column, ``"x": "pos[0]"``.
    velocity : {"comoving", "proper"}, optional
        What the velocity columns are: proper is a times comoving. By default what the file says; HACC's are comoving.
    boxsize : float, optional
        Side of the volume [h⁻¹Mpc], where the file does not say.
    h : float, optional
        Hubble parameter, where the file does not say, for columns in units without h.
    kind : {"halos", "particles"}, optional
        What a table is to be taken for whose columns do not tell; by default one with masses holds halos.
    table : str, optional
        The group or extension, of a file that holds several tables.
    outside : {"refuse", "wrap", "drop"}
        What to do with positions outside the box.

    Notes
    -----
    Opened again in the same process, unchanged files are not read again: a job may open its catalogue in every task.
    """
    redshift = None if redshift is None else number(redshift, "redshift", "redshift")
    h = None if h is None else number(h, "h")
    boxsize = None if boxsize is None else number(boxsize, "boxsize", "length", h=h)
    if redshift is not None and not 0 <= redshift < math.inf:
        raise VelfieldError(f"no such redshift: redshift={redshift}; give a number from 0 on")
    if outside not in OUTSIDE:
        raise VelfieldError(f"no such choice: outside={outside!r}; choose {', '.join(OUTSIDE)}")
    if not (boxsize is None or 0 < boxsize < math.inf) or not (h is None or 0 < h < 2):
        raise VelfieldError(f"out of range: boxsize={boxsize}, h={h}; give the side in h⁻¹Mpc and h as some 0.7")
    found = _open_table(os.fspath(url), table, kind) if isinstance(url, str | os.PathLike) else _alone(url, table)
    url, facts = found.url, found.facts
    if facts.lightcone:
        raise CatalogueError(f"a light cone, not a snapshot: file={url}; choose a snapshot's file")
    h = _settled(url, "h", h, facts.h)
    redshift = _settled(url, "redshift", redshift, facts.redshift)
    return TableCatalogue(
        found,
        meaning_of(url, found.columns, facts, given=pairs(columns), velocity=velocity, kind=kind, h=h),
        redshift=facts.redshift_of_name if redshift is None else redshift,
        boxsize=_settled(url, "boxsize", boxsize, facts.boxsize),
        outside=outside,
    )


def _alone(opened: Table, table: str | None) -> Table:
    """A table that holds no other."""
    if table is not None:
        raise VelfieldError(f"the file holds one table only: file={opened.url}, table={table}; leave it out")
    return opened


def _settled(url: str, name: str, given: float | None, stated: float | None) -> float | None:
    """What the user gives and the file states, which must be the same."""
    if given is not None and stated is not None and abs(given - stated) > 1e-6 * max(1.0, abs(stated)):
        raise CatalogueError(
            f"the file does not agree on the {name}: file={url}, given={given:g}, in the file={stated:g}; leave it out"
        )
    return stated if given is None else float(given)


def describe(cat: Catalogue) -> dict[str, Any]:
    """What a catalogue is, as plain values that JSON can hold: for ``velfield info``."""
    lower = [b.lower for b in cat.blocks if b.lower is not None]
    return {
        "url": cat.url,
        "format": cat.format,
        "kind": cat.kind,
        "rows": len(cat),
        "blocks": len(cat.blocks),
        "spatial_blocks": len(lower) == len(cat.blocks) > 0,
        "largest_block": max((b.nrows for b in cat.blocks), default=0),
        "files": len({b.url for b in cat.blocks}),
        "bytes": cat.nbytes,
        "boxsize": cat.boxsize,
        "redshift": cat.redshift,
        **({"cosmology": dict(cat.cosmology)} if cat.cosmology else {}),
        "columns": {
            name: {
                "dtype": c.dtype.base.name,
                "components": math.prod(c.dtype.shape),
                "unit": c.unit,
                "description": c.description,
            }
            for name, c in cat.columns.items()
        },
        "tracers": cat.meaning.described(),
        "fingerprint": cat.fingerprint,
    }


def _open_table(url: str, table: str | None, kind: str | None) -> Table:
    """Open with the reader of the format that the first bytes tell."""
    fs, path = storage.filesystem(url)
    try:
        head = bytes(fs.cat_file(path, start=0, end=8))[:8]
    except OSError as error:
        if fs.isdir(path) and (files := table_parquet.parts(url)):
            return table_parquet.open_table(url, files)
        if isinstance(error, FileNotFoundError):
            raise CatalogueError(f"no such file: file={url}; {storage.did_you_mean(url)}check the path") from error
        raise CatalogueError(f"file cannot be read: file={url}, reason={error}; check path and permissions") from error
    if head.startswith(table_hdf5.MAGIC):
        return table_hdf5.open_table(url, table, kind)
    if head.startswith(table_fits.MAGIC):
        return table_fits.open_table(url, table)
    if head in BYTE_ORDERS:
        return _alone(table_genericio.open_table(url), table)
    if head.startswith(table_parquet.MAGIC):
        return _alone(table_parquet.open_table(url), table)
    if (text := table_csv.head_of(url, bytes(fs.cat_file(path, start=0, end=HEAD))[:HEAD])) is not None:
        return _alone(table_csv.open_table(url, text), table)
    raise CatalogueError(
        f"not a catalogue in a known format: file={url}, first_bytes={head!r}; "
        "GenericIO, Parquet, HDF5, FITS tables and CSV with a line of names are read"
    )


def is_folder_of_parts(url: str) -> bool:
    """Whether a folder holds the parts of a Parquet catalogue."""
    return storage.is_folder(url) and bool(table_parquet.parts(url))
