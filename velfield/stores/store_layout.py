"""What a field store and a velocity store hold and say of themselves: their schema (docs/store.md).

With `velfield.stores.store`, which writes and opens them, the only module that names variables, coordinates and
attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.files.shards import Coordinate, Layout, Variable
from velfield.geometry.boxes import BoxLayout, split
from velfield.physics.cosmology import Cosmology
from velfield.physics.redshift_space import Sightlines, sightlines
from velfield.version import __version__

SCHEMA = 1
COMPONENTS = np.array(["x", "y", "z"], dtype=object)
PAINTED = {  # what is painted of which catalogue, and which of its sums
    "halo_mass": ("halos", "mass"),
    "halo_number": ("halos", "number"),
    "matter_number": ("particles", "number"),
}
SIGHT = ("observer", "line_of_sight")  # attributes, where they were given
PLAIN = ("redshift", "periodic", "rsd", "observer_per_box", "min_mass", "assignment", "seed", "fingerprint")
TRUTHS = ("periodic", "observer_per_box")  # attributes that are 0 or 1, as NetCDF knows no booleans
VARIABLES = (*PAINTED, "velocity", "velocity_flag", "velocity_std")
# attributes that a velocity store takes from the field store that it was predicted from
OF_THE_FIELDS = ("cosmology", "redshift", "boxsize", "boxes", "cells", "cellsize", "periodic", "rsd", "min_mass")
# what astropy reads with `astropy.cosmology.units` enabled: to it, Mpc/h is a megaparsec in an hour (docs/store.md)
LENGTH, MASS, SPEED = "Mpc / littleh", "solMass / littleh", "km/s"
DENSITIES = {"1": "littleh3 / Mpc3", MASS: "solMass littleh2 / Mpc3"}  # a variable's unit: its own in a volume
EARLIER_UNITS = {  # of stores and bundles that are older: the same, as it is written today
    "Mpc/h": LENGTH,
    "Msun/h": MASS,
    "h3 Mpc-3": DENSITIES["1"],
    "Msun/h h3 Mpc-3": DENSITIES[MASS],
}
VELOCITY_ATTRS = {
    "units": SPEED,
    "long_name": "proper peculiar velocity of the dark matter, mean per cell, real space",
}
PREDICTED = {  # what a velocity store may hold
    "velocity": VELOCITY_ATTRS,
    "velocity_std": {"units": SPEED, "long_name": "error bar of velocity, half of its central 68 % interval"},
}
COORDINATES = {
    **{x: {"units": LENGTH, "long_name": f"{x} of the cell centre from the box's corner"} for x in ("x", "y", "z")},
    "component": {"long_name": "component of a velocity along the parent's axis"},
    "axis": {"long_name": "axis of the parent"},
    "origin": {"units": LENGTH, "long_name": "the box's corner"},
    "line_of_sight": {"units": "1", "long_name": "unit vector away from the observer"},
    "observer": {"units": LENGTH, "long_name": "position of the observer"},
    "split": {"long_name": "what a training takes the box for"},
    "parent": {"long_name": "universe that the box is cut from"},
}
LACKED = {  # by stores that are older
    **dict.fromkeys(("component", "axis", "split", "parent"), ("long_name",)),
    "line_of_sight": ("units",),
}
# velocity_flag of a velocity store: one of three, and bits beside it
KNOWN, EDGE, OUTSIDE, KNOWLEDGE = 0, 1, 2, 3  # KNOWLEDGE masks the three
IMPLAUSIBLE, EMPTY = 4, 8
PREDICTED_FLAG = {
    "long_name": "what is known of the cell, and whether its velocity can be right",
    "flag_masks": [KNOWLEDGE, KNOWLEDGE, KNOWLEDGE, IMPLAUSIBLE, EMPTY],
    "flag_values": [KNOWN, EDGE, OUTSIDE, IMPLAUSIBLE, EMPTY],
    "flag_meanings": "known context_outside_parent outside_parent implausible no_tracer_around",
}
FIRST_FLAG = {  # of stores that do not say what was looked at
    "long_name": "what the input knows of the cell",
    "flag_values": [KNOWN, EDGE, OUTSIDE],
    "flag_meanings": "known context_outside_parent outside_parent",
}
LOOKED = ("checks", "implausible")  # attributes of the root: what was found, and why it was accepted


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """Everything that a field store says about itself besides its data.

    Parameters
    ----------
    boxes : BoxLayout
        How the parent is cut.
    periodic : bool
        Whether the parent is.
    rsd : str
        One of `velfield.physics.redshift_space.PATTERNS`.
    line_of_sight, observer : ndarray (nbox, 3), optional
        Unit vectors, or observers' positions in the parent [h⁻¹Mpc].
    given : mapping
        What of these does not follow from pattern and seed: `velfield.physics.redshift_space.Sightlines.given`.
    min_mass : float
        Halos below it [h⁻¹M⊙] were left out; 0 keeps all.
    split : sequence of str
        For each box ``train`` or ``validation``.
    parent : str
        The universe: the same for all its snapshots, where that is known; else the fingerprint of the catalogue.
    inputs : mapping
        By ``halos`` and ``particles``: URL, rows, bytes and fingerprint of each catalogue.
    means : mapping
        The parent's mean per cell of each painted count or mass; its keys say which variables there are.
    totals : mapping
        Rows and sums that were read and painted.
    fingerprint : str
        Hash of settings, inputs and schema.
    """

    boxes: BoxLayout
    cosmology: Cosmology
    redshift: float
    periodic: bool
    rsd: str
    observer_per_box: bool
    line_of_sight: NDArray[np.float64] | None
    observer: NDArray[np.float64] | None
    min_mass: float
    assignment: str
    seed: int
    split: Sequence[str]
    parent: str
    inputs: Mapping[str, Any]
    means: Mapping[str, float]
    totals: Mapping[str, Any]
    fingerprint: str
    given: Mapping[str, Any] = field(default_factory=dict)


def field_layout(spec: FieldSpec) -> Layout:
    """The Zarr layout of a field store."""
    return Layout(
        nbox=spec.boxes.nbox, variables=_field_variables(spec), coords=_field_coords(spec), attrs=_field_attrs(spec)
    )


def means_of(totals: Mapping[str, Any], boxes: BoxLayout) -> dict[str, float]:
    """The parent's mean per cell of each painted count or mass, from the sums of the catalogues."""
    return {
        name: totals[kind]["sums"][quantity] / boxes.ngrid**3
        for name, (kind, quantity) in PAINTED.items()
        if quantity in totals.get(kind, {}).get("sums", {})
    }


def sightlines_of_attributes(attrs: Mapping[str, Any], boxes: BoxLayout) -> Sightlines:
    """From where the boxes of a field store are seen, by its root attributes."""
    along = attrs.get("line_of_sight")
    return sightlines(
        attrs["rsd"],
        boxes,
        seed=attrs["seed"],
        observer_per_box=attrs["observer_per_box"],
        observer=attrs.get("observer"),
        line_of_sight=None if along == "unknown" else along,
    )


def spec_of_attributes(attrs: Mapping[str, Any], validation: int) -> FieldSpec:
    """What a field store's root attributes say of it: all that follows from them is made anew.

    ``validation`` is the number of boxes set apart. Attributes that make no sense raise what
    `velfield.errors.SENSELESS` names.
    """
    boxes = BoxLayout(boxsize=attrs["boxsize"], boxes=attrs["boxes"], cells=attrs["cells"], margin=attrs["margin"])
    sight = sightlines_of_attributes(attrs, boxes)
    inputs, totals = json.loads(attrs["inputs"]), json.loads(attrs["totals"])
    return FieldSpec(
        boxes=boxes,
        cosmology=Cosmology.from_dict(json.loads(attrs["cosmology"])),
        line_of_sight=sight.line_of_sight,
        observer=sight.observer,
        given=sight.given,
        split=split(boxes.nbox, validation, attrs["seed"]),
        # stores made before it was an attribute are only right about it where no simulation's record gave it
        parent=attrs.get("parent") or (inputs.get("particles") or inputs["halos"])["fingerprint"],
        inputs=inputs,
        totals=totals,
        means=means_of(totals, boxes),
        **{name: attrs[name] for name in PLAIN},
    )


def unit_of_today(text: str) -> str:
    """A unit of ours as it is written today; any other as it is."""
    return EARLIER_UNITS.get(text, text)


def attributes_of_today(name: str, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of an array of a store, which may be an older one, as they are written today."""
    made = {lacked: COORDINATES[name][lacked] for lacked in LACKED.get(name, ())} | dict(attrs)
    return made | ({"units": unit_of_today(made["units"])} if "units" in made else {})


def velocity_layout(
    fields: xr.Dataset,
    *,
    model: Mapping[str, Any],
    source: str,
    fingerprint: str,
    prediction: Mapping[str, Any] | None = None,
    looked: Mapping[str, Any] | None = None,
) -> Layout:
    """The Zarr layout of the velocity store that a model makes from ``fields``, on the coordinates of its cores.

    ``prediction`` says how it is made; older stores have none, and no flags. ``looked`` are attributes of `LOOKED` as
    far as they are known; older stores have none, and fewer flags.
    """
    core = fields.velfield.core(fields)
    n = core.sizes["x"]
    coords = {
        str(name): Coordinate(dims=tuple(map(str, c.dims)), values=c.values, attrs=dict(c.attrs))
        for name, c in core.coords.items()
        if name != "box"  # follows from the place in the store
    }
    kept = (*OF_THE_FIELDS, *(name for name in SIGHT if name in fields.attrs))
    attrs = {name: fields.attrs[name] for name in kept} | {
        "velfield_schema": SCHEMA,
        "velfield_kind": "velocity",
        "velfield_version": __version__,
        "margin": 0,
        "model": json.dumps(dict(model)),
        "input": source,
        "input_fingerprint": fields.attrs["fingerprint"],
        "fingerprint": fingerprint,
        "Conventions": "CF-1.11",
    }
    if prediction is not None:
        attrs["prediction"] = json.dumps(dict(prediction))
    flag = None if prediction is None else FIRST_FLAG if looked is None else PREDICTED_FLAG
    variables = _predicted_variables(n, model, flag)
    attrs |= looked or {}
    return Layout(nbox=core.sizes["box"], variables=variables, coords=coords, attrs=attrs)


def bare_velocity_layout(attrs: Mapping[str, Any]) -> Layout:
    """What a velocity store's own attributes tell of its layout: no sightlines, split or parents, which its input has.

    Attributes that make no sense raise KeyError, TypeError, ValueError or VelfieldError.
    """
    boxes = BoxLayout(boxsize=attrs["boxsize"], boxes=attrs["boxes"], cells=attrs["cells"])
    derived = {"velfield_schema": SCHEMA, "velfield_kind": "velocity", "cellsize": boxes.cellsize}
    return Layout(
        nbox=boxes.nbox,
        variables=_predicted_variables(boxes.shape[0], json.loads(attrs["model"]), flag_of(attrs)),
        coords=_box_coords(boxes),
        attrs=dict(attrs) | derived | {"Conventions": "CF-1.11"},
    )


def looked_of(attrs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a velocity store's attributes have of `LOOKED`; None of an older store."""
    return {name: attrs[name] for name in LOOKED if name in attrs} if LOOKED[0] in attrs else None


def flag_of(attrs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What ``velocity_flag`` says of itself in a velocity store with these attributes; None where there is none."""
    if "prediction" not in attrs:
        return None
    return FIRST_FLAG if looked_of(attrs) is None else PREDICTED_FLAG


def _predicted_variables(n: int, model: Mapping[str, Any], flag: Mapping[str, Any] | None) -> dict[str, Variable]:
    """Variables of a velocity store with ``n`` cells along a side; ``model`` says whether it has error bars."""
    names = ("velocity", "velocity_std") if model.get("error_bars") else ("velocity",)
    variables = {
        name: Variable(dims=("component", "x", "y", "z"), shape=(3, n, n, n), dtype="float32", attrs=PREDICTED[name])
        for name in names
    }
    if flag is not None:
        variables["velocity_flag"] = Variable(dims=("x", "y", "z"), shape=(n, n, n), dtype="uint8", attrs=flag)
    return variables


def _field_variables(spec: FieldSpec) -> dict[str, Variable]:
    dims, shape = ("x", "y", "z"), spec.boxes.shape
    known = {
        "halo_mass": (MASS, "halo mass per cell"),
        "halo_number": ("1", "number of halos per cell"),
        "matter_number": ("1", "number of dark-matter particles per cell, real space"),
    }
    variables = {
        name: Variable(
            dims=dims,
            shape=shape,
            dtype="float32",
            attrs={"units": units, "long_name": text, "mean": float(spec.means[name])},
        )
        for name, (units, text) in known.items()
        if name in spec.means
    }
    if "matter_number" in spec.means:
        variables["velocity"] = Variable(
            dims=("component", *dims), shape=(3, *shape), dtype="float32", attrs=VELOCITY_ATTRS
        )
        flags = {
            "long_name": "where the velocity comes from",
            "flag_values": [0, 1, 2],
            "flag_meanings": "measured from_neighbours outside_parent",
        }
        variables["velocity_flag"] = Variable(dims=dims, shape=shape, dtype="uint8", attrs=flags)
    return variables


def _box_coords(boxes: BoxLayout) -> dict[str, Coordinate]:
    coords = {name: _coordinate(name, (name,), boxes.cell_centres()) for name in ("x", "y", "z")}
    coords |= {name: _coordinate(name, (name,), COMPONENTS) for name in ("component", "axis")}
    origin = np.array([boxes.origin(b) for b in range(boxes.nbox)])
    return coords | {"origin": _coordinate("origin", ("box", "axis"), origin)}


def _field_coords(spec: FieldSpec) -> dict[str, Coordinate]:
    coords = _box_coords(spec.boxes)
    for name, seen in (("line_of_sight", spec.line_of_sight), ("observer", spec.observer)):
        if seen is not None:
            coords[name] = _coordinate(name, ("box", "axis"), seen)
    for name, each in (("split", list(spec.split)), ("parent", [spec.parent] * spec.boxes.nbox)):
        coords[name] = _coordinate(name, ("box",), np.array(each, dtype=object))
    return coords


def _coordinate(name: str, dims: tuple[str, ...], values: NDArray[Any]) -> Coordinate:
    return Coordinate(dims=dims, values=values, attrs=COORDINATES[name])


def _field_attrs(spec: FieldSpec) -> dict[str, Any]:
    boxes = spec.boxes
    return {
        "velfield_schema": SCHEMA,
        "velfield_kind": "fields",
        "velfield_version": __version__,
        "cosmology": json.dumps(spec.cosmology.to_dict()),
        "redshift": float(spec.redshift),
        "boxsize": float(boxes.boxsize),
        "boxes": boxes.boxes,
        "cells": boxes.cells,
        "cellsize": boxes.cellsize,
        "margin": boxes.margin,
        "periodic": int(spec.periodic),
        "rsd": spec.rsd,
        **spec.given,
        "observer_per_box": int(spec.observer_per_box),
        "min_mass": float(spec.min_mass),
        "assignment": spec.assignment,
        "seed": spec.seed,
        "parent": spec.parent,
        "inputs": json.dumps(dict(spec.inputs)),
        "totals": json.dumps(dict(spec.totals)),
        "fingerprint": spec.fingerprint,
        "Conventions": "CF-1.11",
    }
