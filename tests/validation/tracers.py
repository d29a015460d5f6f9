"""What halos know of the velocity, scale by scale, by number, by mass, and by both: the table of docs/accuracy.md.

velfield simulate cat --boxsize 600 --particles 360 --redshift 0 --seed 301
velfield paint fields.zarr --halos cat/m000-499.fofproperties --particles cat/m000.mpicosmo.499 --boxes 2 --cells 60
python tests/validation/tracers.py fields.zarr

Correlation of the true velocity with that of linear theory in bands of |k|; in each the best sum of number and mass.
"""

import argparse
import itertools

import numpy as np
import scipy.fft

from velfield.physics.linear import wavevectors
from velfield.stores.store import open_fields
from velfield.theory.whole import layout_of, whole_cube

EDGES = (0.005, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # h Mpc⁻¹


def true_velocity(ds, layout):
    """Of the whole parent (3, x, y, z), from the boxes' cores."""
    whole = np.empty((3, *(layout.ngrid,) * 3), dtype=np.float32)
    for box, corner in enumerate(np.rint(ds["origin"].values / layout.cellsize).astype(int)):
        core = ds.velfield.core(ds.isel(box=box))["velocity"].transpose("component", "x", "y", "z")
        whole[:, *(slice(first, first + layout.cells) for first in corner)] = core
    return whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields")
    ds = open_fields(parser.parse_args().fields, chunks=None)
    layout = layout_of(ds)
    shape = (layout.ngrid,) * 3
    k = wavevectors(shape, np.full(3, layout.boxsize))
    k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    k2[0, 0, 0] = np.inf
    weight = np.full(k2.shape, 2.0)  # of a mode and its mirror image, which a real transform leaves out
    weight[..., 0] = weight[..., -1] = 1
    true = [scipy.fft.rfftn(one) for one in true_velocity(ds, layout)]

    def velocity(variable):
        modes = scipy.fft.rfftn(whole_cube(ds, variable)) / k2
        return [1j * along * modes for along in k]

    def product(one, other, band):
        return sum(float((a * b.conj()).real[band] @ weight[band]) for a, b in zip(one, other, strict=True))

    fields = {name: velocity(name) for name in ("halo_number", "halo_mass", "matter_number")}
    print("| k [h Mpc⁻¹] | number | mass | both | mass's share | matter |\n| --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for low, high in itertools.pairwise(EDGES):
        band = (k2 >= low**2) & (k2 < high**2)
        power = product(true, true, band)
        r = {n: product(v, true, band) / np.sqrt(product(v, v, band) * power) for n, v in fields.items()}
        two = [fields["halo_number"], fields["halo_mass"]]
        share = np.array([product(v, true, band) for v in two])
        best = np.linalg.solve([[product(v, w, band) for v in two] for w in two], share)
        both, part = np.sqrt(best @ share / power), best[1] / np.abs(best).sum()
        values = (r["halo_number"], r["halo_mass"], both, part, r["matter_number"])
        print(f"| {low:g} – {high:g} | {' | '.join(f'{value:.3f}' for value in values)} |")  # noqa: T201


if __name__ == "__main__":
    main()
