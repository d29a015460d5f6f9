"""How a network is shown a store: in tiles of how many cells, how many together, with which of its error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from velfield.errors import VelfieldError
from velfield.geometry.tiles import Tiling, tiling
from velfield.theory import analytic
from velfield.theory.whole import layout_of

if TYPE_CHECKING:
    from velfield.network.model import Model

BATCH = 4  # boxes or tiles of the training's size that go through a network together
TILE_BYTES = 3 * 2**29  # that a network holds of a tile whose side is not asked for
FEATURES = 22  # floats a cell and channel of width that a network holds while it predicts: docs/prediction.md


def surrounded(tiles: Tiling) -> bool:
    """Whether the tiles have neighbours; the one of a small parent that does not repeat is a box by itself."""
    return tiles.periodic or tiles.count > 1


def shown_as(tiles: Tiling, guide_margin: int) -> dict[str, int]:
    """How large tiles are shown, which their errors depend on."""
    return {"side": tiles.side, "overlap": tiles.overlap, "guide_margin": guide_margin}


def whole_bars(loaded: Model, tiles: Tiling, guide_margin: int, about: dict[str, Any]) -> list[str]:
    """Take the calibration over whole parents, if there is one, into ``about``; returns what is to be said of it."""
    whole = loaded.whole_calibration
    if whole is None:
        return [
            "the model's error bars are calibrated on boxes as its training showed them, and may be too wide for a "
            "whole parent: velfield calibrate makes them fit"
        ]
    about["calibration"] = whole.map.to_dict()
    shown = shown_as(tiles, guide_margin)
    return [
        f"the model's error bars are calibrated for tiles with {name}={whole.tiles[name]}, here it is {value}"
        for name, value in shown.items()
        if value != whole.tiles[name]
    ]


def batch_of(loaded: Model, side: int) -> int:
    """How many boxes or tiles of this side have the cells of `BATCH` of the training's; one at least."""
    return max(1, min(BATCH, BATCH * loaded.trained_side**3 // side**3))


def tiles_of(
    loaded: Model, ds: xr.Dataset, asked: dict[str, int | None]
) -> tuple[Tiling, int, tuple[analytic.Settings, ...]]:
    """The tiles of the store's parent, how far around them a guide sees, and the guide's settings."""
    tiles = tiling(
        ngrid=layout_of(ds).ngrid,
        periodic=bool(ds.attrs["periodic"]),
        side=asked["tile"],
        overlap=asked["overlap"],
        context=loaded.context,
        reach=loaded.reach,
        multiple=2**loaded.net.config.depth,
        local=loaded.guide is None or loaded.guide.name == analytic.WHOLE,
        trained=loaded.trained_side,
        largest=TILE_BYTES // (4 * FEATURES * loaded.net.config.width),
    )
    guide, margin = loaded.guide, asked["guide-margin"]
    sees = guide is not None and guide.sees_margin
    if margin is not None and not sees:
        name = guide.name if guide is not None else None
        raise VelfieldError(f"nothing sees a margin: guide-margin={margin}, the model's guide={name}; leave it out")
    trained = int(loaded.metadata["trained_on"]["margin"])
    margin = max(loaded.context, trained if margin is None else margin) if sees else loaded.context
    how = () if guide is None else guide.settings(ds, margin=margin if sees else None)
    return tiles, margin, how
