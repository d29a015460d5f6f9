"""Planes and coarse cubes of a job's or a store's fields, for who looks at them.

One box of one variable is read at a time, mostly one chunk of a store; the boxes that were looked at last are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.files import shards
from velfield.service.problems import Problem
from velfield.stores import store

AXES = ("x", "y", "z")
KEPT_BYTES = 2**28  # of boxes that were looked at
COARSEST, FINEST = 2, 64  # cells along a side of a coarse cube
SPAN = (0.5, 99.5)  # percentiles of a box that say how far its colours reach
SAMPLE = 2**18  # cells that they are taken from
CONTRASTS = {f"{name}_overdensity": name for name in ("halo_number", "halo_mass", "matter_number")}
ANSWERED = ("velocity", "velocity_std", "velocity_flag", "velocity_truth", *CONTRASTS)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What there is to look at: stores by their URLs.

    Parameters
    ----------
    fields : str, optional
        A field store: of a job, what it was given. None where that is gone, and for a velocity store alone.
    made : str, optional
        A velocity store: a job's, or one that is there. None to look at a field store alone.
    """

    fields: str | None
    made: str | None = None

    def of_this_input(self) -> bool:
        """Whether the field store is still the one that the velocities were made of."""
        if self.fields is None or self.made is None:
            return True
        if not shards.published(self.fields):
            return False
        made_of = store.attributes(self.made).get("input_fingerprint")
        return bool(store.attributes(self.fields).get("fingerprint") == made_of)

    def where(self) -> dict[str, tuple[str, str]]:
        """By the names that clients use: the store, and what it calls the variable."""
        found: dict[str, tuple[str, str]] = {}
        if self.fields is not None:
            with store.open_fields(self.fields, chunks=None) as ds:
                there = {str(name) for name in ds.data_vars}
            truth = "velocity" if self.made is None else "velocity_truth"
            found |= {shown: (self.fields, name) for shown, name in CONTRASTS.items() if name in there}
            if "velocity" in there:
                found[truth] = (self.fields, "velocity")
            if "velocity_flag" in there:
                found["velocity_flag"] = (self.fields, "velocity_flag")
        if self.made is not None:
            with store.open_velocity(self.made, chunks=None) as ds:
                found |= {str(name): (self.made, str(name)) for name in ds.data_vars if name in ANSWERED}
        return found


@dataclass(frozen=True, kw_only=True)
class Box:
    """A variable in one box, without its margin.

    Parameters
    ----------
    values : ndarray (x, y, z) or (3, x, y, z)
        float32; NaN where nothing is known.
    low, high : float
        How far its values reach, without the outermost half per cent at either end; of a vector 0 and its length.
    cellsize : float
        [h⁻¹Mpc]
    origin : list of float
        Its corner in the parent [h⁻¹Mpc].
    """

    values: NDArray[np.float32]
    units: str
    low: float
    high: float
    cellsize: float
    origin: list[float]
    meanings: list[str]


class Boxes:
    """Boxes that were read, those that were asked for last; safe to be used by several threads."""

    def __init__(self, most_cells: int, kept_bytes: int = KEPT_BYTES) -> None:
        self.most_cells, self.kept_bytes = most_cells, kept_bytes
        self._kept: OrderedDict[tuple[str, str, str, int], Box] = OrderedDict()
        self._lock = threading.Lock()

    def about(self, source: Source) -> dict[str, Any]:
        """What there is to look at: variables, boxes, cells, and where the boxes lie."""
        with _opened(source.made or str(source.fields), made=source.made is not None) as ds:
            return {
                "variables": sorted(source.where()),
                "boxes": ds.sizes["box"],
                "cells": int(ds.attrs["cells"]),
                "cellsize": float(ds.attrs["cellsize"]),
                "boxsize": float(ds.attrs["boxsize"]),
                "redshift": float(ds.attrs["redshift"]),
                "rsd": str(ds.attrs["rsd"]),
                "split": [str(one) for one in ds["split"].values] if "split" in ds.coords else [],
            }

    def plane(
        self, source: Source, variable: str, box: int, axis: str, index: int
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Cells of a box in the plane ``axis = index``: an array (a, b) or (3, a, b), and what it means."""
        found = self.box(source, variable, box)
        cells = found.values.shape[-1]
        if not 0 <= index < cells:
            raise Problem(422, f"no such plane: index={index}, cells={cells}", f"choose 0 to {cells - 1}")
        values = np.moveaxis(found.values, AXES.index(axis) - 3, -1)[..., index]
        told = {"axis": axis, "index": index, "position": (index + 0.5) * found.cellsize}
        dims = [name for name in AXES if name != axis]
        return values, _about(found, variable, box, dims, found.cellsize) | told

    def block(self, source: Source, variable: str, box: int, most: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """A whole box in at most ``most`` cells along a side: means of what is known, (x, y, z) or (3, x, y, z)."""
        if variable == "velocity_flag":
            raise Problem(422, "flags have no mean: variable=velocity_flag", "ask for slices of it")
        found = self.box(source, variable, box)
        step = -(-found.values.shape[-1] // most)
        return coarse(found.values, step), _about(found, variable, box, list(AXES), found.cellsize * step)

    def box(self, source: Source, variable: str, box: int) -> Box:
        """One box of a variable; read if it is not kept. One at a time: memory stays bounded."""
        where = source.where()
        if variable not in where:
            raise Problem(404, f"no such variable here: variable={variable}", f"choose {', '.join(sorted(where))}")
        url, name = where[variable]
        key = (url, store.document_hash(url), variable, box)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                self._kept[key] = self._read(url, name, variable, box, made=url == source.made)
                while sum(kept.values.nbytes for kept in self._kept.values()) > self.kept_bytes and len(self._kept) > 1:
                    self._kept.popitem(last=False)
            return self._kept[key]

    def _read(self, url: str, name: str, variable: str, box: int, *, made: bool) -> Box:
        with _opened(url, made=made) as ds:
            if box >= ds.sizes["box"]:
                raise Problem(422, f"no such box: box={box}, boxes={ds.sizes['box']}", "choose one that is there")
            if (cells := ds.sizes["x"] ** 3) > self.most_cells:
                raise Problem(
                    413, f"boxes too large to look at: cells={cells}, limit={self.most_cells}", "read the store itself"
                )
            one = ds.isel(box=[box])  # what it divides by is an attribute of the whole store
            field = one.velfield.overdensity(name) if variable in CONTRASTS else one[name]
            values = np.ascontiguousarray(one.velfield.core(field).values[0], dtype="<f4")
            low, high = span(values)
            return Box(
                values=values,
                units=str(field.attrs.get("units", "1")),
                low=low,
                high=high,
                cellsize=float(ds.attrs["cellsize"]),
                origin=[float(x) for x in ds["origin"].values[box]],
                meanings=str(field.attrs.get("flag_meanings", "")).split(),
            )


def coarse(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means over cubes of ``step``³ cells of the last three axes, the last cubes being what is left.

    Cells that are NaN do not count; where nothing is known the mean is NaN.
    """
    if step == 1:
        return values
    known = np.isfinite(values)
    total: NDArray[Any] = np.where(known, values, 0).astype(np.float64)
    count: NDArray[Any] = known.astype(np.float64)
    for axis in (-3, -2, -1):
        edges = np.arange(0, values.shape[axis], step)
        total, count = np.add.reduceat(total, edges, axis=axis), np.add.reduceat(count, edges, axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype("<f4")


def span(values: NDArray[np.float32]) -> tuple[float, float]:
    """How far values reach: their `SPAN`; of a vector field 0 and the same of its length. 0 and 0 if all are NaN."""
    flat = values.reshape(3, -1) if values.ndim == 4 else values.reshape(1, -1)
    flat = flat[:, :: -(-flat.shape[1] // SAMPLE)]
    size = np.sqrt(np.square(flat, dtype=np.float64).sum(axis=0)) if len(flat) == 3 else flat[0]
    size = size[np.isfinite(size)]
    if not size.size:
        return 0.0, 0.0
    low, high = np.percentile(size, SPAN)
    return (0.0 if len(flat) == 3 else float(low)), float(high)


def _opened(url: str, *, made: bool) -> xr.Dataset:
    return store.open_velocity(url, chunks=None) if made else store.open_fields(url, chunks=None)


def _about(found: Box, variable: str, box: int, dims: list[str], cellsize: float) -> dict[str, Any]:
    told: Mapping[str, Any] = {"meanings": found.meanings} if found.meanings else {}
    return {
        "variable": variable,
        "units": found.units,
        "box": box,
        "dims": (["component"] if found.values.ndim == 4 else []) + dims,
        "cellsize": cellsize,
        "side": found.values.shape[-1] * found.cellsize,
        "origin": found.origin,
        "low": found.low,
        "high": found.high,
        **told,
    }
