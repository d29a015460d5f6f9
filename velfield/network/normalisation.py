"""From densities in their own units to numbers of order one, and velocities to units of σ_v.

A channel is transformed, then shifted and scaled by the mean and standard deviation of its transformed training cells.
``linear`` leaves the value as it is: a velocity is linear in the density on large scales. ``log`` takes ln(1 + ρ/ρ̄),
which tames the heavy tail of densities of halos, above all by mass; for an over-density ρ/ρ̄ is 1 + δ, for a density ρ̄
is its mean over the training cells, kept with the model. Which did better is in docs/network.md.

For a network that is conditioned on its store, inputs and velocities are first divided by what linear theory says of
the store (`velfield.physics.condition`), so that one mean, one deviation and one σ_v serve all stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.physics.condition import Condition, Ranges

TRANSFORMS = ("linear", "log")
USUAL = 0.9999  # of the training cells
COUNTED = 10**7  # cells for it, at least half of them, evenly spread
FAR = 10.0  # std: by Chebyshev's inequality at most a hundredth of the training cells are further from the mean


@dataclass(frozen=True, kw_only=True)
class Channel:
    """How one kind of input is normalised.

    Parameters
    ----------
    kind : str
        As in `velfield.stores.store.INPUTS`.
    transform : {"linear", "log"}
        What is done to the value first.
    scale : float
        ρ̄ of the log, in the kind's own units; 1 for an over-density.
    mean, std : float
        Of the transformed training cells.
    usual : float, optional
        How far from the mean, in standard deviations, all but one in 10⁴ of the training cells are; None in a bundle
        that does not say it.
    """

    kind: str
    transform: str
    scale: float
    mean: float
    std: float
    usual: float | None = None

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise VelfieldError(
                f"unknown transform of the inputs: transform={self.transform!r}; choose {', '.join(TRANSFORMS)}"
            )
        if not (0 < self.scale < np.inf and abs(self.mean) < np.inf and 0 < self.std < np.inf):
            raise VelfieldError(
                f"no such normalisation of an input: input={self.kind}, scale={self.scale}, mean={self.mean}, "
                f"std={self.std}; the mean must be finite, the others positive"
            )
        if self.usual is not None and not 0 < self.usual < np.inf:
            raise VelfieldError(
                f"no such range of an input: input={self.kind}, usual={self.usual}; it must be positive"
            )

    @property
    def far(self) -> float:
        """What is far from all of the training [std]: `FAR`, or `usual` where the tail of the training was longer."""
        return max(FAR, self.usual or 0.0)

    def transformed(self, values: NDArray[Any]) -> NDArray[Any]:
        """The transform alone."""
        if self.transform == "linear":
            return values
        return np.log1p((values + 1 if self.kind.endswith("_overdensity") else values) / self.scale)

    def in_units(self, values: NDArray[Any], units: NDArray[np.float32]) -> NDArray[Any]:
        """Over-densities transformed and in units of b D σ₈, those of each store; the mean density is 0."""
        return (self.transformed(values) - self.transformed(np.zeros(1, dtype=np.float32))) / units


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What is done to the inputs before the network and to the velocity after it.

    Parameters
    ----------
    channels : tuple of Channel
        In the order of the network's input channels.
    sigma_v : float
        rms velocity component of the training cells [km/s]; of a conditioned network in units of a H f D σ₈ [h⁻¹Mpc].
    condition : Ranges, optional
        Of the stores that a conditioned network was trained on; for any other network None.
    """

    channels: tuple[Channel, ...]
    sigma_v: float
    condition: Ranges | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma_v < np.inf:
            raise VelfieldError(f"no such unit of velocities: sigma_v={self.sigma_v}; it must be positive")

    def inputs(self, values: NDArray[Any], of: Condition | None = None) -> NDArray[np.float32]:
        """Densities (..., channel, x, y, z) in their own units to what the network takes, float32.

        ``of`` is the store's condition; a conditioned network needs it.
        """
        self._check(of)
        out = np.empty(values.shape, dtype=np.float32)
        for number, channel in enumerate(self.channels):
            part = values[..., number, :, :, :]
            if of is None:
                part = channel.transformed(part)
            else:
                part = channel.in_units(part, np.array(of.inputs[number], dtype=np.float32))
            out[..., number, :, :, :] = (part - np.float32(channel.mean)) / np.float32(channel.std)
        return out

    def far(self, values: NDArray[Any], of: Condition | None = None) -> NDArray[np.bool_]:
        """Cells (..., x, y, z) with an input that is far from all of the training; ``values`` as of `inputs`."""
        limits = np.array([channel.far for channel in self.channels], dtype=np.float32)[:, None, None, None]
        return np.asarray((np.abs(self.inputs(values, of)) > limits).any(axis=-4))

    def velocity_unit(self, of: Condition | None = None) -> float:
        """What the network's velocities are in units of [km/s]."""
        self._check(of)
        return self.sigma_v if of is None else self.sigma_v * of.velocity

    def vector(self, of: Condition | None = None) -> NDArray[np.float32]:
        """The numbers that the network is given beside its inputs (n,); none without a condition."""
        self._check(of)
        return np.empty(0, dtype=np.float32) if of is None or self.condition is None else self.condition.vector(of)

    def _check(self, of: Condition | None) -> None:
        if (of is None) != (self.condition is None):
            raise VelfieldError(
                f"the condition does not fit the model: condition={of}, the model's={self.condition}; a conditioned "
                "model needs its store's (condition_of), no other takes one"
            )
        if of is not None and len(of.inputs) != len(self.channels):
            kinds = ", ".join(channel.kind for channel in self.channels)
            raise VelfieldError(
                f"the condition is for other inputs: scales={len(of.inputs)}, the model's inputs={kinds}; "
                "make it with the model's (condition_of)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """Rebuild what `to_dict` wrote."""
        ranges = values.get("condition")
        return cls(
            channels=tuple(
                Channel(**(c | {n: float(c[n]) for n in ("scale", "mean", "std", "usual") if c.get(n) is not None}))
                for c in values["channels"]
            ),
            sigma_v=float(values["sigma_v"]),
            condition=None if ranges is None else Ranges.from_dict(ranges),
        )


def measure(
    boxes: Iterable[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    kinds: Sequence[str],
    transform: str,
    conditions: Sequence[Condition] = (),
) -> Normalisation:
    """Measure a normalisation on training boxes, read once.

    Parameters
    ----------
    boxes : iterable of (inputs, velocity, flag)
        Inputs (channel, x, y, z) of each kind in its own units, the velocity (3, x, y, z) [km/s], and its flag.
    kinds : sequence of str
        What the channels are.
    transform : {"linear", "log"}
        For every channel.
    conditions : sequence of Condition
        Those of the boxes' stores, one for each box, for a conditioned network.
    """
    kept, square, cells = [], 0.0, 0
    for number, (inputs, velocity, flag) in enumerate(boxes):
        kept.append(np.asarray(inputs, dtype=np.float32))
        measured = velocity[:, flag != 2].astype(np.float64)
        if conditions:
            measured /= conditions[number].velocity
        square += float((measured**2).sum())
        cells += measured.size
    sigma_v = float(np.sqrt(square / cells)) if cells else 0.0
    if not sigma_v:
        raise VelfieldError(f"no velocity to learn from: cells={cells}, rms={sigma_v} km/s; paint boxes with particles")
    stacked = np.stack(kept)
    units = np.array([of.inputs for of in conditions], dtype=np.float32)[..., None, None, None] if conditions else None
    return Normalisation(
        channels=tuple(
            _channel(kind, transform, stacked[:, number], None if units is None else units[:, number])
            for number, kind in enumerate(kinds)
        ),
        sigma_v=sigma_v,
        condition=Ranges.of(conditions) if conditions else None,
    )


def _channel(kind: str, transform: str, values: NDArray[np.float32], units: NDArray[np.float32] | None) -> Channel:
    overdensity = kind.endswith("_overdensity")
    scale = 1.0 if overdensity else float(values.mean(dtype=np.float64))
    if scale <= 0:
        raise VelfieldError(f"an input without tracers: input={kind}, mean={scale}; leave it out or paint it again")
    channel = Channel(kind=kind, transform=transform, scale=scale, mean=0.0, std=1.0)
    transformed = channel.transformed(values) if units is None else channel.in_units(values, units)
    std = float(transformed.std(dtype=np.float64))
    if not std:
        raise VelfieldError(f"an input that is the same everywhere: input={kind}, std={std}; leave it out")
    mean = float(transformed.mean(dtype=np.float64))
    some = transformed.ravel()[:: max(1, transformed.size // COUNTED)]
    usual = float(np.quantile(np.abs(some - np.float32(mean)), USUAL)) / std
    return dataclasses.replace(channel, mean=mean, std=std, usual=usual)
