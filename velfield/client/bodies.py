"""Bodies of requests and answers, as arrays."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from velfield import arguments
from velfield.errors import VelfieldError

ARRAY = "Velfield-Array"  # the head that says what an answer's numbers are


CUBE = ("x", "y", "z")


def cubes_of(arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Cubes (x, y, z) to be sent: counts, masses and over-densities as plain numbers; refuses missing cells."""
    found = {}
    for name, values in arrays.items():
        quantity = "mass" if name == "halo_mass" else "number"
        found[name] = arguments.numbers(values, name, quantity, dims=CUBE)
        holes = int(np.count_nonzero(~np.isfinite(found[name])))
        if holes:
            raise VelfieldError(
                f"a cube with holes: {name}, not finite={holes} of {found[name].size} cells; give a number for each"
            )
        if name.endswith("_overdensity"):
            arguments.overdensity(found[name], name)
    return found


def npz_of(arrays: Mapping[str, ArrayLike], dtype: Any = np.float32) -> bytes:
    """Arrays as the bytes of an npz."""
    data = io.BytesIO()
    np.savez(data, **{name: np.asarray(values, dtype=dtype) for name, values in arrays.items()})  # type: ignore[arg-type]
    return data.getvalue()


def arrays_of(answer: httpx.Response) -> dict[str, NDArray[Any]]:
    """The arrays of an answer that is an npz."""
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def plane_of(answer: httpx.Response) -> xr.DataArray:
    """A plane or a coarse cube, with the coordinates of its cells' centres [h⁻¹Mpc]."""
    about = json.loads(answer.headers[ARRAY])
    shape, dims = about.pop("shape"), about.pop("dims")
    coords: dict[str, Any] = {
        name: (np.arange(count) + 0.5) * about["cellsize"] for name, count in zip(dims, shape, strict=True)
    }
    if "component" in coords:
        coords["component"] = ["x", "y", "z"]
    values = np.frombuffer(answer.content, "<f4").reshape(shape)
    return xr.DataArray(values, dims=dims, coords=coords, name=about.pop("variable"), attrs=about)
