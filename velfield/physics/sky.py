"""Places on the sky: right ascension, declination and redshift, seen by an observer in the parent.

The parent's x axis points to ra 0°, dec 0°; y to ra 90°, dec 0°; z to dec 90°. A redshift becomes the comoving distance
of a flat universe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velfield.arguments import numbers
from velfield.physics.cosmology import Background, Cosmology, background_of


def directions(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors (N, 3) of right ascension and declination (N,) [degrees]; NaN where declination is beyond ±90°."""
    degrees = (numbers(angle, n, "angle").astype(np.float64) for angle, n in ((ra, "ra"), (dec, "dec")))
    a, d = (np.radians(np.where(np.isfinite(angle), angle, np.nan)) for angle in degrees)
    d = np.where(np.abs(d) <= np.radians(90), d, np.nan)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def positions(
    ra: ArrayLike, dec: ArrayLike, redshift: ArrayLike, *, cosmology: Cosmology | Background, observer: ArrayLike
) -> NDArray[np.float64]:
    """Positions in the parent (N, 3) [h⁻¹Mpc, comoving] of what an observer sees.

    Parameters
    ----------
    ra, dec : array_like (N,)
        [degrees].
    redshift : array_like (N,)
        Cosmological, for the place in real space; as observed, for the place in redshift space.
    cosmology : Cosmology, or one of astropy's
        Gives distances.
    observer : array_like (3,)
        The observer's position in the parent [h⁻¹Mpc], at redshift 0.

    Returns
    -------
    ndarray (N, 3)
        NaN where an angle or a redshift makes no sense: not finite, a declination beyond ±90°, a redshift below 0.
    """
    cosmology = background_of(cosmology)
    z = numbers(redshift, "redshift", "redshift").astype(np.float64)
    z = np.where(np.isfinite(z) & (z >= 0), z, np.nan)
    at = numbers(observer, "observer", "length", h=cosmology.h).astype(np.float64)
    return np.asarray(at + directions(ra, dec) * cosmology.comoving_distance(z)[..., None])
