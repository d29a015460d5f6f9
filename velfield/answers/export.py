"""A store's velocities in other forms: cubes as NetCDF or FITS, what is derived from them, tables of bulk flows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield import arguments
from velfield.answers import cubes, derived
from velfield.answers.cells import ABSENT, Cells, shared
from velfield.answers.cubes import Frame, Quantity
from velfield.answers.queries import open_store
from velfield.catalogues.table_format import Column, Facts
from velfield.catalogues.table_rows import format_of
from velfield.catalogues.table_write import refuse_existing, writing
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.files.progress import Progress, Silent
from velfield.stores import cf
from velfield.stores.store import cosmology_of
from velfield.stores.store_layout import LENGTH, SPEED

POTENTIAL = Quantity(
    name="potential", units=cf.POTENTIAL, long_name="velocity potential, v = -grad(potential)", vector=False
)
QUANTITIES: dict[str, tuple[Quantity, Callable[[Cells, int], NDArray[np.float32]]]] = {
    quantity.name: (quantity, make)
    for quantity, make in (
        (
            Quantity(name="velocity", units=SPEED, long_name="proper peculiar velocity", vector=True),
            derived.velocity,
        ),
        (
            Quantity(name="velocity_std", units=SPEED, long_name="error bar of velocity", vector=True),
            derived.velocity_std,
        ),
        (Quantity(name="speed", units=SPEED, long_name="length of the velocity", vector=False), derived.speed),
        (
            Quantity(name="v_los", units=SPEED, long_name="velocity along the line of sight", vector=False),
            derived.line_of_sight,
        ),
        (
            Quantity(name="divergence", units=cf.GRADIENT, long_name="divergence of the velocity", vector=False),
            derived.divergence,
        ),
    )
}
NAMES = (*QUANTITIES, POTENTIAL.name)
FORMS = {".nc": cubes.netcdf, ".nc4": cubes.netcdf, ".fits": cubes.fits, ".fit": cubes.fits}
KEPT = (
    *("velfield_version", "cosmology", "redshift", "boxsize", "boxes", "cells", "cellsize", "periodic", "rsd"),
    *("model", "input", "fingerprint", "checks", "implausible", "Conventions"),
)
FLOAT = np.dtype(np.float64)


def export(
    store: str | xr.Dataset,
    out: str,
    *,
    quantities: Sequence[str] = ("velocity",),
    boxes: Sequence[int] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write cubes of a store to one file.

    Parameters
    ----------
    store : str or xarray.Dataset
        A velocity store or field store, its margin left out. A cell that is not known is NaN.
    out : str
        URL; its name ends with ``.nc`` (NetCDF) or ``.fits``.
    quantities : sequence of str
        Some of `NAMES`: `velfield.answers.derived` says what they are.
    boxes : sequence of int, optional
        The store's boxes that are wanted, each for itself; by default the whole parent as one grid.
    overwrite : bool
        Whether ``out`` may be there.
    progress : Progress, optional
        Is told of boxes.

    Notes
    -----
    One box is in memory, and 256 MB of boxes kept for their neighbours; for the potential some 20 bytes a cell of the
    whole (`velfield.answers.derived.potential`).
    """
    ds = store if isinstance(store, xr.Dataset) else open_store(store)
    cells = Cells(ds if "velocity_std" in quantities else ds.drop_vars("velocity_std", errors="ignore"))
    form = next((make for end, make in FORMS.items() if out.lower().endswith(end)), None)
    if form is None:
        raise VelfieldError(f"no such form of a cube: file={out}; let its name end with {', '.join(FORMS)}")
    unknown = [name for name in quantities if name not in NAMES]
    if unknown or not quantities or len(set(quantities)) < len(quantities):
        raise VelfieldError(
            f"no such quantities: quantities={','.join(quantities)}; choose some of {', '.join(NAMES)}, each once"
        )
    frame = _frame(cells, boxes)
    if boxes is not None and POTENTIAL.name in quantities:
        raise VelfieldError(
            f"a box alone has no potential: boxes={','.join(map(str, boxes))}; leave --box out, or ask for the "
            "divergence"
        )
    refuse_existing(out, overwrite)
    chosen = range(len(cells.places)) if boxes is None else boxes
    told = progress or Silent()
    told.start("export", len(chosen), "boxes")
    kinds = [POTENTIAL if name == POTENTIAL.name else QUANTITIES[name][0] for name in quantities]
    made = {name: derived.potential(cells) for name in quantities if name == POTENTIAL.name}
    with storage.written_aside(out) as path, form(path, frame, kinds) as file:
        for box in chosen:
            x, y, z = cells.places[box].tolist()
            for name in quantities:
                values = made[name][frame.corner((x, y, z))] if name in made else QUANTITIES[name][1](cells, box)
                file.put(name, box, (x, y, z), values)
            told.advance()
    told.done()


def _frame(cells: Cells, boxes: Sequence[int] | None) -> Frame:
    """What is written, and what is said of it; refuses boxes that are not there, and a whole that has gaps."""
    there = len(cells.places)
    if boxes is None and (cells.number == ABSENT).any():
        raise StoreError(
            f"the boxes do not fill their parent: store={cells.source}, boxes={there} of {cells.layout.nbox}; "
            "choose boxes (boxes=, --box)"
        )
    wrong = [box for box in boxes or () if not 0 <= box < there]
    if wrong:
        raise StoreError(f"no such box: store={cells.source}, box={wrong[0]}; the store has boxes 0 to {there - 1}")
    if boxes is not None and (not boxes or len(set(boxes)) < len(boxes)):
        raise VelfieldError(f"no boxes, or one twice: boxes={','.join(map(str, boxes))}; name each once")
    places = None if boxes is None else {box: tuple(cells.places[box].tolist()) for box in boxes}
    attrs = {name: cells.ds.attrs[name] for name in KEPT if name in cells.ds.attrs}
    return Frame(layout=cells.layout, boxes=places, attrs=attrs | {"source": str(cells.source)}, seen=_seen(cells))


def _seen(cells: Cells) -> tuple[str, dict[int | None, tuple[float, float, float]]] | None:
    """The observer or line of sight of each box, and of all of them where it is one."""
    name = next((name for name in cubes.SEEN if name in cells.ds.coords), None)
    if name is None:
        return None
    one, of_all = shared(cells.ds, name), np.asarray(cells.ds[name].values, dtype=np.float64)
    each = np.broadcast_to(of_all, (len(cells.places), 3)).tolist()
    found: dict[int | None, Any] = {box: tuple(values) for box, values in enumerate(each)}
    return name, found | ({} if one is None else {None: tuple(one.tolist())})


def bulk_flows(
    store: str | xr.Dataset,
    spheres: Sequence[Sequence[float]],
    out: str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[derived.BulkFlow]:
    """Bulk flows in spheres, as a table in CSV, Parquet, FITS or HDF5.

    Parameters
    ----------
    store : str or xarray.Dataset
        A velocity store or field store.
    spheres : sequence of (x, y, z, radius) or (radius,)
        Centres in the parent and radii [h⁻¹Mpc]; a radius alone is around the store's one observer.
    out : str
        URL; its columns are x, y, z, radius [h⁻¹Mpc], vx, vy, vz [km/s], cells, inside
        (`velfield.answers.derived.BulkFlow`).
    overwrite
        Whether ``out`` may be there.
    progress : Progress, optional
        Is told of boxes: those that a sphere meets, each read once.
    """
    ds = store if isinstance(store, xr.Dataset) else open_store(store)
    cells = Cells(ds.drop_vars("velocity_std", errors="ignore"), kept_bytes=0)  # each box is wanted once
    h = cosmology_of(ds).h
    whole = np.array([_sphere(cells, arguments.numbers(s, "sphere", "length", h=h)) for s in spheres], dtype=np.float64)
    format_of(out)  # refuses a name that says none
    refuse_existing(out, overwrite)
    flows = derived.bulk_flows(cells, whole, progress)
    units = dict.fromkeys(("x", "y", "z", "radius"), LENGTH) | dict.fromkeys(("vx", "vy", "vz"), SPEED)
    columns = {name: Column(dtype=FLOAT, unit=unit, description="") for name, unit in units.items()}
    columns["cells"] = Column(dtype=np.dtype(np.int64), unit="", description="known cells in the sphere")
    columns["inside"] = Column(dtype=FLOAT, unit="", description="their share of all cells in the sphere")
    values = np.array([[*sphere, *flow.velocity] for sphere, flow in zip(whole, flows, strict=True)]).T
    table = dict(zip(units, values, strict=True))
    table["cells"] = np.array([flow.cells for flow in flows], dtype=np.int64)
    table["inside"] = np.array([flow.inside for flow in flows])
    with writing(out, _Nothing(), columns, overwrite=overwrite) as writer:
        writer.write(_NoColumns(len(flows)), table)
    return flows


def _sphere(cells: Cells, sphere: NDArray[Any]) -> tuple[float, ...]:
    """Centre and radius."""
    if sphere.shape == (4,):
        return tuple(map(float, sphere))
    observer = shared(cells.ds, "observer")
    if sphere.shape != (1,) or observer is None:
        given = ",".join(f"{value:g}" for value in sphere.ravel())
        raise VelfieldError(
            f"no such sphere: sphere={given}, store={cells.source}; give x,y,z,radius, or, where "
            "the store has one observer, a radius alone"
        )
    return (*observer.tolist(), float(sphere[0]))


class _Nothing:
    """A table without columns, to which all of them are added."""

    url = format = ""
    facts = Facts()
    columns: Mapping[str, Column] = MappingProxyType({})
    nrows: int | None = None

    def parts(self, rows: int = 0) -> Iterator[Any]:  # noqa: ARG002
        """No rows."""
        return iter(())


class _NoColumns:
    """Rows of it."""

    raw: Any = None

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:  # noqa: ARG002
        """No column."""
        raise KeyError(name)

    column = numbers
