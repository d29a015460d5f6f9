"""Whether one factor makes the error bars of a whole parent right everywhere: the table of docs/network.md.

velfield predict MODEL fields.zarr velocity.zarr
python tests/validation/error_bars.py fields.zarr velocity.zarr

Errors, error bars and coverages of all components together, by the size of the bar, by the distance to the nearest face
of a tile (of the tiles that a cell is averaged over, by their weights; along the axis where it is least), and by the
density of matter. Errors of a share: its scatter over the boxes, over √boxes.
"""

import argparse
import itertools
import json
from dataclasses import fields as fields_of

import numpy as np

from velfield.accuracy.calibration import half_width
from velfield.geometry.tiles import Tiling
from velfield.stores.store import open_fields, open_velocity
from velfield.theory.parent import Parent

TENTHS = (0, 1, 5, 9, 10)  # of the components, by their bar
DEPTH = (0, 12, 18, 24, np.inf)  # cells
DENSITY = (0, 0.5, 1, 3, np.inf)  # 1 + δ


def depth_along(tiles):
    """Of each of the parent's cells along an axis, how far from the face it is in its tiles, by their weights."""
    cells = np.asarray(tiles.starts)[:, None] + np.arange(tiles.side)
    place = np.arange(tiles.side) + 0.5
    mean = np.zeros(tiles.ngrid)
    np.add.at(mean, cells % tiles.ngrid, tiles.weights * np.minimum(place, tiles.side - place))
    return mean


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields")
    parser.add_argument("velocity")
    asked = parser.parse_args()
    ds, made = open_fields(asked.fields, chunks=None), open_velocity(asked.velocity, chunks=None)
    core = ds.velfield.core(ds[["velocity", "matter_number"]])
    said = json.loads(made.attrs["prediction"])
    along = depth_along(Tiling(**{one.name: said[one.name] for one in fields_of(Tiling)}))
    order, cells = ("box", "component", "x", "y", "z"), int(made.attrs["cells"])
    error = made["velocity"].transpose(*order).values - core["velocity"].transpose(*order).values
    bar = made["velocity_std"].transpose(*order).values
    parent, shape = Parent(ds), (1, 1, *(cells,) * 3)
    places = [[along[cells * at : cells * (at + 1)] for at in parent.place(box)] for box in range(len(bar))]
    depth = np.stack([np.minimum(np.minimum(x[:, None, None], y[:, None]), z).reshape(shape[1:]) for x, y, z in places])
    density = core["matter_number"].transpose("box", "x", "y", "z").values[:, None] / ds["matter_number"].attrs["mean"]
    pull = np.abs(error) / bar
    edges = np.quantile(bar[:, :, ::4, ::4, ::4], np.array(TENTHS) / 10) * np.array(
        [0, *(1,) * (len(TENTHS) - 2), np.inf]
    )
    groups = [("all", np.ones_like(bar, dtype=bool))]
    for name, values, bounds in (("bar", bar, edges), ("cells to a face", depth, DEPTH), ("1 + δ", density, DENSITY)):
        for low, high in itertools.pairwise(bounds):
            here = np.broadcast_to((values >= low) & (values < high), bar.shape)
            groups.append((f"{name} {low:.3g} – {high:.3g}", here))
    print("| | components [%] | rms error | rms bar [km/s] | in 68 % bars | in 95 % bars | χ² |\n|" + " --- |" * 7)  # noqa: T201
    for name, here in groups:
        shares = []
        for z in (half_width(0.68), half_width(0.95)):
            inside = [(pull[b][here[b]] < z).mean() for b in range(len(bar)) if here[b].any()]
            shares.append(
                f"{100 * (pull[here] < z).mean():.1f} ± {100 * np.std(inside, ddof=1) / len(inside) ** 0.5:.1f}"
            )
        rms = [float(np.sqrt(np.mean(values[here] ** 2, dtype=float))) for values in (error, bar)]
        chi2 = np.mean(pull[here] ** 2, dtype=float)
        print(f"| {name} | {100 * here.mean():.0f} | {rms[0]:.0f} | {rms[1]:.0f} | {' | '.join(shares)} | {chi2:.2f} |")  # noqa: T201


if __name__ == "__main__":
    main()
