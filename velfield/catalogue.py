"""Catalogues of halos or particles: what a table's columns mean, in which units, at which redshift.

Velocities in HACC files are comoving; `Catalogue.tracers` is the one place that multiplies them by a. The redshift is
not in the files: it is given, or comes from the step in a name as the Outer Rim release has it. docs/catalogues.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from velfield import genericio, hacc, storage
from velfield.errors import CatalogueError, VelfieldError
from velfield.genericio import Block
from velfield.genericio_layout import BYTE_ORDERS
from velfield.hacc import outer_rim_names, redshift_of_name, redshift_to_step, step_to_redshift

__all__ = [
    "Block",
    "Catalogue",
    "Column",
    "HaccCatalogue",
    "Tracers",
    "describe",
    "open_catalogue",
    "outer_rim_names",
    "redshift_to_step",
    "step_to_redshift",
]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: type of a value (of a row's values where it is a vector), unit ("" where unknown), meaning."""

    dtype: np.dtype
    unit: str
    description: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracers:
    """Points that trace the matter, in the columns' own precision.

    Parameters
    ----------
    pos : ndarray (N, 3)
        Comoving positions from the volume's corner [h⁻¹Mpc].
    vel : ndarray (N, 3) or None
        Proper peculiar velocities [km/s].
    mass : ndarray (N,) or None
        Masses [h⁻¹M⊙]; None for particles, which all weigh the same.
    """

    pos: NDArray
    vel: NDArray | None
    mass: NDArray | None


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
    nbytes : int
        Size of all its files.
    """

    url: str
    format: str
    kind: str
    columns: Mapping[str, Column]
    blocks: list[Block]
    boxsize: float | None
    redshift: float | None
    nbytes: int

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
        """Positions, proper peculiar velocities and masses."""

    def stored_bytes(self, columns: Sequence[str] | None = None, blocks: Sequence[int] | None = None) -> int:
        """Bytes that reading them takes."""

    def tracer_columns(self, *, velocities: bool = True, masses: bool = True) -> list[str]:
        """The columns that `tracers` reads."""


class HaccCatalogue:
    """Halos or particles of a HACC simulation in GenericIO; see `Catalogue`."""

    format = "GenericIO"

    def __init__(self, gio: genericio.GenericIO, redshift: float | None) -> None:
        self._gio = gio
        self.url, self.nbytes, self.boxsize, self.redshift = gio.url, gio.nbytes, gio.boxsize, redshift
        self.columns: Mapping[str, Column] = {name: _meaning(column) for name, column in gio.columns.items()}
        self.kind = self._kind()
        self.blocks = [_from_corner(block, gio.origin) for block in gio.blocks]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the headers and of some stored CRCs; see `genericio.GenericIO.fingerprint`."""
        return self._gio.fingerprint()

    @property
    def files(self) -> tuple[str, ...]:
        """All files, the rank map first."""
        return self._gio.files

    def __len__(self) -> int:
        return self._gio.nrows

    def read(
        self,
        columns: Sequence[str] | None = None,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
    ) -> dict[str, NDArray]:
        """Columns as they are stored, rows in global rank order; see `genericio.GenericIO.read`."""
        return self._gio.read(columns, blocks, rows)

    def stored_bytes(self, columns: Sequence[str] | None = None, blocks: Sequence[int] | None = None) -> int:
        """Bytes that reading these columns of these blocks fetches."""
        return self._gio.stored_bytes(columns, blocks)

    def tracer_columns(self, *, velocities: bool = True, masses: bool = True) -> list[str]:
        """The columns that `tracers` reads."""
        halos = self.kind == "halos"
        names = list(self._position_columns())
        names += (hacc.HALO_VELOCITIES if halos else hacc.VELOCITIES) if velocities else ()
        return names + ([hacc.HALO_MASS] if masses and halos else [])

    def tracers(
        self,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
        *,
        velocities: bool = True,
        masses: bool = True,
    ) -> Tracers:
        """Positions, proper peculiar velocities and masses.

        Parameters
        ----------
        blocks, rows : optional
            As in `read`.
        velocities, masses : bool
            Whether they are wanted. Velocities need the redshift: the files hold comoving ones, proper is a times them.
        """
        if velocities:
            scale_factor = self._scale_factor()
        names = self.tracer_columns(velocities=velocities, masses=masses)
        table = self._gio.read(names, blocks, rows)
        pos = np.stack([table[name] for name in names[:3]], axis=1)
        if any(self._gio.origin):
            pos -= np.asarray(self._gio.origin, dtype=pos.dtype)
        vel = None
        if velocities:
            vel = np.stack([table[name] for name in names[3:6]], axis=1)
            vel *= vel.dtype.type(scale_factor)
        return Tracers(pos=pos, vel=vel, mass=table.get(hacc.HALO_MASS))

    def _kind(self) -> str:
        if hacc.HALO_MASS in self.columns or any(
            set(names) <= set(self.columns) for names in (hacc.CENTRES, hacc.MEANS)
        ):
            return "halos"
        if set(hacc.POSITIONS) <= set(self.columns):
            return "particles"
        raise CatalogueError(
            f"neither halos nor particles: file={self.url}, columns={', '.join(self.columns)}; "
            "halos need fof_halo_center_x y z, particles x y z"
        )

    def _position_columns(self) -> tuple[str, ...]:
        if self.kind == "particles":
            return hacc.POSITIONS
        return hacc.CENTRES if hacc.CENTRES[0] in self.columns else hacc.MEANS

    def _scale_factor(self) -> float:
        if self.redshift is None:
            raise VelfieldError(
                f"velocities need the redshift, which the files do not hold: file={self.url}, redshift=None; "
                "give redshift (--redshift on the command line)"
            )
        return 1 / (1 + self.redshift)


def open_catalogue(url: str, redshift: float | None = None) -> Catalogue:
    """Open a catalogue by its content: headers only.

    Parameters
    ----------
    url : str
        Any fsspec URL or path; of a partitioned GenericIO catalogue the rank map.
    redshift : float, optional
        Of the snapshot; by default from the step in a name like ``m000-499.fofproperties`` or ``m000.mpicosmo.499``,
        else unknown.

    Notes
    -----
    Opened again in the same process, unchanged files are not read again: a job may open its catalogue in every task.
    """
    url = os.fspath(url)
    if redshift is not None and not 0 <= redshift < math.inf:
        raise VelfieldError(f"no such redshift: redshift={redshift}; give a number from 0 on")
    _check_format(url)
    return HaccCatalogue(genericio.open_again(url), redshift_of_name(url) if redshift is None else float(redshift))


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
        "columns": {
            name: {
                "dtype": c.dtype.base.name,
                "components": math.prod(c.dtype.shape),
                "unit": c.unit,
                "description": c.description,
            }
            for name, c in cat.columns.items()
        },
        "fingerprint": cat.fingerprint,
    }


def _check_format(url: str) -> None:
    fs, path = storage.filesystem(url)
    try:
        magic = bytes(fs.cat_file(path, start=0, end=8))[:8]
    except FileNotFoundError as error:
        raise CatalogueError(f"no such file: file={url}; check the path") from error
    except OSError as error:
        raise CatalogueError(f"file cannot be read: file={url}, reason={error}; check path and permissions") from error
    if magic not in BYTE_ORDERS:
        raise CatalogueError(
            f"not a catalogue in a known format: file={url}, first_bytes={magic!r}; GenericIO is read today"
        )


def _meaning(column: genericio.Column) -> Column:
    unit, description = hacc.COLUMNS.get(column.name, ("", ""))
    dtype = column.dtype if column.components == 1 else np.dtype((column.dtype, (column.components,)))
    return Column(dtype=dtype, unit=unit, description=description)


def _from_corner(block: Block, origin: tuple[float, float, float]) -> Block:
    if block.lower is None or block.upper is None or not any(origin):
        return block
    lower, upper = ((x - a, y - b, z - c) for (x, y, z) in (block.lower, block.upper) for (a, b, c) in [origin])
    return dataclasses.replace(block, lower=lower, upper=upper)
