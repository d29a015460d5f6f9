"""Linear theory on the boxes of a field store: the rows that a network is measured against.

``linear`` is the paper's FFT: the dark matter's over-density in real space, one box without its surroundings, taken as
periodic although it is not. ``linear_padded`` surrounds the box with as much empty space as it has itself, which
removes the images of the box; beyond the margin that a store may have, its surroundings stay unknown. ``linear_halo``
and ``linear_halo_padded`` do the same with what a survey has: halos in redshift space, smoothed and divided by their
bias. ``wiener`` makes the best of them that a linear method can: it weighs every mode by what the shot noise and the
box's edges leave of it, and undoes redshift space to first order (`velfield.physics.wiener`). ``linear_whole`` sees all
that there is: the halos of the whole periodic parent, put together from its boxes, redshift space undone to linear
order (`velfield.physics.reconstruction`). Where halos were observed in redshift space and nobody says from where, the
last two divide by what it does on average over all directions, b + f/3 in place of b (docs/conventions.md).

Names and settings are in `velfield.theory.settings`, and offered here, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.physics.linear import components, linear_velocity
from velfield.physics.modes import cells_of, forward, room
from velfield.physics.reconstruction import matter_modes
from velfield.physics.wiener import Survey, wiener_velocity
from velfield.stores import sight
from velfield.stores.coordinates import whole_boxes
from velfield.stores.store import cosmology_of, velocity_in_memory
from velfield.theory.settings import HALOS as HALOS
from velfield.theory.settings import NAMES as NAMES
from velfield.theory.settings import TRACERS as TRACERS
from velfield.theory.settings import WHOLE as WHOLE
from velfield.theory.settings import WIENER as WIENER
from velfield.theory.settings import LinearSettings, WienerSettings
from velfield.theory.settings import Settings as Settings
from velfield.theory.settings import WholeSettings as WholeSettings
from velfield.theory.settings import check_tracer as check_tracer
from velfield.theory.settings import settings as settings
from velfield.theory.whole import (
    Cache,
    inside_parent,
    layout_of,
    read_overdensity,
    reading_bytes,
    seen_from_parent,
    whole_cube,
    windows,
)

KEPT = Cache()  # of this process


@dataclass(frozen=True, kw_only=True)
class AnalyticModel:
    """A model of linear theory as it is used, like a network: shown field stores, asked for velocities.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    tracer : str
        ``number`` or ``mass``: how halos are weighted in the ``linear_halo`` rows and ``linear_whole``.
    smoothing : float, optional
        Gaussian radius [h⁻¹Mpc]; by default the model's own.
    """

    name: str
    tracer: str = "number"
    smoothing: float | None = None

    def __post_init__(self) -> None:
        check_tracer(self.name, self.tracer)

    def predict(self, ds: xr.Dataset, *, boxes: Sequence[int] | None = None) -> xr.Dataset:
        """Velocities of boxes of a field store, on the coordinates of its cores; held in memory.

        Parameters
        ----------
        ds : xarray.Dataset
            The field store, all of it for ``linear_whole``.
        boxes : sequence of int, optional
            Which boxes; all by default.
        """
        ds = whole_boxes(ds)
        how = settings(self.name, ds, tracer=self.tracer, smoothing=self.smoothing)
        numbers = list(range(ds.sizes["box"]) if boxes is None else boxes)
        if not numbers:
            raise VelfieldError("no box to predict: box=0; select at least one")
        return velocity_in_memory(ds, numbers, {"velocity": velocities(how, ds, numbers)})


def reconstruct(
    name: str | Settings, ds: xr.Dataset, box: int, *, tracer: str = "number", smoothing: float | None = None
) -> NDArray[np.float32]:
    """Velocity (3, x, y, z) [km/s] of the core of one box, as `velocities` gives it.

    ``name`` is one of `NAMES`, or what `settings` made of it, which saves the bias integral for each further box.
    """
    how = settings(name, ds, tracer=tracer, smoothing=smoothing) if isinstance(name, str) else name
    return velocities(how, ds, [box])[0]


def velocities(
    how: Settings, ds: xr.Dataset, boxes: Sequence[int], margin: int = 0, cache: Cache = KEPT
) -> NDArray[np.float32]:
    """Velocity (box, 3, x, y, z) [km/s] of boxes and their surroundings.

    Parameters
    ----------
    how : Settings
        What `settings` made of a model's name on this store.
    ds : xarray.Dataset
        A field store, as `velfield.stores.store.open_fields` gives it; for ``linear_whole`` all its boxes.
    boxes : sequence of int
        Numbers of the boxes wanted.
    margin : int
        Cells around each box's core that are wanted, too: at most those that the store has, none for ``linear`` and
        ``linear_halo``, which see the core alone; as many as you like for ``linear_whole``.
    cache : Cache
        Where ``linear_whole`` keeps the velocity of the whole parent for further boxes of the same store (by its URL
        and fingerprint) and settings: 12 bytes for each of its cells, 70 MB for 180³; while it is made what
        `whole_bytes` says beside it. A store that was not opened from a URL is not kept: ask for all its boxes at once.
    """
    ds = whole_boxes(ds)
    if isinstance(how, WholeSettings):
        key = (ds.encoding.get("source"), ds.attrs["fingerprint"], how)
        whole = whole_velocity(how, ds) if key[0] is None else cache.get(key, lambda: whole_velocity(how, ds))
        return np.stack([windows(whole, ds, box, margin) for box in boxes])
    seen = how.margin
    if not 0 <= margin <= seen:
        raise VelfieldError(
            f"the model does not see so far around a box: margin={margin}, seen={seen}, "
            f"store's margin={ds.attrs['margin']}; "
            "ask for less, or name linear_whole"
        )
    out = np.empty((len(boxes), 3, *(int(ds.attrs["cells"]) + 2 * margin,) * 3), dtype=np.float32)
    inner = slice(seen - margin, seen - margin + out.shape[-1])
    for place, box in enumerate(boxes):
        delta = read_overdensity(ds, how.variable, box, seen)
        velocity = _wiener(how, ds, box, delta) if isinstance(how, WienerSettings) else _linear(how, ds, delta)
        out[place] = velocity[:, inner, inner, inner]
    return out


def _linear(how: LinearSettings, ds: xr.Dataset, delta: NDArray[Any]) -> NDArray[np.float32]:
    """Linear theory on one box."""
    side, z = delta.shape[0] * float(ds.attrs["cellsize"]), float(ds.attrs["redshift"])
    velocity = linear_velocity(delta, side, cosmology_of(ds), z, bias=how.bias, pad=how.pad, smoothing=how.smoothing)
    return np.asarray(velocity, dtype=np.float32)


def _wiener(how: WienerSettings, ds: xr.Dataset, box: int, delta: NDArray[Any]) -> NDArray[np.float32]:
    """The Wiener filter on one box."""
    one, cellsize = ds.isel(box=box), float(ds.attrs["cellsize"])
    margin = (delta.shape[0] - int(ds.attrs["cells"])) // 2
    z, view = float(ds.attrs["redshift"]), sight.view(how.rsd, one)
    survey = Survey(
        boxsize=delta.shape[0] * cellsize,
        bias=_seen_bias(how, cosmology_of(ds).growth_rate(z)),
        density=how.density,
        mask=inside_parent(ds, box, margin),
        places=seen_from_parent(ds, box, margin) if "observer" in view else None,
        **view,
    )
    return wiener_velocity(delta, survey, cosmology=cosmology_of(ds), redshift=z)


def _seen_bias(how: WienerSettings | WholeSettings, growth_rate: float) -> float:
    """The halos' bias; where nobody says along what they were observed, the mean of b + f μ² over all directions."""
    return how.bias + (growth_rate / 3 if sight.kind(how.rsd) == sight.UNKNOWN else 0.0)


def whole_velocity(how: WholeSettings, ds: xr.Dataset) -> NDArray[np.float32]:
    """Linear theory on the whole parent (3, x, y, z) [km/s], redshift space undone."""
    velocity = np.empty((3, *(layout_of(ds).ngrid,) * 3), dtype=np.float32)
    for axis, component in enumerate(whole_components(how, ds)):
        velocity[axis] = component
    return velocity


def whole_components(how: WholeSettings, ds: xr.Dataset) -> Iterator[NDArray[np.float32]]:
    """The components of `whole_velocity` (x, y, z) [km/s], each there until the next one is asked for.

    `whole_bytes` says what is held meanwhile.
    """
    ds = whole_boxes(ds)
    cosmology, z, n = cosmology_of(ds), float(ds.attrs["redshift"]), layout_of(ds).ngrid
    shape, sides = (n,) * 3, np.full(3, float(ds.attrs["boxsize"]))
    one, growth_rate = ds.isel(box=0), cosmology.growth_rate(z)
    modes = room(shape, np.float32)
    whole_cube(ds, how.variable, out=cells_of(modes, n))
    forward(modes, n)
    modes = matter_modes(
        modes,
        shape,
        sides,
        bias=_seen_bias(how, growth_rate),
        growth_rate=growth_rate,
        **sight.view(how.rsd, one),
    )
    yield from components(modes, shape, sides, cosmology.aH(z) * growth_rate, smoothing=how.smoothing)


def whole_bytes(how: WholeSettings, ds: xr.Dataset) -> int:
    """The most bytes that `whole_components` holds.

    Cubes of float32: the modes and a component; or, around an observer, what is found, what is left of the equation,
    a field's modes and a field's cells. What it took to read the store may not have been given back by then.
    """
    n = layout_of(ds).ngrid
    cube, modes = 4 * n**3, 8 * n * n * (n // 2 + 1)
    return reading_bytes(ds, how.variable) + (3 * modes + cube if sight.kind(how.rsd) == sight.OBSERVER else 2 * modes)
