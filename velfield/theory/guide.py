"""The guide: a velocity that linear theory makes of the halos, with which a network begins and to which it adds.

A box of cells knows little of its long waves; linear theory over all that is known, the store's margin or the whole
parent, knows them. So the guide's velocity joins the network's inputs, and what the network puts out is added to it.
How it is computed follows from each store (`velfield.theory.analytic.settings`), so that each has its own bias.

Halos by number and by mass err differently: on the longest waves by mass is better by half, because numbers saturate
where matter is dense, on short ones by number, because few halos have most of the mass. A guide of both tracers gives
the network both velocities, and it learns which to believe on which scale. It begins with the first.

A guide may take seconds a box. A training computes those of all its boxes before its first step and keeps one file of
each, ``FOLDER/<store>-<settings>/<box>.npy``: float32 (3 tracers, x, y, z) [km/s], context included; no
pickle.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.files.progress import Progress
from velfield.stores.sources import FieldSource
from velfield.stores.store import open_fields
from velfield.theory import analytic
from velfield.version import __version__

GUIDES = (*analytic.HALOS, analytic.WIENER, analytic.WHOLE)
COMPONENTS = 3  # of a velocity: channels that each tracer's adds to the network's inputs
ABOUT = "guide.json"  # beside the files of a store: what they are, for people


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Which velocity a network begins with.

    Parameters
    ----------
    name : str
        One of `GUIDES`.
    smoothing : float, optional
        Gaussian radius [h⁻¹Mpc]; by default as in `velfield.theory.analytic.settings`.
    tracers : tuple of str
        How halos are weighted, ``number`` or ``mass``: a velocity of each; that of the first is what is added to.
    """

    name: str
    smoothing: float | None = None
    tracers: tuple[str, ...] = ("number",)

    def __post_init__(self) -> None:
        if self.name not in GUIDES:
            raise VelfieldError(f"no such guide: guide={self.name!r}; choose {', '.join(GUIDES)}")
        if not self.tracers or len(set(self.tracers)) < len(self.tracers) or set(self.tracers) - set(analytic.TRACERS):
            raise VelfieldError(
                f"no such tracers of a guide: tracers={', '.join(self.tracers) or 'none'}; give number, mass or both, "
                "each once"
            )
        if self.name == analytic.WIENER and self.tracers != ("number",):
            raise VelfieldError(
                f"the Wiener filter's noise is that of numbers: guide={self.name}, tracers={', '.join(self.tracers)}; "
                "leave the tracers out, or take another guide"
            )

    @property
    def channels(self) -> int:
        """Channels that it adds to the network's inputs."""
        return COMPONENTS * len(self.tracers)

    @property
    def sees_margin(self) -> bool:
        """Whether it uses the store's margin, and so is another one with another margin."""
        return self.name in ("linear_halo_padded", analytic.WIENER)

    def settings(self, ds: xr.Dataset, margin: int | None = None) -> tuple[analytic.Settings, ...]:
        """How it is computed on a field store, of each tracer; refuses a store without halos.

        ``margin``: cells that it will see around boxes, or tiles, that are cut anew; by default the store's own.
        """
        return tuple(
            analytic.settings(self.name, ds, tracer=t, smoothing=self.smoothing, margin=margin) for t in self.tracers
        )

    def settled(self, ds: xr.Dataset) -> Guide:
        """The same guide with its smoothing written out, so that a bundle does not depend on a default."""
        smoothing = self.settings(ds)[0].to_dict().get("smoothing")
        return replace(self, smoothing=None if smoothing is None else float(smoothing))

    def velocities(
        self, ds: xr.Dataset, boxes: Sequence[int], context: int, how: Sequence[analytic.Settings] | None = None
    ) -> NDArray[np.float32]:
        """Velocities (box, 3 tracers, x, y, z) [km/s] of some boxes of a whole field store, on core and context.

        They see all of the store's margin, or the whole parent, whatever ``context`` is. ``how`` saves the settings.
        """
        each = [analytic.velocities(one, ds, boxes, margin=context) for one in how or self.settings(ds)]
        return each[0] if len(each) == 1 else np.concatenate(each, axis=1)

    def check_context(self, context: int) -> None:
        """Refuse a guide that says nothing of a network's context."""
        if context and not self.sees_margin and self.name != analytic.WHOLE:
            raise VelfieldError(
                f"the guide is of the box alone: guide={self.name}, context={context}; take a context of 0, or "
                "linear_halo_padded, wiener or linear_whole"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return asdict(self) | {"tracers": list(self.tracers)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Guide:
        """Rebuild what `to_dict` wrote."""
        return cls(**(values | {"tracers": tuple(values.get("tracers", cls.tracers))}))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The guides of a training's boxes, as files: plain values, so that worker processes can be given it.

    Parameters
    ----------
    folders : tuple of str
        For each store the URL of its files.
    side : int
        Cells along a side, context included.
    channels : int
        Components of its velocities, three a tracer.
    """

    folders: tuple[str, ...]
    side: int
    channels: int = COMPONENTS

    def read(self, store: int, box: int) -> NDArray[np.float32]:
        """Guide (channel, x, y, z) [km/s] of a box of a store, by their numbers."""
        url = _file(self.folders[store], box)
        data = storage.find_bytes(url)
        try:
            values = np.load(io.BytesIO(b"" if data is None else data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise StoreError(
                f"the guide of a box cannot be read: file={url}, because={error}; remove it and run again"
            ) from error
        if values.shape != (self.channels, *(self.side,) * 3) or values.dtype != np.float32:
            raise StoreError(
                f"not the guide of a box: file={url}, shape={values.shape}, side={self.side}; remove it and run again"
            )
        return np.asarray(values)


def prepare(
    guide: Guide,
    sources: Sequence[FieldSource],
    which: Sequence[tuple[int, int]],
    *,
    context: int,
    folder: str,
    progress: Progress,
) -> Kept:
    """Compute the guides of boxes that are not there yet, and say where all are.

    Interrupted, it goes on with what is left; a file is there whole or not at all.

    Parameters
    ----------
    sources, which :
        The stores, and (number of the store, number of the box in it) of each box.
    context : int
        Cells around the core.
    folder : str
        URL beneath which they are kept; trainings with the same stores and settings may share it.
    """
    opened = [open_fields(source.url, chunks=None) for source in sources]
    hows = [guide.settings(ds) for ds in opened]
    places = []
    for source, how in zip(sources, hows, strict=True):
        settings = [one.to_dict() for one in how]
        about = {"guide": guide.name, "settings": settings, "context": context, "store": source.fingerprint}
        about["velfield_version"] = __version__
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        places.append((storage.join(folder, f"{source.fingerprint[:16]}-{digest[:16]}"), about))
    there = [set(storage.names(place)) for place, _ in places]
    left = [[box for n, box in which if n == number and _name(box) not in there[number]] for number in range(len(hows))]
    done = len(which) - sum(map(len, left))
    if done < len(which):
        progress.start(f"compute the guide, {guide.name}", len(which), "boxes", before=done)
        for ds, how, (place, about), boxes in zip(opened, hows, places, left, strict=True):
            if boxes:
                storage.write_json(storage.join(place, ABOUT), about)
                _compute(guide, ds, how, boxes, context, place, progress)
        progress.done(f"{done} were there before" if done else "")
    side = int(sources[0].described["cells"]) + 2 * context
    return Kept(folders=tuple(place for place, _ in places), side=side, channels=guide.channels)


def _compute(
    guide: Guide,
    ds: xr.Dataset,
    how: Sequence[analytic.Settings],
    boxes: Sequence[int],
    context: int,
    place: str,
    progress: Progress,
) -> None:
    """Guides of boxes of one store to files, side by side: Fourier transforms let other threads run."""

    def one(box: int) -> None:
        velocity = np.ascontiguousarray(guide.velocities(ds, [box], context, how)[0], dtype=np.float32)
        data = io.BytesIO()
        np.save(data, velocity, allow_pickle=False)
        storage.write_bytes(_file(place, box), data.getvalue())

    one(boxes[0])  # alone: makes what the others share, as tables of the power spectrum or the whole parent
    progress.advance(1)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    try:
        for _ in pool.map(one, boxes[1:]):
            progress.advance(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _name(box: int) -> str:
    return f"{box:06d}.npy"


def _file(place: str, box: int) -> str:
    return storage.join(place, _name(box))
