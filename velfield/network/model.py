"""A trained network as it is used: loaded from its bundle, shown field stores, asked for velocities."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from velfield.arguments import numbers, overdensity
from velfield.errors import StoreError, VelfieldError
from velfield.geometry.symmetry import CUBE, Symmetry
from velfield.network import bundle
from velfield.network.error_bars import Calibration, WholeCalibration
from velfield.network.normalisation import Normalisation
from velfield.network.orientations import over_orientations
from velfield.network.parent_norm import Statistics, observed, with_statistics
from velfield.network.unet import UNet
from velfield.physics.condition import Condition
from velfield.stores.coordinates import whole_boxes
from velfield.stores.sources import condition_of, describe, differing, symmetries_of_boxes
from velfield.stores.store import velocity_in_memory
from velfield.theory.guide import Guide

CHANNELS = ("box", "channel", "x", "y", "z")  # of what a network is given


class Model:
    """A trained network: densities in, velocities [km/s] out.

    Parameters
    ----------
    net : UNet
        The network; put into evaluation mode.
    normalisation : Normalisation
        Of its inputs and of the velocity.
    metadata : dict
        What `metadata.json` says; `trained_on` in it describes the training stores, `calibration` the error bars.
    device : torch.device
        Where predictions are made.
    calibration : Calibration, optional
        Of its error bars; by default that of boxes by themselves, as the metadata have it.
    """

    def __init__(
        self,
        net: UNet,
        normalisation: Normalisation,
        metadata: dict[str, Any],
        device: torch.device | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.net = net.to(self.device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
        self.normalisation = normalisation
        self.metadata = metadata
        self.calibration = calibration or Calibration.from_dict(metadata.get("calibration", {}))

    def __repr__(self) -> str:
        trained = self.metadata["trained_on"]
        guide = "" if self.guide is None else f", guide {self.guide.name}"
        return (
            f"<velfield.Model: {', '.join(self.inputs)} → {', '.join(self.variables)}{guide}; trained on boxes of "
            f"{trained['cells']}³ cells of {trained['cellsize']:g} h⁻¹Mpc from {len(self.metadata['parents'])} "
            f"universes; on {self.device}>"
        )

    @property
    def has_std(self) -> bool:
        """Whether it gives error bars."""
        return self.net.config.std

    @property
    def inputs(self) -> tuple[str, ...]:
        """Kinds of input, in the order of the channels."""
        return tuple(channel.kind for channel in self.normalisation.channels)

    @property
    def whole_calibration(self) -> WholeCalibration | None:
        """The calibration of its error bars over whole parents, if it has one."""
        return WholeCalibration.of(self.metadata)

    @property
    def parents(self) -> tuple[str, ...]:
        """Fingerprints of the universes that the training saw, or the calibration over whole parents."""
        calibrated = self.whole_calibration
        return (*self.metadata["parents"], *(calibrated.parents if calibrated else ()))

    @property
    def context(self) -> int:
        """Cells around a box's core that the network sees."""
        return int(self.metadata.get("context", self.metadata["trained_on"]["margin"]))

    @property
    def guide(self) -> Guide | None:
        """The velocity that the network adds to, if there is one."""
        values = self.metadata.get("guide")
        return None if values is None else Guide.from_dict(values)

    def condition(self, ds: xr.Dataset) -> Condition | None:
        """What a conditioned network is told of a field store; None for any other."""
        return None if self.normalisation.condition is None else condition_of(ds, self.inputs)

    def far(self, ds: xr.Dataset, box: int) -> int:
        """How many cells of a box's core have an input that is far from all of the training."""
        core = ds.velfield.core(ds.isel(box=box))
        values = np.stack([core.velfield.input(kind).transpose("x", "y", "z").values for kind in self.inputs])
        return int(self.normalisation.far(values, self.condition(ds)).sum())

    def predict_array(
        self,
        inputs: NDArray[Any],
        batch: int = 4,
        *,
        guide: NDArray[Any] | None = None,
        condition: Condition | None = None,
    ) -> NDArray[np.float32]:
        """Velocities from densities, both as arrays; parameters and velocities as of `predict_arrays`.

        Counts, masses or 1 + δ in the place of an over-density are refused (`velfield.arguments.overdensity`).
        """
        inputs = numbers(inputs, "inputs", dims=CHANNELS)
        for place, kind in enumerate(self.inputs):
            if kind.endswith("_overdensity") and inputs.ndim == len(CHANNELS) and place < inputs.shape[1]:
                overdensity(inputs[:, place], kind)
        return self.predict_arrays(inputs, batch, guide=guide, condition=condition)[0]

    def predict_arrays(
        self,
        inputs: NDArray[Any],
        batch: int = 4,
        symmetries: Sequence[Symmetry] = CUBE[:1],
        *,
        guide: NDArray[Any] | None = None,
        condition: Condition | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Velocities from densities, and their error bars if the model gives them, all as arrays.

        Parameters
        ----------
        inputs : ndarray (box, channel, x, y, z)
            One channel for each of `inputs`, in its own units; with `context` cells around the core.
        batch : int
            Boxes at a time; the result does not depend on it beyond float32 rounding (docs/network.md).
        symmetries : sequence of Symmetry
            Orientations of the boxes whose predictions, turned back, are averaged.
        guide : ndarray (box, 3 tracers, x, y, z), optional
            The guide's velocity [km/s] in the same cells, as `Guide.velocities` gives it; a model with a guide needs
            it, and no other takes it.
        condition : Condition, optional
            Of the store that the boxes are of, as `condition` gives it; a conditioned model needs it, and no other
            takes it.

        Returns
        -------
        velocity, std : ndarray (box, 3, x, y, z)
            float32 [km/s], context included.
        """
        inputs = numbers(inputs, "inputs", dims=CHANNELS)
        guide = None if guide is None else numbers(guide, "guide", "speed", dims=CHANNELS)
        if inputs.ndim != 5 or inputs.shape[1] != len(self.inputs) or batch < 1:
            raise VelfieldError(
                f"inputs do not fit the model: shape={inputs.shape}, batch={batch}; give (box, channel, x, y, z) with "
                f"the channels {', '.join(self.inputs)}, and a batch of at least 1"
            )
        wanted = None if self.guide is None else (len(inputs), self.guide.channels, *inputs.shape[2:])
        if (None if guide is None else guide.shape) != wanted:
            raise VelfieldError(
                f"the guide does not fit the model: guide={None if guide is None else guide.shape}, the model's="
                f"{self.guide and self.guide.name}, shape={wanted}; give what Guide.velocities makes, or use predict"
            )
        if not np.isfinite(inputs).all():
            raise VelfieldError(
                f"inputs are not finite: cells={int((~np.isfinite(inputs)).sum())}; "
                "check the store with velfield verify, and paint it again"
            )
        unit, told = self.normalisation.velocity_unit(condition), self.normalisation.vector(condition)
        velocity = np.empty((len(inputs), 3, *inputs.shape[2:]), dtype=np.float32)
        std = np.empty_like(velocity) if self.has_std else None
        with torch.inference_mode():
            for first in range(0, len(inputs), batch):
                channels = self.normalisation.inputs(inputs[first : first + batch], condition)
                if guide is not None:
                    vector = guide[first : first + batch] / np.float32(unit)
                    channels = np.concatenate([channels, vector.astype(np.float32)], axis=1)
                x = torch.from_numpy(channels).to(self.device)
                once = functools.partial(self._once, told=torch.from_numpy(told).to(self.device).expand(len(x), -1))
                v, s = over_orientations(once, x, symmetries, vectors=self.net.config.guide)
                velocity[first : first + batch] = (v * unit).cpu().numpy()
                if std is not None and s is not None:
                    std[first : first + batch] = (s * unit).cpu().numpy()
        return velocity, std

    def predict(
        self, ds: xr.Dataset, batch: int = 4, average: int = 1, *, boxes: Sequence[int] | None = None
    ) -> xr.Dataset:
        """Velocities of boxes of a field store, on the coordinates of its cores.

        Reads ``batch`` boxes at a time; the velocities of all that are asked for are held in memory. Where the model
        gives error bars, ``velocity_std`` holds them.

        Parameters
        ----------
        ds : xarray.Dataset
            The field store; all of it where the model's guide needs its other boxes (``linear_whole``).
        batch : int
            Boxes at a time.
        average : int
            Orientations of each box that are predicted and averaged: 1, 8, 16, or, without a line of sight along an
            axis, 48.
        boxes : sequence of int, optional
            Which boxes; all by default.
        """
        ds = whole_boxes(ds)
        self.check(ds)
        symmetries = symmetries_of_boxes(ds, average)
        numbers = list(range(ds.sizes["box"]) if boxes is None else boxes)
        if not numbers:
            raise VelfieldError("no box to predict: box=0; select at least one")
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in self.variables}
        for made in self._predicted(ds, numbers, batch, symmetries):
            for name, values in zip(parts, made, strict=False):
                parts[name].append(values)
        return velocity_in_memory(ds, numbers, {name: np.concatenate(some) for name, some in parts.items()})

    def statistics(self, inputs: NDArray[Any], *given: Any, **more: Any) -> Statistics:
        """What the network's GroupNorm layers see of boxes; arguments as of `predict_arrays`."""
        with observed(self.net) as made:
            self.predict_arrays(inputs, *given, **more)
        return made[0]

    def with_statistics(self, statistics: Statistics) -> Model:
        """The same model with its GroupNorm's statistics held fixed, so that its result is local (`parent_norm`)."""
        net = with_statistics(self.net, statistics)
        return Model(net, self.normalisation, self.metadata, self.device, self.calibration)

    def with_calibration(self, calibration: Calibration) -> Model:
        """The same model with its error bars made so."""
        return Model(self.net, self.normalisation, self.metadata, self.device, calibration)

    @property
    def variables(self) -> tuple[str, ...]:
        """What `predict` gives."""
        return ("velocity", "velocity_std") if self.has_std else ("velocity",)

    @property
    def reach(self) -> int:
        """Cells on each side on which a velocity depends at most, the normalisation apart (`velfield.network.unet`)."""
        pooled = 2**self.net.config.depth
        return 2 * (3 * pooled - 2) + pooled - 1

    @property
    def trained_side(self) -> int:
        """Cells along the side of what the network saw in its training, context included."""
        return int(self.metadata["trained_on"]["cells"]) + 2 * self.context

    def check(self, ds: xr.Dataset, *, surrounded: bool = False) -> None:
        """Refuse a field store that the model cannot take: a missing input, another unit or cell size, no context.

        ``surrounded``: each box's context is taken from its neighbours, whatever margin the store has.
        """
        described = describe(whole_boxes(ds), self.inputs)
        trained = self.metadata["trained_on"]
        for name in ("cellsize", *(f"units of {kind}" for kind in self.inputs)):
            if differing({name: trained[name]}, described):
                raise StoreError(
                    f"the store does not fit the model: {name}={described[name]}, the model's {name}={trained[name]}; "
                    "paint the store as the model's, or use another model"
                )
        if not surrounded and int(ds.attrs["margin"]) < self.context:
            raise StoreError(
                f"the store's margin is narrower than the model's context: margin={ds.attrs['margin']}, "
                f"context={self.context}; paint the store with --margin {self.context}, or use another model"
            )
        if self.guide is not None:
            self.guide.settings(ds)  # refuses a store without halos; no data are read
        self.condition(ds)  # the same

    def differences(self, ds: xr.Dataset) -> dict[str, tuple[Any, Any]]:
        """In what else a field store differs from the training: name to (the model's, the store's).

        Redshift, cosmology, redshift-space pattern, mass threshold, assignment, size of boxes; the margin only where a
        guide sees all of it; of a conditioned model what lies outside the redshifts and densities of its training. A
        model may be used there, and the paper tests it so; its accuracy was not measured there by its training.
        """
        trained = self.metadata["trained_on"]
        unseen = () if self.guide is not None and self.guide.sees_margin else ("margin",)
        found = differing({n: v for n, v in trained.items() if n not in unseen}, describe(ds, self.inputs))
        ranges, of = self.normalisation.condition, self.condition(ds)
        return found | (ranges.outside(of) if ranges is not None and of is not None else {})

    def save(self, url: str) -> None:
        """Write the bundle; its metadata say the rest from then on."""
        self.metadata = bundle.write(url, self.net, self.normalisation, self.metadata)

    def _once(self, x: Tensor, told: Tensor) -> tuple[Tensor, Tensor | None]:
        """Velocity and error bar [σ_v] from normalised inputs, and what else the network is told (box, n)."""
        made = self.net(x.contiguous(memory_format=torch.channels_last_3d), condition=told).float()
        return made[:, :3], self.calibration.error_bars(made[:, 3:]) if self.has_std else None

    def _predicted(
        self, ds: xr.Dataset, numbers: Sequence[int], batch: int, symmetries: Sequence[Symmetry]
    ) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """What `variables` names on the cores (box, 3, x, y, z), ``batch`` boxes at a time."""
        first, cells, context = int(ds.attrs["margin"]) - self.context, int(ds.attrs["cells"]), self.context
        window = dict.fromkeys("xyz", slice(first, first + cells + 2 * context))
        core = (slice(context, context + cells),) * 3
        guide, condition = self.guide, self.condition(ds)
        how = None if guide is None else guide.settings(ds)
        for start in range(0, len(numbers), batch):
            some = list(numbers[start : start + batch])
            boxes = ds.isel(box=some)
            inputs = np.stack([boxes.velfield.input(kind).isel(window).values for kind in self.inputs], axis=1)
            vector = None if guide is None else guide.velocities(ds, some, context, how)
            made = self.predict_arrays(inputs, batch, symmetries, guide=vector, condition=condition)
            yield tuple(values[..., *core] for values in made if values is not None)


def load_model(url: str, device: str = "auto") -> Model:
    """Open a model bundle.

    Parameters
    ----------
    url : str
        The bundle's folder at any fsspec URL, or ``pretrained`` for the one that comes with velfield.
    device : str
        ``auto`` takes a GPU where there is one; or ``cpu``, ``cuda``.
    """
    net, normalisation, metadata = bundle.read(url)
    return Model(net, normalisation, metadata, pick_device(device))


def pick_device(device: str) -> torch.device:
    """``auto`` is a GPU where torch sees one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise VelfieldError(f"unknown device: device={device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise VelfieldError(f"torch sees no GPU: device={device}; use --device cpu")
    return torch.device(device)
