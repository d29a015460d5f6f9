"""Error bars from what a network says of its own errors: ln σ², mapped so that they cover what they should.

How the map is found: `velfield.learning.validation.calibrate`. A bundle may have two: of boxes by themselves, found at
the end of its training, and of whole parents as `velfield predict` shows them, with real neighbours, where errors are
smaller (`velfield calibrate`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

WHOLE = "calibration_whole"  # in the metadata
LARGEST_LOG = 12.0  # of ln σ²: σ from 1/400 to 400 σ_v; keeps e⁻ˢ finite


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How the σ that a network gives becomes an error bar.

    Parameters
    ----------
    factor, power : float
        The error bar is factor · σ^power, all in units of σ_v; 1 and 1 where there was nothing to calibrate on.
    residuals : int
        Components that it was made from.
    coverage_68, coverage_95 : float, optional
        Share of them within the calibrated 68 and 95 % intervals.
    before_68, before_95 : float, optional
        The same before.
    """

    factor: float = 1.0
    power: float = 1.0
    residuals: int = 0
    coverage_68: float | None = None
    coverage_95: float | None = None
    before_68: float | None = None
    before_95: float | None = None

    def error_bars(self, log_variance: Tensor) -> Tensor:
        """Error bars [σ_v] from the network's ln σ²."""
        s = log_variance.float().clamp(-LARGEST_LOG, LARGEST_LOG)
        return self.factor * torch.exp(0.5 * self.power * s)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Rebuild what `to_dict` wrote."""
        made = cls(**values)
        if not (0 < float(made.factor) < math.inf and 0 < float(made.power) < math.inf):
            raise ValueError(f"calibration: factor={made.factor}, power={made.power}")
        return made


@dataclass(frozen=True, kw_only=True)
class WholeCalibration:
    """The calibration over whole parents, and what it was made from.

    Parameters
    ----------
    map : Calibration
        From σ to an error bar there.
    tiles : dict
        ``side``, ``overlap`` and ``guide_margin`` of the tiles in which the parents were shown [cells].
    stores : tuple of dict
        Of each field store ``fingerprint``, ``parents``, ``redshift``, ``min_mass``, ``rsd``, ``boxes``, and the
        coverages under the map.
    """

    map: Calibration
    tiles: dict[str, int]
    stores: tuple[dict[str, Any], ...]

    @property
    def parents(self) -> tuple[str, ...]:
        """Fingerprints of the universes that it was made from."""
        return tuple(sorted({parent for one in self.stores for parent in one["parents"]}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return asdict(self) | {"stores": list(self.stores)}

    @classmethod
    def of(cls, metadata: dict[str, Any]) -> WholeCalibration | None:
        """What a bundle's metadata say; None of a bundle that has none."""
        values = metadata.get(WHOLE)
        if values is None:
            return None
        tiles = {name: int(values["tiles"][name]) for name in ("side", "overlap", "guide_margin")}
        stores = tuple(dict(one) for one in values["stores"])
        made = cls(map=Calibration.from_dict(values["map"]), tiles=tiles, stores=stores)
        if not all(isinstance(parent, str) for parent in made.parents):
            raise ValueError(f"{WHOLE}: parents={made.parents}")
        return made
