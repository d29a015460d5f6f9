"""How a cubic parent volume is cut into cubic boxes on one global grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError


@dataclass(frozen=True, kw_only=True)
class BoxLayout:
    """A parent cut into ``boxes``³ cubes of ``cells``³ cells.

    Parameters
    ----------
    boxsize : float
        Side of the parent [h⁻¹Mpc].
    boxes, cells : int
        Number of boxes along the parent's side, and of cells along a box's side.
    margin : int
        Cells of the surroundings that each box carries on every side.
    """

    boxsize: float
    boxes: int
    cells: int
    margin: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.boxsize < math.inf or self.boxes < 1 or self.cells < 1 or self.margin < 0:
            raise VelfieldError(
                f"no such layout: boxsize={self.boxsize}, boxes={self.boxes}, cells={self.cells}, "
                f"margin={self.margin}; sizes and counts must be positive, the margin not negative"
            )

    @property
    def ngrid(self) -> int:
        """Cells along the parent's side."""
        return self.boxes * self.cells

    @property
    def cellsize(self) -> float:
        """Side of a cell [h⁻¹Mpc]."""
        return self.boxsize / self.ngrid

    @property
    def side(self) -> float:
        """Side of a box without its margin [h⁻¹Mpc]."""
        return self.boxsize / self.boxes

    @property
    def nbox(self) -> int:
        """Number of boxes."""
        return self.boxes**3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells of a box along each axis, margins included."""
        n = self.cells + 2 * self.margin
        return (n, n, n)

    @property
    def core(self) -> slice:
        """The cells of the box proper, along each axis."""
        return slice(self.margin, self.margin + self.cells)

    def index(self, box: int) -> tuple[int, int, int]:
        """Place of box number ``box`` along x, y, z; z runs fastest."""
        return (box // self.boxes**2, box // self.boxes % self.boxes, box % self.boxes)

    def start(self, box: int) -> tuple[int, int, int]:
        """Global cell index of the window's first cell; negative in a margin below the parent's edge."""
        i, j, k = self.index(box)
        return (i * self.cells - self.margin, j * self.cells - self.margin, k * self.cells - self.margin)

    def origin(self, box: int) -> NDArray[np.float64]:
        """Corner of the box proper in the parent (3,) [h⁻¹Mpc]."""
        return np.array(self.index(box), dtype=np.float64) * self.side

    def centre(self, box: int) -> NDArray[np.float64]:
        """Centre of the box in the parent (3,) [h⁻¹Mpc]."""
        return np.asarray(self.origin(box) + 0.5 * self.side)

    def cell_centres(self) -> NDArray[np.float64]:
        """Cell centres along one axis from the box's corner [h⁻¹Mpc], margins included."""
        return np.asarray((np.arange(self.shape[0]) - self.margin + 0.5) * self.cellsize)


def split(nbox: int, validation: int, seed: int) -> list[str]:
    """For each box ``train`` or ``validation``; which ones are set apart for validation is drawn with ``seed``."""
    order = np.random.default_rng([seed, 0x5EED]).permutation(nbox)
    kept_apart = set(order[:validation].tolist())
    return ["validation" if b in kept_apart else "train" for b in range(nbox)]
