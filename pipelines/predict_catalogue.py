"""A catalogue of halos as a prediction's input: painted beside the result, predicted, and its fields removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client

from velfield.catalogues.catalogue import open_catalogue
from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, storage
from velfield.files.progress import Progress
from velfield.physics.redshift_space import check_pattern
from velfield.pipelines import paint as painting
from velfield.pipelines import paint_job
from velfield.pipelines.predict_job import Job, prepare
from velfield.stores import store, store_layout
from velfield.theory import analytic


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What painting for a model depends on.

    Parameters
    ----------
    identity : str
        Hash of a bundle's weights; of another model its name.
    context : int
        Cells around a box that it needs.
    cellsize, cells : float and int, optional
        Of its training; None where it takes any.
    """

    identity: str
    context: int = 0
    cellsize: float | None = None
    cells: int | None = None


def facts_of(model: str) -> Facts:
    """The facts of a model by its URL or name."""
    if model in analytic.NAMES:
        return Facts(identity=model)
    from velfield.network.model import load_model

    loaded = load_model(model, device="cpu")
    return facts_of_bundle(loaded.metadata, loaded.context)


def facts_of_bundle(metadata: Mapping[str, Any], context: int) -> Facts:
    """The same of a bundle that is open."""
    trained, identity = metadata["trained_on"], str(metadata["weights"]["sha256"])
    if whole := metadata.get("calibration_whole"):  # the same weights with other error bars
        identity = hashlib.sha256(json.dumps([identity, whole], sort_keys=True).encode()).hexdigest()
    return Facts(identity=identity, context=context, cellsize=float(trained["cellsize"]), cells=int(trained["cells"]))


@dataclass(frozen=True, kw_only=True)
class FromCatalogue:
    """A prediction from a catalogue: how it is painted, and what is then asked of the model.

    Parameters
    ----------
    model, out : str
        As in `velfield.pipelines.predict_job.prepare`.
    paint : Job
        The painting that comes first; its store lies beside the result, at ``OUT.fields``.
    options : mapping
        Of the prediction: keywords of `prepare`.
    identity : str
        Of the model, as in `Facts`.
    """

    model: str
    identity: str
    out: str
    paint: paint_job.Job
    options: Mapping[str, Any]

    @property
    def asked_for(self) -> str:
        """Hash of all that fixes the result: by it the store is known once the fields are gone."""
        fixing = {n: v for n, v in self.options.items() if n not in ("batch", "gpu", "accept")}
        said = json.dumps([self.paint.fingerprint, self.identity, fixing], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def finished(self) -> bool:
        """Whether the result is there; whatever else is there is refused."""
        if not shards.published(self.out):
            return False
        prediction = json.loads(store.attributes(self.out).get("prediction", "{}"))
        if prediction.get("asked_for") != self.asked_for:
            raise StoreError(f"another store is here: out={self.out}; name another place, or remove it")
        self.clear()  # of a run that was stopped before it came to this
        return True

    def expected(self) -> tuple[Job, xr.Dataset]:
        """The prediction as it will be, to be planned, and its fields without their values; refuses what will not do.

        All but the fields' means is known before anything is painted; there the halos are counted as if all were
        taken.
        """
        job, boxes = self.paint, self.paint.scene.boxes
        mean = len(job.catalogues["halos"]) / boxes.ngrid**3
        spec = paint_job.spec_of(job, dict.fromkeys(paint_job.painted_of(job), mean), {})
        nothing = {
            name: np.broadcast_to(np.zeros((), v.dtype), (boxes.nbox, *v.shape))
            for name, v in store_layout.field_layout(spec).variables.items()
        }
        ds = store.fields_in_memory(spec, nothing)
        options = {name: value for name, value in self.options.items() if name != "asked_for"}
        return prepare(self.model, job.out, self.out, expected=ds, **options), ds

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Remove the fields at the end of a run: also of one that failed, unless it can go on later.

        It can if it was interrupted, or wants workers, disk or memory. Best around the cluster, whose tasks may write
        until it is closed.
        """
        try:
            yield
        except Exception as error:
            if not (isinstance(error, OSError | MemoryError) or getattr(error, "status", 2) == 1):
                self.clear()
            raise
        self.clear()

    def painted(self, client: Client, progress: Progress) -> Job:
        """Paint, or go on with it; the prediction that is left to do."""
        painting.paint(client, self.paint, progress)
        job = prepare(self.model, self.paint.out, self.out, asked_for=self.asked_for, **self.options)
        return replace(job, layout=replace(job.layout, attrs={**job.layout.attrs, **self._source()}))

    def _source(self) -> dict[str, Any]:
        """What the store says that it came from, since its fields go: the catalogue, and how it was painted."""
        fields = store.attributes(self.paint.out)
        known = dict(json.loads(fields["inputs"])["halos"])
        url = known.pop("url")
        named = ("assignment", "seed", "observer_per_box", *store_layout.SIGHT)
        painted = {name: fields[name] for name in named if name in fields}
        return {"input": url, "catalogue": json.dumps(known | painted)}

    def clear(self) -> None:
        """Remove the fields, or what there is of them; never another store that lies at their place."""
        out = self.paint.out
        if shards.published(out):
            ours = store.attributes(out).get("fingerprint") == self.paint.fingerprint
        else:
            ours = storage.exists(self.paint.receipts.work)
        if ours:
            storage.remove(out)


def from_catalogue(
    model: str,
    url: str,
    out: str,
    *,
    boxes: int | None,
    cells: int | None,
    paint: Mapping[str, Any],
    options: Mapping[str, Any],
    facts: Facts | None = None,
) -> FromCatalogue:
    """Open a catalogue of halos and settle how it is painted for a model.

    Parameters
    ----------
    boxes, cells : int, optional
        Of the parent's side, and of a box's; by default cells of the model's size, and boxes of the training's side or
        of the widest below it that fill the parent.
    paint : mapping
        Keywords of `paint_job.PaintConfig`.
    options : mapping
        Keywords of `prepare`.
    facts : Facts, optional
        Of the model, where it is open already.
    """
    if model in ("linear", "linear_padded"):
        raise VelfieldError(f"this model takes particles: model={model}; paint them, and name the field store")
    check_pattern(
        paint.get("rsd"),
        observer=paint.get("observer"),
        line_of_sight=paint.get("line_of_sight"),
        observer_per_box=bool(paint.get("observer_per_box")),
    )
    if (boxes is None) != (cells is None):
        raise VelfieldError(f"one of two is missing: boxes={boxes}, cells={cells}; give both or neither")
    facts = facts_of(model) if facts is None else facts
    if boxes is None or cells is None:
        boxes, cells = _cut(model, facts, url, paint)
    alone = options.get("isolated") or paint.get("rsd") == "center_radial" or paint.get("observer_per_box")
    margin = facts.context if alone else 0  # else it is taken from the neighbours
    config = paint_job.PaintConfig(
        halos=url, particles=None, boxes=boxes, cells=cells, margin=margin, validation=0.0, **paint
    )
    fields = out.rstrip("/") + ".fields"
    return FromCatalogue(
        model=model, identity=facts.identity, out=out, paint=paint_job.prepare(fields, config), options=options
    )


def _cut(model: str, facts: Facts, url: str, paint: Mapping[str, Any]) -> tuple[int, int]:
    """Boxes and cells of the model's size."""
    if facts.cellsize is None or facts.cells is None:
        raise VelfieldError(f"no cell size to take: model={model} takes any; give --boxes and --cells")
    boxsize = paint.get("boxsize")
    if boxsize is None:
        reading = {name: paint[given] for name, given in READ if paint.get(given)}
        boxsize = open_catalogue(url, paint.get("redshift"), kind="halos", **reading).boxsize
    if boxsize is None:
        raise VelfieldError(f"the boxsize is not known: the catalogue does not say, url={url}; give --boxsize")
    ngrid = round(boxsize / facts.cellsize)
    if ngrid < 1 or abs(ngrid * facts.cellsize / boxsize - 1) > 1e-6:
        raise VelfieldError(
            f"the parent is not cut into the model's cells: boxsize={boxsize:g}, cellsize={facts.cellsize:g}; "
            "take a model of another cell size"
        )
    cells = max(c for c in range(1, min(facts.cells, ngrid) + 1) if ngrid % c == 0)
    return ngrid // cells, cells


READ = (("columns", "halo_column"), ("velocity", "halo_velocity"), ("table", "halo_table"), ("h", "h"))
