"""A real cube and its Fourier modes in the same memory: what a transform of a very large cube needs is the cube itself.

The modes of a real transform along z are ``n // 2 + 1`` complex numbers a line, so a cube's cells and the modes that
take their place have the room of ``n + 2`` cells a line at most: 4.01 bytes a cell for 600³ of float32. Lines along z
are transformed some at a time, those along x and y where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

PART_BYTES = 2**22  # of lines along z that are transformed at a time


def room(shape: Sequence[int], real: Any) -> NDArray[Any]:
    """Memory for the modes (x, y, z // 2 + 1) of a cube (x, y, z) of this real type; its cells are `cells_of`."""
    return np.empty((*shape[:2], shape[2] // 2 + 1), dtype=np.result_type(real, np.complex64))


def cells_of(modes: NDArray[Any], nz: int) -> NDArray[Any]:
    """The cells (x, y, z) whose memory the modes have, ``nz`` along z: a view, which is not contiguous."""
    return modes.view(modes.real.dtype)[..., :nz]


def forward(modes: NDArray[Any], nz: int, *, workers: int = 1) -> None:
    """Cells to modes, in place, as `scipy.fft.rfftn`."""
    cells = cells_of(modes, nz)
    for part in _parts(modes):
        modes[part] = scipy.fft.rfft(cells[part], axis=2, workers=workers)
    _kept(scipy.fft.fftn(modes, axes=(0, 1), workers=workers, overwrite_x=True), modes)


def backward(modes: NDArray[Any], nz: int, *, workers: int = 1) -> NDArray[Any]:
    """Modes to cells, in place, as `scipy.fft.irfftn`; returns the cells, `cells_of` the same memory."""
    _kept(scipy.fft.ifftn(modes, axes=(0, 1), workers=workers, overwrite_x=True), modes)
    cells = cells_of(modes, nz)
    for part in _parts(modes):
        cells[part] = scipy.fft.irfft(modes[part], n=nz, axis=2, workers=workers)
    return cells


def planes_of_k2(k: Sequence[NDArray[np.float64]]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Number and k² (y, z) of each plane of modes, from their wavenumbers (`velfield.physics.linear.wavevectors`)."""
    for i, along in enumerate(k[0].ravel()):
        yield i, along**2 + k[1][0] ** 2 + k[2][0] ** 2


def _parts(modes: NDArray[Any]) -> Iterator[slice]:
    """Planes of some `PART_BYTES` together."""
    count = max(1, PART_BYTES // modes[:1].nbytes)
    return (slice(i, i + count) for i in range(0, len(modes), count))


def _kept(made: NDArray[Any], modes: NDArray[Any]) -> None:
    """SciPy may, but need not, have overwritten its input with the result."""
    if not np.may_share_memory(made, modes):
        modes[...] = made
