"""What a prediction is, settled before anything runs: the input opened, the model found to fit it, the tiles cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from velfield.errors import VelfieldError
from velfield.files import shards
from velfield.geometry.tiles import Tiling, spread
from velfield.pipelines.predict_shown import BATCH, batch_of, surrounded, tiles_of, whole_bars
from velfield.pipelines.receipts import Receipts
from velfield.stores import store, store_layout
from velfield.stores.coordinates import as_written
from velfield.stores.sources import sentences, symmetries_of_boxes
from velfield.theory import analytic, plausible
from velfield.theory.whole import check_one_parent

if TYPE_CHECKING:
    from velfield.network.error_bars import Calibration


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prediction that is ready to run.

    Parameters
    ----------
    tiling : Tiling or None
        How the whole parent is shown to a network; None where boxes are predicted one by one.
    guide_margin : int
        Cells around a tile that its guide sees.
    how : tuple of Settings
        Of an analytic model; or of a network's guide, one for each tracer, where it is shown the whole parent.
    context : int
        Cells around a cell that have to be known for it to count as known.
    resource : str or None
        What a worker must offer to be given a network's work.
    observed : tuple of (3,)
        First cells of the tiles of the training's side over which a network's GroupNorm takes the parent's statistics;
        none for other networks, and where one tile is the whole parent.
    expected : Expected or None
        What is expected of the input's counts.
    accept : tuple of str
        ``implausible``, where what cannot be right is written all the same.
    """

    model: str
    fields: str
    out: str
    batch: int
    average: int
    tiling: Tiling | None
    guide_margin: int
    how: tuple[analytic.Settings, ...]
    context: int
    resource: str | None
    observed: tuple[tuple[int, int, int], ...]
    layout: shards.Layout
    fingerprint: str
    differences: Sequence[str]
    expected: plausible.Expected | None
    accept: tuple[str, ...] = ()

    @property
    def receipts(self) -> Receipts:
        """What is done so far."""
        return Receipts(out=self.out, fingerprint=self.fingerprint)

    @property
    def takes_whole(self) -> bool:
        """Whether linear theory of the whole parent is computed first, once, for all tasks."""
        return any(isinstance(one, analytic.WholeSettings) for one in self.how)

    @property
    def rows(self) -> int:
        """Rows of tiles along z, each a task."""
        return 0 if self.tiling is None else len(self.tiling.starts) ** 2


def prepare(
    model: str,
    fields: str,
    out: str,
    *,
    batch: int | None = None,
    average: int = 1,
    tile: int | None = None,
    overlap: int | None = None,
    isolated: bool = False,
    guide_margin: int | None = None,
    gpu: bool = False,
    tracer: str = "number",
    smoothing: float | None = None,
    asked_for: str | None = None,
    expected: xr.Dataset | None = None,
    calibration: Calibration | None = None,
    accept: Sequence[str] = (),
) -> Job:
    """Open the input and the model, and see that they fit.

    Parameters
    ----------
    model : str
        A bundle's URL, ``pretrained``, or one of ``linear``, ``linear_padded``, ``linear_halo``,
        ``linear_halo_padded``, ``wiener``, ``linear_whole``.
    fields : str
        A field store's URL.
    out : str
        Where the velocity store will be.
    batch : int, optional
        Boxes or tiles that go through a network together; by default four of the training's size, fewer larger ones.
    average : int
        Orientations of each whose predictions are averaged, as in `velfield.network.model.Model.predict`.
    tile, overlap : int, optional
        Cells along the side of the tiles in which a network is shown a whole parent, and that neighbours share; by
        default as in `velfield.geometry.tiles.tiling`.
    isolated : bool
        Predict each box by itself, also where the boxes are one parent.
    guide_margin : int, optional
        Cells around a tile's core that its guide sees; by default the margin of the training.
    gpu : bool
        Give a network's work to workers that offer ``GPU=1`` only.
    tracer, smoothing :
        Of an analytic model, as in `velfield.theory.analytic.settings`.
    asked_for : str, optional
        What the store says that it was asked for, where the fields do not stay (`predict_catalogue`).
    expected : xarray.Dataset, optional
        The field store as it will be, where it is not there yet: the job can be planned, not run. How many halos it
        has is not known, so the job does not say whether their density is one that the model was trained at.
    calibration : Calibration, optional
        Of a network's error bars; by default the bundle's own, of whole parents or of boxes by themselves.
    accept : sequence of str
        ``implausible``: write what cannot be right all the same, flagged. It is no part of the job's fingerprint.
    """
    plausible.check_accept(accept)
    ds = as_written(store.open_fields(fields, chunks=None) if expected is None else expected)
    asked = {"tile": tile, "overlap": overlap, "guide-margin": guide_margin}
    analytic.check_tracer(model, tracer)
    if model in analytic.NAMES:
        if average != 1:
            raise VelfieldError(f"only a network is averaged: model={model}, average={average}; leave it out")
        _refuse(asked | {"isolated": isolated or None, "gpu": gpu or None}, f"model={model}", "networks")
        how = analytic.settings(model, ds, tracer=tracer, smoothing=smoothing)
        about: dict[str, Any] = {"name": model, **how.to_dict()}
        job = _Settled(about=about, how=(how,), context=int(getattr(how, "margin", 0)), takes=(how.variable,))
    else:
        if smoothing is not None:
            raise VelfieldError(f"a bundle takes no smoothing: model={model}, smoothing={smoothing:g}; leave it out")
        if isolated:
            _refuse(asked, "isolated=True", "whole parents")
        unknown = () if expected is None else ("density",)
        job = _network(model, ds, average, asked, isolated, calibration, unknown)
    prediction = job.prediction | ({} if asked_for is None else {"asked_for": asked_for})
    identity = job.about.get("weights", job.about)  # of a bundle, wherever it lies
    seen = store.document_hash(fields) if expected is None else None
    settings: dict[str, Any] = {"schema": store_layout.SCHEMA, "model": identity, "input": seen}
    settings |= {name: job.about[name] for name in ("calibration", "average") if name in job.about}
    settings["prediction"] = prediction
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    layout = store_layout.velocity_layout(
        ds, model=job.about, source=fields, fingerprint=fingerprint, prediction=prediction, looked={}
    )
    return Job(
        model=model,
        fields=fields,
        out=out,
        batch=batch or job.batch,
        average=average,
        tiling=job.tiling,
        guide_margin=job.guide_margin,
        how=job.how,
        context=job.context,
        resource="GPU" if gpu else None,
        observed=job.observed,
        layout=layout,
        fingerprint=fingerprint,
        differences=job.differences,
        expected=plausible.expected_of(ds, job.takes),
        accept=tuple(accept),
    )


@dataclass(frozen=True, kw_only=True)
class _Settled:
    """What follows from model and store."""

    about: dict[str, Any]
    how: tuple[analytic.Settings, ...] = ()
    context: int
    takes: tuple[str, ...]
    tiling: Tiling | None = None
    batch: int = BATCH
    guide_margin: int = 0
    observed: tuple[tuple[int, int, int], ...] = ()
    differences: Sequence[str] = ()

    @property
    def prediction(self) -> dict[str, Any]:
        """How the store says that it was made."""
        if self.tiling is None:
            return {"boxes": "isolated", "context": self.context}
        norm = {"norm_tiles": len(self.observed)} if self.observed else {}
        return {"boxes": "whole", "guide_margin": self.guide_margin, **norm, **asdict(self.tiling)}


def _network(
    model: str,
    ds: xr.Dataset,
    average: int,
    asked: dict[str, int | None],
    isolated: bool,
    calibration: Calibration | None,
    unknown: Sequence[str],
) -> _Settled:
    from velfield.network.model import load_model

    loaded = load_model(model, device="cpu")
    about: dict[str, Any] = {"url": model, "weights": loaded.metadata["weights"]["sha256"]}
    about["parents"] = list(loaded.parents)
    if loaded.has_std:
        about |= {"error_bars": True, "calibration": (calibration or loaded.calibration).to_dict()}
    if average != 1:
        symmetries_of_boxes(ds, average)
        about["average"] = average
    whole = False
    if not isolated:
        try:
            check_one_parent(ds, "leave --tile, --overlap and --guide-margin out, or paint one whole parent")
            whole = True
        except VelfieldError:
            if any(value is not None for value in asked.values()):
                raise
    loaded.check(ds, surrounded=whole)
    found = {name: pair for name, pair in loaded.differences(ds).items() if name not in unknown}
    takes = tuple(store.INPUTS[kind][0] for kind in loaded.inputs)
    if not whole:
        batch = batch_of(loaded, int(ds.attrs["cells"]) + 2 * loaded.context)
        notes = sentences(found, "the store")
        return _Settled(about=about, context=loaded.context, takes=takes, batch=batch, differences=notes)
    tiles, margin, how = tiles_of(loaded, ds, asked)
    found = {name: pair for name, pair in found.items() if name not in ("cells", "margin")}
    notes = sentences(found, "the store")
    observed: tuple[tuple[int, int, int], ...] = ()
    if loaded.net.config.norm == "group" and (tiles.count > 1 or tiles.side > loaded.trained_side):
        observed = spread(tiles.ngrid, loaded.trained_side, loaded.context, periodic=tiles.periodic)
    if asked["tile"] not in (None, loaded.trained_side) and tiles.rim < loaded.reach:
        notes.append(f"the model was trained on {loaded.trained_side} cells a side, a tile has {tiles.side}")
    if loaded.has_std and calibration is None and surrounded(tiles):
        notes += whole_bars(loaded, tiles, margin, about)
    return _Settled(
        about=about,
        how=how,
        context=loaded.context,
        takes=takes,
        batch=batch_of(loaded, tiles.side),
        tiling=tiles,
        guide_margin=margin,
        observed=observed,
        differences=notes,
    )


def _refuse(asked: dict[str, Any], where: str, who: str) -> None:
    """Refuse options that have no meaning here."""
    for name, value in asked.items():
        if value is not None:
            raise VelfieldError(f"--{name} is for {who} only: {name}={value}, {where}; leave it out")


def receipts_name(shard: int) -> str:
    """Name of a shard's receipt."""
    return f"{shard:05d}"
