"""What a training or a prediction needs to know of a field store, as plain values; and whether stores go together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from velfield.errors import StoreError, VelfieldError
from velfield.geometry import symmetry
from velfield.physics.condition import Condition
from velfield.physics.cosmology import Cosmology
from velfield.stores import sight
from velfield.stores.coordinates import as_written
from velfield.stores.halo_bias import halo_density, least_mass
from velfield.stores.store import INPUTS, cosmology_of, open_fields
from velfield.stores.store_layout import TRUTHS, unit_of_today

# what stores of one training must share; a model tells which of these an input does not share with its training
SHARED = ("cellsize", "cells", "margin", "redshift", "cosmology", "rsd", "observer_per_box", "min_mass", "assignment")


WEIGHTS = {"mass_overdensity": "mass", "number_overdensity": "number", "matter_overdensity": None}  # of their bias
CONDITIONED = ("redshift", "min_mass")  # these need not be shared by the stores of a conditioned network


UNITS = {"min_mass": " h⁻¹M⊙", "density": " halos in a (h⁻¹Mpc)³"}  # of what stores differ in, for people


AVERAGES = (1, 8, 16, 48)  # orientations that a prediction may be averaged over


@dataclass(frozen=True, kw_only=True)
class FieldSource:
    """A field store: plain values, so that worker processes can be given it.

    Parameters
    ----------
    url, fingerprint : str
        Where it is, and the hash of what made it.
    parents : tuple of str
        Fingerprints of the universes its boxes are cut from.
    split : tuple of str
        For each box ``train`` or ``validation``.
    means : dict
        The parent's mean per cell of each variable that has one.
    described : dict
        What the stores of one training must share, and the units of the inputs.
    condition : Condition, optional
        What a conditioned network is told of it.
    """

    url: str
    fingerprint: str
    parents: tuple[str, ...]
    split: tuple[str, ...]
    means: dict[str, float]
    described: dict[str, Any]
    condition: Condition | None = None


def describe(ds: xr.Dataset, inputs: Sequence[str]) -> dict[str, Any]:
    """What `SHARED` names, and the unit of each input, as plain values; refuses inputs that the store cannot give."""
    described = {name: _plain(name, ds.attrs[name]) for name in SHARED} | {"rsd": sight.seen(ds)}
    for kind in inputs:
        nothing = ds.isel(box=slice(0, 0))  # no data are read
        described[f"units of {kind}"] = str(nothing.velfield.input(kind).attrs["units"])
    return described


def condition_of(ds: xr.Dataset, inputs: Sequence[str]) -> Condition:
    """The condition of a field store, from its metadata alone; refuses one without halos, and densities as inputs."""
    cosmology, z = cosmology_of(ds), float(ds.attrs["redshift"])
    min_mass, growth = least_mass(ds, cosmology), cosmology.growth(z)
    return Condition(
        redshift=z,
        min_mass=min_mass,
        density=halo_density(ds),
        growth=growth,
        inputs=tuple(_bias(cosmology, kind, min_mass, z) * growth * cosmology.sigma8 for kind in inputs),
        velocity=float(cosmology.aH(z)) * cosmology.growth_rate(z) * growth * cosmology.sigma8,
    )


def _bias(cosmology: Cosmology, kind: str, min_mass: float, z: float) -> float:
    if kind not in WEIGHTS:
        raise VelfieldError(
            f"not an input of a conditioned network: input={kind}; linear theory does not say its scale: choose "
            f"{', '.join(WEIGHTS)}"
        )
    weight = WEIGHTS[kind]
    return 1.0 if weight is None else cosmology.effective_bias(min_mass, z, weight=weight)


def open_source(url: str, inputs: Sequence[str], *, condition: bool = False) -> FieldSource:
    """Read what is needed of a field store; refuses one without truth or without an input.

    With ``condition`` its condition is worked out, and what it stands for is not among what stores must share.
    """
    ds = as_written(open_fields(url, chunks=None))
    if "velocity" not in ds:
        raise StoreError(f"the store has no velocity to learn from: store={url}; paint it again with --particles")
    return FieldSource(
        url=url,
        fingerprint=str(ds.attrs["fingerprint"]),
        parents=tuple(sorted({str(p) for p in ds["parent"].values})),
        split=tuple(str(s) for s in ds["split"].values),
        means={str(name): float(v.attrs["mean"]) for name, v in ds.data_vars.items() if "mean" in v.attrs},
        described={n: v for n, v in describe(ds, inputs).items() if not (condition and n in CONDITIONED)},
        condition=condition_of(ds, inputs) if condition else None,
    )


def open_sources(urls: Sequence[str], inputs: Sequence[str], *, condition: bool = False) -> list[FieldSource]:
    """Open several stores for one training; refuses stores that differ in what they must share."""
    unknown = [kind for kind in inputs if kind not in INPUTS]
    if unknown or not inputs or len(set(inputs)) < len(inputs):
        raise VelfieldError(f"no such inputs: inputs={','.join(inputs)}; choose some of {', '.join(INPUTS)}, each once")
    if not urls:
        raise VelfieldError("no field store given: fields=0; name at least one that velfield paint made")
    sources = [open_source(url, inputs, condition=condition) for url in urls]
    first = sources[0]
    for number, other in enumerate(sources[1:], start=1):
        for same in sources[:number]:
            if same.fingerprint == other.fingerprint:
                raise StoreError(f"the same store twice: store={same.url}, store={other.url}; name each once")
        for name, value in differing(first.described, other.described).items():
            raise StoreError(
                f"stores do not go together: {name}={value[0]} in {first.url}, {name}={value[1]} in {other.url}; "
                f"paint them alike, or train on one of them{' (or with --condition)' if name in CONDITIONED else ''}"
            )
    return sources


def boxes_of(sources: Sequence[FieldSource], split: str) -> list[tuple[int, int]]:
    """(number of the store, number of the box in it) of every box of a split."""
    return [(n, box) for n, source in enumerate(sources) for box, s in enumerate(source.split) if s == split]


def symmetries_of(sources: Sequence[FieldSource]) -> tuple[symmetry.Symmetry, ...]:
    """What leaves the statistics of the boxes as they are.

    A line of sight along one axis of all boxes leaves 16. An observer elsewhere leaves all 48, as the network is not
    told where the observer is: a turned box is what another observer sees of a turned universe.
    """
    return _symmetries(str(sources[0].described["rsd"]), "train without augmentation")


def symmetries_of_boxes(ds: xr.Dataset, count: int) -> tuple[symmetry.Symmetry, ...]:
    """The first ``count`` of the symmetries that `symmetries_of` would give for boxes of a field store.

    1 is the identity, 8 are the mirror images, 16 are also turned about one axis (the line of sight's, where there is
    one), 48 are all; each set is a group. Refuses other numbers, and 48 where there is a line of sight.
    """
    if count == 1:
        return symmetry.CUBE[:1]
    found = _symmetries(sight.seen(ds), "predict without averaging")
    sizes = [n for n in AVERAGES if n <= len(found)]
    if count not in sizes:
        raise VelfieldError(
            f"no such number of orientations: average={count}, rsd={sight.seen(ds)}; "
            f"choose {', '.join(map(str, sizes))}"
        )
    return found[:count]


def _symmetries(seen: str, instead: str) -> tuple[symmetry.Symmetry, ...]:
    if not sight.is_along(seen):
        return symmetry.CUBE
    axis = sight.axis(seen)
    if axis is None:
        raise VelfieldError(
            f"no symmetry keeps the line of sight: rsd={seen}; paint the boxes with one along an axis, or {instead}"
        )
    return symmetry.keeping_line_of_sight(axis)


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Entries of ``one`` that ``other`` has otherwise.

    Numbers are compared to 1e-6, as sizes are quotients; of redshift space its `velfield.stores.sight.kind`, as halos
    that were observed along an axis are seen as those that were moved along it.
    """
    return {name: (v, other.get(name)) for name, v in one.items() if not _same(name, v, other.get(name))}


def sentences(differences: Mapping[str, tuple[Any, Any]], store: str) -> list[str]:
    """A sentence for each of `velfield.network.model.Model.differences`; ``store`` is what people call the store."""
    return [
        f"the model was trained at {name}={_short(models)}, {store} has {name}={_short(stores)}{UNITS.get(name, '')}"
        for name, (models, stores) in differences.items()
    ]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _same(name: str, a: Any, b: Any) -> bool:
    if name == "rsd" and isinstance(b, str):
        return sight.kind(a) == sight.kind(b)
    if isinstance(a, float) and isinstance(b, (int, float)):
        return bool(np.isclose(a, b, rtol=1e-6, atol=0))
    if isinstance(a, str) and isinstance(b, str):  # units: those of an older bundle may be written in another way
        return unit_of_today(a) == unit_of_today(b)
    return bool(a == b)


def _plain(name: str, value: Any) -> Any:
    if name == "cosmology":  # its name is only a name
        return {k: v for k, v in json.loads(value).items() if k != "name"}
    if name in TRUTHS:
        return bool(value)
    return value.item() if isinstance(value, np.generic) else value
