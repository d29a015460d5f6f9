"""Planes and coarse cubes of a job's or a store's fields, for who looks at them: of one box, or of the whole parent.

What was looked at last is kept, as pictures: planes and cubes of few cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.answers.cells import shared
from velfield.files import shards
from velfield.service import measured
from velfield.service.kept import Kept
from velfield.service.problems import Problem
from velfield.service.volumes import Together, Volume, span, stretches
from velfield.stores import store
from velfield.stores.coordinates import AXES, as_written
from velfield.theory.whole import layout_of

KEPT_BYTES = 2**28  # of pictures that were looked at
COARSEST, FINEST = 2, 64  # cells along a side of a coarse cube
FEWEST, MOST = 16, 256  # pixels along a side of a plane
CONTRASTS = {f"{name}_overdensity": name for name in ("halo_number", "halo_mass", "matter_number")}
ANSWERED = ("velocity", "velocity_std", "velocity_flag", "velocity_truth", "velocity_error", *CONTRASTS)
TOGETHER: dict[str, Together] = {"velocity_std": "rms", "velocity_error": "rms", "velocity_flag": "highest"}


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

    def version(self) -> str:
        """Another one once another store lies there."""
        return " ".join(store.document_hash(url) for url in (self.fields, self.made) if url is not None)


class Opened:
    """A source's stores, open: what clients may ask for, by the names that they use."""

    def __init__(self, source: Source) -> None:
        self.fields = None if source.fields is None else as_written(store.open_fields(source.fields, chunks=None))
        self.made = None if source.made is None else as_written(store.open_velocity(source.made, chunks=None))
        self.main: xr.Dataset = self.made if self.made is not None else self.fields  # type: ignore[assignment]
        self.variables: dict[str, list[tuple[xr.Dataset, str]]] = {}  # whose difference it is, if there are two
        if self.fields is not None:
            there = {str(name) for name in self.fields.data_vars}
            self.variables |= {shown: [(self.fields, name)] for shown, name in CONTRASTS.items() if name in there}
            if "velocity" in there:
                self.variables["velocity" if self.made is None else "velocity_truth"] = [(self.fields, "velocity")]
            if "velocity_flag" in there:
                self.variables["velocity_flag"] = [(self.fields, "velocity_flag")]
        if self.made is not None:
            there = {str(name) for name in self.made.data_vars}
            self.variables |= {name: [(self.made, name)] for name in sorted(there & set(ANSWERED))}
            if "velocity_truth" in self.variables:
                self.variables["velocity_error"] = [(self.made, "velocity"), *self.variables["velocity_truth"]]

    @functools.cached_property
    def whole(self) -> bool:
        """Whether the boxes fill their parent, in order."""
        layout = layout_of(self.main)
        places = np.rint(np.asarray(self.main["origin"].values) / layout.side).astype(int)
        return np.array_equal(places, np.indices((layout.boxes,) * 3).reshape(3, -1).T)

    @functools.cached_property
    def joined(self) -> bool:
        """Whether all boxes are seen in one way, so that what is in redshift space goes on from one to the next."""
        seen = [self.main[name].values for name in ("observer", "line_of_sight") if name in self.main.coords]
        return all(bool((one == one[:1]).all()) for one in seen)

    def volume(self, variable: str, box: int | None) -> Volume:
        """A variable in one box, or in the whole parent."""
        if variable not in self.variables:
            choose = ", ".join(sorted(self.variables))
            raise Problem(404, f"no such variable here: variable={variable}", f"choose {choose}")
        of, layout = self.variables[variable], layout_of(self.main)
        if box is None:
            if not self.whole:
                raise Problem(422, "the boxes are not one whole: box is not given", "choose a box")
            numbers = np.arange(layout.nbox).reshape((layout.boxes,) * 3)
        elif box >= self.main.sizes["box"]:
            raise Problem(422, f"no such box: box={box}, boxes={self.main.sizes['box']}", "choose one that is there")
        else:
            numbers = np.full((1, 1, 1), box)
        ds, name = of[0]
        chunks = [tuple(one[name].encoding["preferred_chunks"].values()) for one, name in of]
        return Volume(
            read=_reader(variable, of),
            numbers=numbers,
            along=stretches(len(numbers), layout.cells, layout_of(ds).margin, chunks[0][-1]),
            components=3 if "component" in ds[name].dims else 1,
            unpacked=sum(int(np.prod(one)) * ds[name].dtype.itemsize for one in chunks),
            together=TOGETHER.get(variable, "mean"),
        )

    def about(self, variable: str, box: int | None, step: int, dims: list[str]) -> dict[str, Any]:
        """What an array means, for its head."""
        ds, name = self.variables[variable][0]
        attrs, layout = ds[name].attrs, layout_of(self.main)
        meanings = str(attrs.get("flag_meanings", "")).split()
        side, origin = (layout.boxsize, np.zeros(3)) if box is None else (layout.side, self.main["origin"].values[box])
        return {
            "variable": variable,
            "units": "1" if variable in CONTRASTS else str(attrs.get("units", "1")),
            "box": box,
            "dims": ["component"] * ("component" in ds[name].dims) + dims,
            "step": step,
            "cellsize": layout.cellsize * step,
            "side": side,
            "origin": [float(x) for x in origin],
            **({"meanings": meanings} if meanings else {}),
        }


class Slices:
    """Pictures of stores; safe to be used by several threads."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.kept = Kept(kept_bytes)

    def about(self, source: Source) -> dict[str, Any]:
        """What there is to look at: variables, boxes, cells, and where the boxes lie."""
        opened = _opened(source, source.version())
        ds = opened.main
        seen = {name: shared(ds, name) for name in ("observer", "line_of_sight")}
        return {
            "variables": sorted(opened.variables),
            "boxes": ds.sizes["box"],
            "whole": opened.whole,
            "joined": opened.joined,
            "cells": int(ds.attrs["cells"]),
            "cellsize": float(ds.attrs["cellsize"]),
            "boxsize": float(ds.attrs["boxsize"]),
            "redshift": float(ds.attrs["redshift"]),
            "rsd": str(ds.attrs["rsd"]),
            "split": [str(one) for one in ds["split"].values] if "split" in ds.coords else [],
            **{name: None if one is None else one.tolist() for name, one in seen.items()},
        }

    def plane(
        self, source: Source, variable: str, box: int | None, axis: str, index: int, most: int = MOST
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Cells in the plane ``axis = index``, in at most ``most``² pixels: (a, b) or (3, a, b), and what they mean.

        Without a box of the whole parent. A pixel is the mean of the cells that it stands for; of error bars and errors
        the root of their mean square, of flags the highest.
        """
        opened = _opened(source, version := source.version())
        volume, normal = opened.volume(variable, box), AXES.index(axis)
        if not 0 <= index < volume.ngrid:
            last = volume.ngrid - 1
            raise Problem(422, f"no such plane: index={index}, cells={volume.ngrid}", f"choose 0 to {last}")
        step = -(-volume.ngrid // most)
        first, end = volume.layer(index, step)
        key = version, variable, box, step
        planes = self.kept.get((*key, axis, first), lambda: volume.planes(normal, first, end, step))
        low, high = self.kept.get((*key, "span"), lambda: volume.span(step))
        told = opened.about(variable, box, step, [name for name in AXES if name != axis])
        position = (index + 0.5) * layout_of(opened.main).cellsize
        told |= {"axis": axis, "index": index, "position": position, "low": float(low), "high": float(high)}
        return planes.take(index - first, axis=normal - 3), told

    def measures(self, source: Source, box: int | None) -> dict[str, Any]:
        """How near velocities are to the truth, and how large each is: see `velfield.service.measured`."""
        opened = _opened(source, version := source.version())
        rows = self.kept.get((version, "measures", box), lambda: measured.rows(opened, box))
        boxes = opened.main.sizes["box"] if box is None else 1
        return {"truth": "velocity_truth" in opened.variables, "boxes": boxes, **measured.summary(rows)}

    def block(self, source: Source, variable: str, box: int | None, most: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """A box or the whole parent in at most ``most`` cells along a side: (x, y, z) or (3, x, y, z)."""
        if variable == "velocity_flag":
            raise Problem(422, "flags have no mean: variable=velocity_flag", "ask for slices of it")
        opened = _opened(source, version := source.version())
        volume = opened.volume(variable, box)
        step = -(-volume.ngrid // most)
        made = self.kept.get((version, variable, box, step, "block"), lambda: volume.coarse(step))
        low, high = span(made.reshape(volume.components, -1))
        return made, opened.about(variable, box, step, list(AXES)) | {"low": low, "high": high}


def _kinds(flag: xr.DataArray) -> NDArray[np.uint8]:
    """Flags with bits as places in their meanings: of a cell the last that holds."""
    values = np.asarray(flag.values)
    found = np.full(values.shape, 255, dtype=np.uint8)
    for place, (mask, value) in enumerate(zip(flag.attrs["flag_masks"], flag.attrs["flag_values"], strict=True)):
        found[values & mask == value] = place
    return found


@functools.lru_cache(maxsize=8)
def _opened(source: Source, version: str) -> Opened:  # noqa: ARG001
    """The stores of a source, as they are at a version; the latest few stay open."""
    return Opened(source)


def _reader(variable: str, of: list[tuple[xr.Dataset, str]]) -> Callable[[int, tuple[slice, ...]], NDArray[np.float32]]:
    """Reads cells of a box, counted from its corner; of two variables how far they are apart."""

    def one(ds: xr.Dataset, name: str, box: int, cells: tuple[slice, ...]) -> NDArray[np.float32]:
        margin = layout_of(ds).margin
        cut = {dim: slice(margin + c.start, margin + c.stop) for dim, c in zip(AXES, cells, strict=True)}
        part = ds[name].isel(cut | {"box": box})
        field = store.contrast(part) if variable in CONTRASTS else part
        values = field.values if "flag_masks" not in field.attrs else _kinds(field)
        return np.asarray(values, dtype="<f4")

    def read(box: int, cells: tuple[slice, ...]) -> NDArray[np.float32]:
        first, *other = [one(ds, name, box, cells) for ds, name in of]
        return np.abs(first - other[0]) if other else first

    return read
