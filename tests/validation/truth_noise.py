"""How much the mean velocity of a cell owes to its few particles: the table of docs/accuracy.md, as Markdown.

velfield simulate cat --boxsize 600 --particles 360 --redshift 0 --seed 301
python tests/validation/truth_noise.py cat/m000.mpicosmo.499

Each particle goes into one of two halves at random. The difference of a cell's two means has the variance
σ² (1/n₁ + 1/n₂), σ² that of velocities in the cell; the mean of all n then has the error σ/√n.
"""

import argparse

import numpy as np

from velfield.catalogues.catalogue import open_catalogue

ROWS = 2**21


def halves(catalogue, cells, rng):
    """Number (half, cell) and momentum (half, 3, cell) of two random halves of the particles."""
    number, momentum = np.zeros((2, cells**3)), np.zeros((2, 3, cells**3))
    for block in range(len(catalogue.blocks)):
        for part in catalogue.chunks(block, rows=ROWS, masses=False):
            x, y, z = (np.floor(part.pos * (cells / catalogue.boxsize)).astype(np.int64) % cells).T
            cell, half = (x * cells + y) * cells + z, rng.integers(0, 2, len(x))
            for h in range(2):
                ours = half == h
                number[h] += np.bincount(cell[ours], minlength=cells**3)
                for axis in range(3):
                    momentum[h, axis] += np.bincount(cell[ours], part.vel[ours, axis], minlength=cells**3)
    return number, momentum


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("particles")
    parser.add_argument("--cellsize", type=float, default=5.0, help="h⁻¹Mpc")
    asked = parser.parse_args()
    catalogue = open_catalogue(asked.particles)
    cells = round(catalogue.boxsize / asked.cellsize)
    number, momentum = halves(catalogue, cells, np.random.default_rng(1))
    both, total = (number > 0).all(axis=0), number.sum(axis=0)
    first, second = momentum[:, :, both] / number[:, None, both]
    variance = ((first - second) ** 2).mean(axis=0) / (1 / number[:, both]).sum(axis=0)
    density = total / total.mean()
    print(f"{total.mean():.1f} particles in a mean cell; {both.mean():.1%} of the cells have some in both halves")  # noqa: T201
    print("| 1 + δ | cells | σ in a cell [km/s] | error of its mean [km/s] |\n| --- | --- | --- | --- |")  # noqa: T201
    for low, high in ((0, np.inf), (0, 0.5), (0.5, 1), (1, 3), (3, np.inf)):
        some = (density[both] >= low) & (density[both] < high)
        noise = np.sqrt((variance / total[both])[some].mean())
        shown = f"{some.sum() / len(total):.1%} | {np.sqrt(variance[some].mean()):.0f} | {noise:.1f}"
        print(f"| {low:g} – {high:g} | {shown} |")  # noqa: T201


if __name__ == "__main__":
    main()
