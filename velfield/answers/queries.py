"""Velocities at given positions: in the parent or on the sky, in real or in redshift space (docs/query.md)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

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


def query(store: str | xr.Dataset, positions: ArrayLike, **options: Any) -> dict[str, NDArray[Any]]:
    """Velocities at positions, from a store by its URL or as it was opened; all else as in `query_positions`."""
    ds = store if isinstance(store, xr.Dataset) else open_store(store)
    return query_positions(ds, positions, **options)


def query_positions(
    ds: xr.Dataset,
    positions: ArrayLike,
    *,
    coordinates: str = "box",
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
    positions : array_like (N, 3)
        x, y, z in the parent [h⁻¹Mpc, comoving]; on the sky right ascension and declination [degrees] and redshift.
        A row that makes no sense is flagged.
    coordinates : {"box", "sky"}
        Which of the two. The sky needs a store with one observer.
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
    """
    given = np.asarray(positions, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 3:
        raise VelfieldError(f"positions of the wrong shape: positions={given.shape}; give (N, 3)")
    observer, towards = check_question(ds, coordinates, space, max_shift)
    cells = Cells(ds) if cells is None else cells
    cosmology = cosmology_of(ds)
    if coordinates == "sky" and observer is not None:
        place = sky.positions(*given.T, cosmology=cosmology, observer=observer)
        direction: Any = sky.directions(given[:, 0], given[:, 1])
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
