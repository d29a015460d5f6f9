"""Velocities at given positions: in the parent or on the sky, in real or in redshift space (docs/query.md)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from velfield import arguments
from velfield.answers.asked import Asked, beyond_images
from velfield.answers.cells import ABSENT, Cells, shared
from velfield.answers.interpolate import INVALID, MEANINGS, OUTSIDE, UNSOLVED, trilinear
from velfield.answers.real_space import MAX_SHIFT, real_positions
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.files.shards import ROOT
from velfield.physics import sky
from velfield.stores.coordinates import check_attributes
from velfield.stores.store import attributes, cosmology_of, open_fields, open_velocity

COORDINATES = {"box": ("x", "y", "z"), "sky": ("ra", "dec", "z")}
SPACES = ("real", "redshift")
GOOD = "good"


def query(store: str | xr.Dataset, positions: Any, **options: Any) -> dict[str, NDArray[Any]]:
    """Velocities at positions, from a store by its URL or as it was opened; all else as in `query_positions`."""
    ds = store if isinstance(store, xr.Dataset) else open_store(store)
    return query_positions(ds, positions, **options)


def query_positions(
    ds: xr.Dataset,
    positions: Any,
    *,
    coordinates: str = "box",
    redshift: ArrayLike | None = None,
    space: str = "real",
    extrapolate: bool = False,
    max_shift: float = MAX_SHIFT,
    cells: Cells | None = None,
) -> dict[str, NDArray[Any]]:
    """Velocities, error bars and flags at positions, trilinear between the centres of cells.

    Parameters
    ----------
    ds : xarray.Dataset
        A velocity store or a field store (its velocity is the truth), or some of its boxes.
    positions : array_like (N, 3), table or SkyCoord
        x, y, z in the parent [h⁻¹Mpc, comoving]; on the sky right ascension and declination [degrees] and redshift.
        Quantities are converted, with the store's h where their unit has none; a table (astropy, pandas, structured,
        Dataset, mapping) goes by the columns x, y, z or ra, dec, z; a masked value is missing. A SkyCoord is on the
        sky: its distance is comoving, or ``redshift`` is given. A row that makes no sense is flagged.
    coordinates : {"box", "sky"}
        Which of the two. The sky needs a store with one observer. A SkyCoord is on the sky whatever this says.
    redshift : array_like (N,), optional
        Beside a SkyCoord without distances, and only there.
    space : {"real", "redshift"}
        Where the positions are. From redshift space the place in real space is sought along the line of sight
        (`velfield.answers.real_space`): this needs one observer, or one line of sight.
    extrapolate : bool
        Where a surrounding cell is not known, take the nearest one of the eight that is; otherwise NaN.
    max_shift : float
        From redshift space: how far away the place in real space may be [h⁻¹Mpc].
    cells : Cells, optional
        Of the same store, from an earlier query: the boxes that it has kept are not read again.

    Returns
    -------
    dict
        ``velocity`` (N, 3) [km/s]; ``velocity_std`` (N, 3) [km/s] where the store has it; ``v_los`` (N,) [km/s],
        positive away from the observer, where there is one observer or line of sight; ``position`` (N, 3): the place in
        real space, in the parent [h⁻¹Mpc]; ``flag`` (N,), uint8: 0, or the sum of what
        `velfield.answers.interpolate.MEANINGS` names. Unknown values are NaN.

    Raises
    ------
    VelfieldError
        Where most positions lie more than a side outside a periodic parent, or many fill the unit box or a
        thousandth of the parent's side: their unit is another (`velfield.answers.asked`).
    """
    cells = Cells(ds) if cells is None else cells  # refuses what is no store, or no part of one
    cosmology = cosmology_of(ds)
    max_shift = arguments.number(max_shift, "max_shift", "length", h=cosmology.h)
    distant = None
    if arguments.is_sky(positions):
        coordinates = "sky"
        ra, dec, z, distant = arguments.sky(positions, redshift=redshift, h=cosmology.h)
        given = np.stack([ra, dec, np.zeros_like(ra) if z is None else z], axis=1)
    elif redshift is not None:
        raise VelfieldError("a redshift beside positions: it is given with a SkyCoord; make it their third column")
    else:
        names = arguments.SKY if coordinates == "sky" else arguments.POSITIONS
        given = arguments.rows(positions, "positions", names, h=cosmology.h)
        if given.ndim != 2 or given.shape[1] != 3:
            raise VelfieldError(f"positions of the wrong shape: positions={given.shape}; give (N, 3)")
        if coordinates == "box":
            asked = Asked(ds, f"positions={given.shape}", stated=arguments.has_unit(positions))
            asked.add(given)
            asked.check("give a Quantity, as positions * u.Mpc / littleh")
    return answer(
        ds,
        given.astype(np.float64, copy=False),
        coordinates=coordinates,
        distance=distant,
        space=space,
        extrapolate=extrapolate,
        max_shift=max_shift,
        cells=cells,
    )


def answer(
    ds: xr.Dataset,
    given: NDArray[np.float64],
    *,
    coordinates: str,
    space: str,
    cells: Cells,
    extrapolate: bool = False,
    max_shift: float = MAX_SHIFT,
    distance: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[Any]]:
    """What `query_positions` gives of some of many positions (N, 3) in our units; each row for itself.

    On the sky ``distance`` (N,) [h⁻¹Mpc, comoving] is taken in place of the third column.
    """
    observer, towards = check_question(ds, coordinates, space, max_shift)
    cosmology = cosmology_of(ds)
    if coordinates == "sky" and observer is not None:
        direction: Any = sky.directions(given[:, 0], given[:, 1])
        if distance is None:
            place = sky.positions(*given.T, cosmology=cosmology, observer=observer)
        else:
            place = observer + direction * np.where((distance >= 0) & (distance < np.inf), distance, np.nan)[:, None]
    else:
        place = given.copy()
        place[~np.logical_and.reduce([np.isfinite(along) for along in given.T])] = np.nan
        direction = _directions(place, observer, towards)
    invalid, asked, unsolved = np.isnan(place[:, 0]), place, np.zeros(0, dtype=np.int64)
    if space == "redshift":
        place, flag = real_positions(
            cells,
            asked,
            direction,
            per_velocity=1 / cosmology.aH(float(ds.attrs["redshift"])),
            observer=observer,
            max_shift=max_shift,
            extrapolate=extrapolate,
        )
        unsolved = np.flatnonzero(flag == UNSOLVED)
    values, state = trilinear(cells, place, extrapolate=extrapolate)
    if space == "redshift":
        state[unsolved] = np.where(cells.holding(asked[unsolved]) == ABSENT, OUTSIDE, 0)
        state |= flag
    if coordinates == "sky":  # the observer sees the parent once, not its images
        beyond = ((place < 0) | (place >= cells.layout.boxsize)).any(axis=1)
    else:
        beyond = beyond_images(asked, cells.layout.boxsize)
    values[beyond], state[beyond] = np.nan, OUTSIDE
    state[invalid] = INVALID
    found = {"velocity": values[:, :3]}
    if "velocity_std" in cells.names:
        found["velocity_std"] = values[:, 3:]
    if direction is not None:
        x, y, z = (v * along for v, along in zip(values.T, direction.T, strict=False))
        found["v_los"] = x + y + z
    return found | {"position": place, "flag": state}


def counted(flag: NDArray[np.uint8]) -> Counter[str]:
    """How many flags (N,) have each of `velfield.answers.interpolate.MEANINGS`, and how many are `GOOD`."""
    counts = {text: int((flag & bit > 0).sum()) for bit, text in MEANINGS.items()}
    return Counter({GOOD: int((flag == 0).sum()), **counts})


def check_question(
    ds: xr.Dataset, coordinates: str, space: str, max_shift: float = MAX_SHIFT
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """The one observer and the one line of sight of a store, or None; refuses what cannot be asked of it."""
    if coordinates not in COORDINATES or space not in SPACES:
        raise VelfieldError(
            f"no such positions: coordinates={coordinates}, space={space}; coordinates are box or sky, space is real "
            "or redshift"
        )
    if not 0 < max_shift < np.inf:
        raise VelfieldError(f"no such shift: max_shift={max_shift}; give a positive length [h⁻¹Mpc]")
    check_attributes(ds)
    observer, towards = shared(ds, "observer"), shared(ds, "line_of_sight")
    where = f"store={ds.encoding.get('source')}, rsd={ds.attrs['rsd']}"
    several = "each box has an observer of its own" if "observer" in ds.coords else "it has no observer"
    if coordinates == "sky" and observer is None:
        raise StoreError(f"no sky to look at, {several}: {where}; give positions in the parent (coordinates box)")
    if space == "redshift" and observer is None and towards is None:
        raise StoreError(f"not seen from one place, {several}: {where}; give positions in real space")
    return observer, towards


def open_store(url: str) -> xr.Dataset:
    """Open a velocity store or a field store by what it says it is, without Dask."""
    if storage.exists(storage.join(url, ROOT)) and attributes(url).get("velfield_kind") == "fields":
        return open_fields(url, chunks=None)
    return open_velocity(url, chunks=None)


def _directions(
    place: NDArray[np.float64], observer: NDArray[np.float64] | None, towards: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """Unit vectors (N, 3) away from the observer, NaN where it stands itself; None without one."""
    if observer is None:
        return None if towards is None else np.broadcast_to(towards, place.shape)
    away = place - observer
    with np.errstate(over="ignore"):  # of what is no place in any store
        length = np.sqrt((away**2).sum(axis=1))[:, None]
    return np.divide(away, length, out=np.full_like(away, np.nan), where=length > 0)
