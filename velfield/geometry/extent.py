"""How far positions reach, and what that says of their unit.

Those of a catalogue fill their parent from side to side. Positions in units of the box, or in Gpc, lie in one corner
of it, where nothing refuses them row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORNER = 1 / 32  # of the parent's side: the least that positions of a whole catalogue span along some axis
FEW = 10  # positions that say nothing
ROUNDING = 1e-6
WIDE = 256


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Of some positions, those that are not finite left out.

    Parameters
    ----------
    rows : int
        How many.
    lower, upper : tuple of float
        Least and largest coordinate along each axis; infinite where there are no positions.
    """

    rows: int = 0
    lower: tuple[float, ...] = (np.inf,) * 3
    upper: tuple[float, ...] = (-np.inf,) * 3

    @classmethod
    def of(cls, pos: NDArray[Any]) -> Extent:
        """Of positions (N, 3)."""
        if not len(pos):
            return cls()
        lower, upper = _ends(np.minimum, pos), _ends(np.maximum, pos)
        if not np.isfinite([*lower, *upper]).all():  # a NaN is the least and the largest of all
            return cls.of(pos[np.isfinite(pos).all(axis=1)])
        return cls(rows=len(pos), lower=lower, upper=upper)

    def to_dict(self) -> dict[str, Any] | None:
        """Plain values, for JSON; None where there are no positions."""
        return asdict(self) if self.rows else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Extent:
        """Rebuild what `to_dict` gave and JSON kept."""
        if not values:
            return cls()
        return cls(rows=int(values["rows"]), lower=tuple(values["lower"]), upper=tuple(values["upper"]))

    def __or__(self, other: Extent) -> Extent:
        """Of both."""
        return Extent(
            rows=self.rows + other.rows,
            lower=tuple(map(min, self.lower, other.lower)),
            upper=tuple(map(max, self.upper, other.upper)),
        )

    @property
    def span(self) -> float:
        """Along the axis where they reach furthest."""
        return max(b - a for a, b in zip(self.lower, self.upper, strict=True)) if self.rows else 0.0

    def in_a_corner(self, boxsize: float) -> bool:
        """Whether so many positions do not reach beyond a corner of their parent."""
        return self.rows >= FEW and self.span <= CORNER * boxsize * (1 + ROUNDING)

    def unit(self, boxsize: float) -> tuple[str, str] | None:
        """In which unit they would fill the parent: in words, and as one writes it; None where in none that we know."""
        furthest = max(map(abs, (*self.lower, *self.upper)), default=0.0) * (1 - ROUNDING)
        least = min(b - a for a, b in zip(self.lower, self.upper, strict=True))
        for side, words, written in (
            (1.0, "units of the box", f"{boxsize:g} Mpc/h"),
            (boxsize / 1000, "Gpc/h", "Gpc/h"),
        ):
            if furthest <= side and least > side / 4:
                return words, written
        return None


def _ends(end: np.ufunc, pos: NDArray[Any]) -> tuple[float, ...]:
    """Of each column, three at a time in long rows: 0.5 ns a row, where along the short ones it takes 35."""
    most = len(pos) // WIDE * WIDE
    rows = np.ascontiguousarray(pos[:most]).reshape(-1, 3 * WIDE)
    some = end.reduce(rows, axis=0).reshape(-1, 3) if most else pos[:0]
    return tuple(end.reduce(np.concatenate([some, pos[most:]]), axis=0).tolist())
