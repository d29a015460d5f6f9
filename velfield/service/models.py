"""Models that are served: loaded once, asked one cube at a time."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.files import shipped
from velfield.network.model import Model, load_model
from velfield.service.problems import Problem
from velfield.stores.sources import sentences
from velfield.stores.store import INPUTS
from velfield.stores.store_layout import IMPLAUSIBLE
from velfield.theory import plausible

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model, and what the service calls it."""

    name: str
    url: str
    model: Model

    @property
    def weights(self) -> str:
        """Hash of its weights."""
        return str(self.model.metadata["weights"]["sha256"])

    def card(self) -> dict[str, Any]:
        """What a client needs to know of it, as plain values."""
        metadata = self.model.metadata
        trained, ranges = metadata["trained_on"], self.model.normalisation.condition
        of_one = {} if ranges else {"redshift": trained.get("redshift"), "min_mass": trained.get("min_mass")}
        of_many = {"redshift": list(ranges.redshift), "min_mass": list(ranges.min_mass)} if ranges else {}
        return {
            "name": self.name,
            "weights": self.weights,
            "version": metadata["velfield_version"],
            "inputs": {kind: trained[f"units of {kind}"] for kind in self.model.inputs},
            "has_std": self.model.has_std,
            "context": self.model.context,
            "guide": None if self.model.guide is None else self.model.guide.name,
            "conditioned": ranges is not None,
            "cellsize": trained["cellsize"],
            "cells": trained["cells"],
            "rsd": trained["rsd"],
            "assignment": trained["assignment"],
            "cosmology": trained["cosmology"],
            **of_one,
            **of_many,
            "reached": _finite(metadata.get("metrics", {})),
        }

    def predict(
        self, ds: xr.Dataset, accept: Sequence[str] = ()
    ) -> tuple[dict[str, NDArray[Any]], list[str], str | None]:
        """Velocities of the one box of a dataset, what is to be said of it, and why an answer accepted is implausible.

        ``velocity_flag`` is among the arrays where a cell is flagged, as in a velocity store.
        """
        expected = plausible.expected_of(ds, [INPUTS[kind][0] for kind in self.model.inputs])
        looked = plausible.judge_input(ds, expected, plausible.look(ds, [0], expected, self.model.far))
        plausible.refuse(looked.reason, accept)
        made = self.model.predict(ds)
        arrays: dict[str, NDArray[Any]] = {name: made[name].values[0] for name in self.model.variables}
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise Problem(422, "the model has no finite velocities for this", "see whether counts and means are right")
        flag, sums = plausible.flags(ds, 0, arrays["velocity"], expected)
        judged = plausible.judge_velocity(ds, sums)
        plausible.refuse(judged.reason, accept)
        why = plausible.why_of(looked, judged)
        if why is not None:
            flag |= np.uint8(IMPLAUSIBLE)
        notes = [*sentences(self.model.differences(ds), "the cube"), *plausible.notes_of(looked.found)]
        return arrays | ({"velocity_flag": flag} if flag.any() else {}), notes, why


def _finite(values: Any) -> Any:
    """Plain values with None where a number is none: JSON has no NaN."""
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


class Models:
    """All that are served, by name."""

    def __init__(self, served: Sequence[Served]) -> None:
        self.by_name = {one.name: one for one in served}

    def get(self, name: str) -> Served:
        """The model of this name; 404 for another."""
        if name not in self.by_name:
            raise Problem(404, "no such model", f"choose {', '.join(self.by_name)}")
        return self.by_name[name]


def load(given: Sequence[str], device: str = "auto") -> Models:
    """Load bundles; each is ``URL`` or ``NAME=URL``, and is called by the last part of its URL unless it has a name."""
    found: list[Served] = []
    for text in given:
        name, equals, url = text.partition("=")
        if not equals or "/" in name:
            url, name = text, text.rstrip("/").rpartition("/")[2]
        if not NAME.fullmatch(name) or name in {one.name for one in found}:
            raise VelfieldError(
                f"not a name for a model, or one that is taken: name={name!r}, model={url}; give NAME={url} with "
                "letters, digits and _ . -"
            )
        shipped.place(url)
        found.append(Served(name=name, url=url, model=load_model(url, device)))
    if not found:
        raise VelfieldError("no model to serve: models=0; name at least one, as pretrained")
    return Models(found)


class Forward:
    """Forward passes, one after the other, in a thread of their own: side by side they would fight over the cores."""

    def __init__(self, took: Callable[[float], None]) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="velfield-forward")
        self._took = took

    async def run(self, function: Callable[[], Answer]) -> Answer:
        """Wait for the turn of this one, then for its answer."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, function)

    def close(self) -> None:
        """End when the pass at hand has ended."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, function: Callable[[], Answer]) -> Answer:
        began = time.perf_counter()
        try:
            return function()
        finally:
            self._took(time.perf_counter() - began)
