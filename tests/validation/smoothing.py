"""How far to smooth halos for linear theory: the scan of docs/measures.md, as its Markdown table.

velfield demo demo
python tests/validation/smoothing.py demo/fields-3.zarr
"""

import argparse

from velfield.analysis.evaluate import evaluate

SHOWN = ("slope", "residuals_200", "cos_theta", "r", "rms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", nargs="+")
    parser.add_argument("--radii", type=float, nargs="+", default=[0, 2.5, 5, 7.5, 10])
    parser.add_argument("--models", nargs="+", default=["linear_halo_padded", "linear_halo", "linear_padded"])
    asked = parser.parse_args()
    print(f"| model | R [h⁻¹Mpc] | {' | '.join(SHOWN)} |\n|{' --- |' * (len(SHOWN) + 2)}")  # noqa: T201
    for model in asked.models:
        for radius in asked.radii:
            row = evaluate(model, asked.fields, smoothing=radius)[model]
            values = [f"{row[name]['mean']:.{0 if name == 'rms' else 3}f}" for name in SHOWN]
            print(f"| `{model}` | {radius:g} | {' | '.join(values)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
