"""What a conditioned network is told of a field store, and the units in which linear theory makes stores alike.

To linear order δ_halo = b D σ₈ · ε and v = a H f D σ₈ · u(ε), with fields ε and u whose statistics depend on neither
redshift nor threshold. So inputs are divided by b D σ₈, with the bias of their own weighting, and velocities by
a H f D σ₈. What is left differs by how many halos there are, which is the noise, and by how far structure has grown:
the network is given both, log₁₀ of the halos' density and D(z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError

NUMBERS = 2  # that the network is given: log density, growth
SLACK = 0.05  # of the density: that of one universe's halos differs from another's
NARROWEST = (0.1, 0.01)  # half widths of a range of log density and growth: stores alike are not told apart by chance


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Of one store.

    Parameters
    ----------
    redshift, min_mass : float
        Its snapshot and the least mass of its halos [h⁻¹M⊙].
    density : float
        Halos per (h⁻¹Mpc)³ in the parent.
    growth : float
        D(z), 1 today.
    inputs : tuple of float
        b D σ₈ of each input.
    velocity : float
        a H f D σ₈ [km/s per h⁻¹Mpc].
    """

    redshift: float
    min_mass: float
    density: float
    growth: float
    inputs: tuple[float, ...]
    velocity: float


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """From where to where the conditions of a training's stores reach: (least, greatest) of each."""

    redshift: tuple[float, float]
    min_mass: tuple[float, float]
    density: tuple[float, float]
    growth: tuple[float, float]

    def __post_init__(self) -> None:
        for name, (low, high) in asdict(self).items():
            if not (np.isfinite(low) and low <= high < np.inf) or (low <= 0 and name != "redshift"):
                raise VelfieldError(f"no such range of a condition: {name}={low}, {high}; give the lower end first")

    @classmethod
    def of(cls, conditions: Sequence[Condition]) -> Ranges:
        """Of some stores."""

        def reach(name: str) -> tuple[float, float]:
            values = [float(getattr(condition, name)) for condition in conditions]
            return min(values), max(values)

        return cls(**{name: reach(name) for name in cls.__dataclass_fields__})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Ranges:
        """Rebuild what `dataclasses.asdict` gave and JSON kept."""
        return cls(**{name: (float(low), float(high)) for name, (low, high) in values.items()})

    def vector(self, condition: Condition) -> NDArray[np.float32]:
        """What the network is given (`NUMBERS`,): −1 to 1 within the ranges; beyond an end it is that end's.

        A range that is narrower than `NARROWEST` is given its part of −1 to 1 only.
        """
        pairs = (
            (np.log10(condition.density), np.log10(self.density)),
            (condition.growth, np.asarray(self.growth)),
        )
        placed = [
            (np.clip(value, low, high) - (low + high) / 2) / max((high - low) / 2, narrowest)
            for (value, (low, high)), narrowest in zip(pairs, NARROWEST, strict=True)
        ]
        return np.array(placed, dtype=np.float32)

    def outside(self, condition: Condition) -> dict[str, tuple[str, float]]:
        """What of a store lies beyond: name to (the range, the store's)."""
        found = {}
        for name, slack in (("redshift", 1e-6), ("density", SLACK)):
            (low, high), value = getattr(self, name), float(getattr(condition, name))
            if not low - slack * abs(low) - 1e-9 <= value <= high + slack * abs(high) + 1e-9:
                found[name] = f"{low:.3g} to {high:.3g}", value
        return found
