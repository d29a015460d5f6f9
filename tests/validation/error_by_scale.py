"""On which scales a prediction of a whole parent is wrong: the table of docs/accuracy.md, as Markdown.

velfield predict MODEL fields.zarr velocity.zarr
python tests/validation/error_by_scale.py fields.zarr velocity.zarr …

The rms of one component [km/s] that waves of a band of |k| make, of the true velocity and of each prediction's error.
"""

import argparse
import itertools

import numpy as np
import scipy.fft

from velfield.physics.linear import wavevectors
from velfield.stores.store import open_fields, open_velocity
from velfield.theory.whole import layout_of

EDGES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, np.inf)  # h Mpc⁻¹


def whole_velocity(ds):
    """Of the parent (3, x, y, z), from the boxes' cores."""
    layout, margin = layout_of(ds), int(ds.attrs["margin"])
    whole = np.empty((3, *(layout.ngrid,) * 3), dtype=np.float32)
    core = dict.fromkeys("xyz", slice(margin, margin + layout.cells))
    for box, corner in enumerate(np.rint(ds["origin"].values / layout.cellsize).astype(int)):
        values = ds["velocity"].isel(core | {"box": box}).transpose("component", "x", "y", "z")
        whole[:, *(slice(first, first + layout.cells) for first in corner)] = values
    return whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields")
    parser.add_argument("velocity", nargs="+")
    asked = parser.parse_args()
    fields = open_fields(asked.fields, chunks=None)
    layout, true = layout_of(fields), whole_velocity(fields)
    errors = [whole_velocity(open_velocity(url, chunks=None)) - true for url in asked.velocity]
    k = np.sqrt(sum(along**2 for along in wavevectors(true.shape[1:], np.full(3, layout.boxsize))))
    weight = np.full(k.shape, 2.0)  # of a mode and its mirror image, which a real transform leaves out
    weight[..., 0] = weight[..., -1] = 1
    powers = []
    for field in (true, *errors):
        power = sum(np.abs(scipy.fft.rfftn(one)) ** 2 for one in field) * weight / 3 / layout.ngrid**6
        powers.append(power)
    print(f"| k [h Mpc⁻¹] | true | {' | '.join(asked.velocity)} |\n|{' --- |' * (len(powers) + 1)}")  # noqa: T201
    for low, high in [*itertools.pairwise(EDGES), (EDGES[0], EDGES[-1])]:
        parts = [np.sqrt(power[(k >= low) & (k < high)].sum()) for power in powers]
        print(f"| {low:g} – {high:g} | {' | '.join(f'{part:.1f}' for part in parts)} |")  # noqa: T201


if __name__ == "__main__":
    main()
