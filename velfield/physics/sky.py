"""Places on the sky: right ascension, declination and redshift, seen by an observer in the parent.

The parent's x axis points to ra 0°, dec 0°; y to ra 90°, dec 0°; z to dec 90°. A redshift becomes the comoving distance
of a flat universe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velfield.physics.cosmology import Cosmology


def directions(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors (N, 3) of right ascension and declination (N,) [degrees]; NaN where declination is beyond ±90°."""
    a, d = np.radians(np.asarray(ra, dtype=np.float64)), np.radians(np.asarray(dec, dtype=np.float64))
    a, d = (np.where(np.isfinite(angle), angle, np.nan) for angle in (a, d))
    d = np.where(np.abs(np.asarray(dec)) <= 90, d, np.nan)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def positions(
    ra: ArrayLike, dec: ArrayLike, redshift: ArrayLike, *, cosmology: Cosmology, observer: ArrayLike
) -> NDArray[np.float64]:
    """Positions in the parent (N, 3) [h⁻¹Mpc, comoving] of what an observer sees.

    Parameters
    ----------
    ra, dec : array_like (N,)
        [degrees].
    redshift : array_like (N,)
        Cosmological, for the place in real space; as observed, for the place in redshift space.
    observer : array_like (3,)
        The observer's position in the parent [h⁻¹Mpc], at redshift 0.

    Returns
    -------
    ndarray (N, 3)
        NaN where an angle or a redshift makes no sense: not finite, a declination beyond ±90°, a redshift below 0.
    """
    z: Any = np.asarray(redshift, dtype=np.float64)
    z = np.where(np.isfinite(z) & (z >= 0), z, np.nan)
    return np.asarray(observer, dtype=np.float64) + directions(ra, dec) * cosmology.comoving_distance(z)[..., None]
