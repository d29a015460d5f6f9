"""The field store and the velocity store: how they are written, opened, and what is derived from them.

With `velfield.stores.store_layout`, which says what they hold, and `velfield.stores.coordinates`, which looks whether
they still do once xarray has cropped or turned them, the only module that names variables, coordinates and attributes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, storage
from velfield.physics.cosmology import Cosmology
from velfield.stores import cf, joined
from velfield.stores.coordinates import AXES, cells_along, check_values, whole_boxes
from velfield.stores.store_layout import (
    DENSITIES,
    OF_THE_FIELDS,
    PREDICTED,
    SCHEMA,
    SIGHT,
    FieldSpec,
    attributes_of_today,
    field_layout,
    unit_of_today,
)

WORK = ".work"  # beneath a store: what an unfinished job has done so far
STAYS = ("preferred_chunks", "fill_value")  # of the encoding: how a variable is read; a lost chunk shows in copies, too
INPUTS = {  # what a network or linear theory may take: the variable and how it is scaled
    "mass_overdensity": ("halo_mass", "overdensity"),
    "number_overdensity": ("halo_number", "overdensity"),
    "mass_density": ("halo_mass", "density"),
    "number_density": ("halo_number", "density"),
    "matter_overdensity": ("matter_number", "overdensity"),
}


def write_fields(url: str, spec: FieldSpec, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a whole field store that fits in memory, in one go."""
    layout = field_layout(spec)
    shards.create(url, layout)
    written = shards.write_boxes(url, layout, range(spec.boxes.nbox), arrays)
    shards.publish(url, layout, written)


def fields_in_memory(spec: FieldSpec, arrays: Mapping[str, NDArray[Any]]) -> xr.Dataset:
    """The dataset that `open_fields` gives of the store that `write_fields` writes of the same, without the store.

    Parameters
    ----------
    spec : FieldSpec
        What the store would say of itself.
    arrays : mapping of str to ndarray
        For every variable its values, boxes along the first axis.
    """
    layout = field_layout(spec)
    made = {name: (("box", *v.dims), arrays[name], dict(v.attrs)) for name, v in layout.variables.items()}
    coords = {name: (c.dims, c.values, dict(c.attrs)) for name, c in layout.coords.items()}
    return _numbered(_as_opened(xr.Dataset(made, coords=coords, attrs=dict(layout.attrs))))


def velocity_in_memory(fields: xr.Dataset, boxes: Sequence[int], made: Mapping[str, NDArray[Any]]) -> xr.Dataset:
    """Velocities of boxes of a field store on the coordinates of its cores, as a velocity store has them.

    Parameters
    ----------
    fields : xarray.Dataset
        What they were predicted from, as `open_fields` gives it.
    boxes : sequence of int
        Their numbers in it.
    made : mapping of str to ndarray (box, 3, x, y, z)
        ``velocity`` and, where the model gives it, ``velocity_std`` [km/s].
    """
    dims = ("box", "component", "x", "y", "z")
    arrays = {name: xr.DataArray(values, dims=dims, attrs=dict(PREDICTED[name])) for name, values in made.items()}
    coords = fields.velfield.core(fields).isel(box=list(boxes)).coords.to_dataset().load().coords
    attrs = {name: fields.attrs[name] for name in (*OF_THE_FIELDS, *SIGHT) if name in fields.attrs}
    return xr.Dataset(arrays, coords=coords, attrs=attrs | {"velfield_kind": "velocity", "margin": 0})


def open_fields(url: str, *, chunks: Any = "box") -> xr.Dataset:
    """Open a field store lazily.

    Parameters
    ----------
    url : str
        Any fsspec URL.
    chunks : optional
        As in `xarray.open_zarr`. By default Dask arrays of one box a chunk where Dask is installed; ``None`` gives
        arrays that are read when they are indexed, without Dask.

    Returns
    -------
    xarray.Dataset
        With the accessor ``.velfield`` for over-densities, cores and the whole parent. Coordinates are in memory.
        Units and names are today's, whatever version wrote the store; how the store is chunked, sharded and compressed
        is not in the encoding, so that ``to_zarr`` writes any selection as it is chunked in the dataset.
    """
    return _open(url, "fields", chunks, "velfield paint")


def open_velocity(url: str, *, chunks: Any = "box") -> xr.Dataset:
    """Open a velocity store lazily, as `open_fields` does a field store."""
    return _open(url, "velocity", chunks, "velfield predict")


def _open(url: str, kind: str, chunks: Any, verb: str) -> xr.Dataset:
    if not shards.published(url):
        if storage.exists(storage.join(url, WORK)):
            raise StoreError(f"this store is not finished: url={url}; run the same {verb} command again to go on")
        if not storage.exists(url):
            meant = storage.did_you_mean(url)
            raise StoreError(f"no such file or folder: url={url}; {meant}check the path, or make a store with {verb}")
        raise StoreError(f"no store here, or an unfinished one: url={url}; name another, or make one with {verb}")
    by_box = chunks == "box"
    if by_box:
        chunks = {} if importlib.util.find_spec("dask") else None
    ds = xr.open_zarr(shards.zarr_store(url), chunks=chunks)
    found = ds.attrs.get("velfield_kind"), ds.attrs.get("velfield_schema")
    if found != (kind, SCHEMA):
        raise StoreError(
            f"not a store of this kind: url={url}, kind={found[0]}, schema={found[1]}; "
            f"expected kind={kind}, schema={SCHEMA}, as {verb} writes"
        )
    ds = _numbered(ds)
    ds.encoding["source"] = url  # as xarray does for files: errors name it
    for name in set(ds.coords) - set(ds.xindexes):
        with decoding(ds, str(name), "all"):
            ds.variables[name].load(scheduler="threads")  # small: not on a cluster that happens to be connected
    ds = _as_opened(ds)
    # of a large box one variable may be cut into several chunks and another not (`shards.Variable.chunk`)
    return ds.unify_chunks() if by_box else ds


def _as_opened(ds: xr.Dataset) -> xr.Dataset:
    """The dataset of a store with attributes and encoding that suit all that xarray does with it.

    Attributes are written as today, without the booleans of older stores, which NetCDF does not know; flags have the
    type of their variable, as CF wants it. Of the encoding only `STAYS` does.
    """
    ds.attrs = {name: int(value) if isinstance(value, bool) else value for name, value in ds.attrs.items()}
    for name, variable in ds.variables.items():
        variable.attrs = attributes_of_today(str(name), variable.attrs)
        if "flag_values" in variable.attrs:
            variable.attrs["flag_values"] = np.array(variable.attrs["flag_values"], dtype=variable.dtype)
        if name in ds.coords:
            variable.encoding = {"_FillValue": None} if variable.dtype.kind == "f" else {}  # CF: none is missing
        else:
            variable.encoding = {key: variable.encoding[key] for key in STAYS if key in variable.encoding}
    return ds


def _numbered(ds: xr.Dataset) -> xr.Dataset:
    """With the number of each box, which is not stored: by it xarray and `metrics` match boxes in any order."""
    boxes = ds.attrs.get("boxes")
    if "box" in ds.coords or not isinstance(boxes, int | np.integer) or ds.sizes.get("box") != int(boxes) ** 3:
        return ds
    return ds.assign_coords(box=("box", np.arange(ds.sizes["box"]), {"long_name": "number of the box in its parent"}))


@contextmanager
def decoding(ds: xr.Dataset, variable: str, boxes: Any) -> Iterator[None]:
    """Say in one line which boxes cannot be read, where what is stored of them is not what was written."""
    try:
        yield
    except (ValueError, RuntimeError, LookupError, EOFError) as error:  # of a checksum, of zstd, of a shard's index
        raise StoreError(
            f"what is stored of a box is damaged: store={ds.encoding.get('source')}, variable={variable}, box={boxes}, "
            f"because={' '.join(str(error).split())[:200]}; see what else is with velfield verify, and paint it again"
        ) from error


def attributes(url: str) -> dict[str, Any]:
    """Root attributes of a finished store."""
    return dict(storage.read_json(storage.join(url, shards.ROOT)).get("attributes", {}))


def document_hash(url: str) -> str:
    """SHA-256 of a finished store's root document: another one for any other store, wherever it lies."""
    return hashlib.sha256(storage.read_bytes(storage.join(url, shards.ROOT))).hexdigest()


def cosmology_of(ds: xr.Dataset) -> Cosmology:
    """The cosmology that a store was made with."""
    return Cosmology.from_dict(json.loads(ds.attrs["cosmology"]))


def contrast(values: xr.DataArray) -> xr.DataArray:
    """Density contrast δ of some cells of a variable, whose attribute ``mean`` is the parent's mean per cell."""
    if "mean" not in values.attrs:
        raise StoreError(
            f"a variable without its parent's mean: variable={values.name}, missing attribute=mean; take the store as "
            "it was opened, or keep attributes (xarray.set_options(keep_attrs=True))"
        )
    return (values / values.attrs["mean"] - 1).astype("float32", copy=False)


@xr.register_dataset_accessor("velfield")
class FieldAccessor:
    """``ds.velfield``: quantities derived lazily from a field store."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def core(self, array: Any) -> Any:
        """The cells of the boxes proper of a Dataset or DataArray, by its coordinates: without the margin."""
        cut: dict[str, Any] = {}
        for axis in AXES:
            if axis in array.dims or axis in array.coords:
                numbers = cells_along(axis, array, self._ds)
                inside = np.flatnonzero((numbers >= 0) & (numbers < int(self._ds.attrs["cells"])))
                if axis not in array.dims:
                    if not len(inside):
                        raise StoreError(
                            "a plane of the margin, of which nothing is left: "
                            f"store={self._ds.encoding.get('source')}, {axis}={float(array[axis]):g}; take a plane of "
                            "the boxes proper"
                        )
                    continue
                adjacent = len(inside) and inside[-1] - inside[0] == len(inside) - 1
                cut[axis] = slice(inside[0], inside[-1] + 1) if adjacent else inside
        return array.isel(cut)

    def overdensity(self, name: str, mean: str = "parent") -> xr.DataArray:
        """Density contrast δ = value / mean − 1 of ``halo_mass``, ``halo_number`` or ``matter_number``.

        ``mean="parent"`` divides by the parent's mean per cell, ``mean="box"`` by the box's own over its core.
        """
        values = self._variable(name)
        if mean == "parent":
            delta = contrast(values)
        elif mean == "box":
            average = self._core_of_all(values).mean(AXES, dtype="float64")
            delta = (values / average - 1).astype("float32", copy=False)
        else:
            raise VelfieldError(f"unknown mean: mean={mean!r}; choose parent or box")
        delta = delta.rename(f"{name}_overdensity")
        return delta.assign_attrs(units="1", long_name=f"density contrast of {name}")

    def density(self, name: str) -> xr.DataArray:
        """Value per volume: counts in (h⁻¹Mpc)⁻³, masses in h⁻¹M⊙ (h⁻¹Mpc)⁻³."""
        values = self._variable(name)
        cf.refuse(self._ds)
        density = (values / float(self._ds.attrs["cellsize"]) ** 3).astype("float32").rename(f"{name}_density")
        own = unit_of_today(values.attrs["units"])
        units = DENSITIES.get(own, f"({own}) {DENSITIES['1']}")
        return density.assign_attrs(units=units, long_name=f"density of {name}")

    def input(self, kind: str, mean: str = "parent") -> xr.DataArray:
        """One of the inputs that models take: a key of `INPUTS`."""
        if kind not in INPUTS:
            raise VelfieldError(f"unknown input: input={kind!r}; choose from {', '.join(INPUTS)}")
        variable, form = INPUTS[kind]
        return self.overdensity(variable, mean) if form == "overdensity" else self.density(variable)

    def whole(self) -> xr.Dataset:
        """All boxes as one cube of the parent, margins left out: dimensions x, y, z and, of velocities, ``component``.

        As lazy as the store is with Dask, a chunk for each box; opened with ``chunks=None`` it is read into memory.

        Returns
        -------
        xarray.Dataset
            Of one box that is the parent, without a dimension for it: ``x``, ``y``, ``z`` [h⁻¹Mpc] lie in the parent,
            the attribute ``cells`` is the number along its side, ``margin`` 0. ``split`` has no place in it, nor has an
            ``observer`` or ``line_of_sight`` that boxes do not share.

        Raises
        ------
        StoreError
            Where boxes or cells are missing or there twice; of halos that each box's own observer sees.
        """
        ds = whole_boxes(self._ds)
        return joined.whole(ds.velfield.core(ds))

    def cf(self) -> xr.Dataset:
        """The same for NetCDF that follows the CF conventions: in units that UDUNITS knows, megaparsec and no h.

        Values are divided by the h of the store's cosmology; masses are in solar masses. It is no store any more:
        ``boxsize``, ``cellsize`` and ``min_mass`` are text with their unit.
        """
        return cf.converted(self._ds)

    def _variable(self, name: str) -> xr.DataArray:
        if name not in self._ds:
            catalogue = "--particles" if name == "matter_number" else "--halos"
            raise StoreError(f"the store has no such field: variable={name}; paint it again with {catalogue}")
        check_values(self._ds[name], self._ds)
        return self._ds[name]

    def _core_of_all(self, values: xr.DataArray) -> xr.DataArray:
        """The core of a variable; refuses boxes that lack some of it."""
        core, cells = self.core(values), int(self._ds.attrs["cells"])
        for axis in AXES:
            if core.sizes.get(axis, 0) != cells:
                raise StoreError(
                    f"a mean of boxes that lack cells: store={self._ds.encoding.get('source')}, "
                    f"cells along {axis}={core.sizes.get(axis, 1)}, the store's cells={cells}; take the over-density "
                    "of the store as it was opened, and crop that"
                )
        return core
