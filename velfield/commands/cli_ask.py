"""Verbs that ask a store for its velocities: query, at positions, and export, in other forms."""

from __future__ import annotations

from typing import Any

import click

from velfield.commands.cli_options import note
from velfield.errors import VelfieldError
from velfield.files.progress import Terminal


@click.command()
@click.argument("store")
@click.argument("table")
@click.argument("out")
@click.option(
    "--coordinates",
    type=click.Choice(["box", "sky"]),
    default="box",
    help="x, y, z in the parent [h⁻¹Mpc]; or ra, dec [degrees] and redshift z, seen by the store's one observer.",
)
@click.option(
    "--space",
    type=click.Choice(["real", "redshift"]),
    default="real",
    help="Where the positions are; from redshift space the real ones are sought along the line of sight.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="The table's name of x, y, z (or ra, dec, z); may be repeated. With its unit: 'x=X [kpc]'.",
)
@click.option("--extrapolate", is_flag=True, help="At the edge of the data take the nearest known cell; flagged.")
@click.option("--max-shift", type=float, default=20.0, help="How far the real position is sought [h⁻¹Mpc].")
@click.option("--prefix", default="", help="Put before the names of the columns that are added.")
@click.option("--extension", help="Which table of a FITS or HDF5 file, by name or number.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
def query(store: str, table: str, out: str, **options: Any) -> None:
    """Add velocities to the positions in TABLE, from the velocity store or field store STORE, and write OUT.

    TABLE and OUT are CSV, Parquet, FITS, HDF5 or Arrow's stream (.csv, .parquet, .fits, .h5, .arrow). Added are
    vx vy vz, std_x std_y std_z where there are error bars, v_los where there is an observer, the real position from
    redshift space, and flag: 0, or why a velocity is missing or less sure (docs/query.md).
    """
    from velfield.answers.queries import GOOD
    from velfield.answers.query_table import query_table

    with Terminal() as progress:
        counts = query_table(store, table, out, progress=progress, **options)
    for text, rows in counts.items():
        if rows and text != GOOD:
            note(f"{rows} rows: {text}")
    click.echo(f"good velocities in {counts[GOOD]} rows: {out}")


def _spheres(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> list[list[float]]:
    try:
        return [[float(number) for number in text.split(",")] for text in given]
    except ValueError:
        raise VelfieldError(f"not a sphere: sphere={', '.join(given)}; write x,y,z,radius, or a radius") from None


@click.command()
@click.argument("store")
@click.argument("out")
@click.option(
    "--quantity",
    "quantities",
    multiple=True,
    help="velocity, velocity_std, speed, v_los, divergence or potential; may be repeated.  [default: velocity]",
)
@click.option("--box", "boxes", type=int, multiple=True, help="A box alone; may be repeated.  [default: the whole]")
@click.option(
    "--sphere",
    "spheres",
    multiple=True,
    metavar="X,Y,Z,R",
    callback=_spheres,
    help="Bulk flow in a sphere [h⁻¹Mpc], R alone around the observer; may be repeated. OUT is then a table.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
def export(
    store: str,
    out: str,
    quantities: tuple[str, ...],
    boxes: tuple[int, ...],
    spheres: list[list[float]],
    overwrite: bool,
) -> None:
    """Write the velocities of the velocity store or field store STORE in another form to OUT.

    A cube of the whole volume, or some boxes: NetCDF (.nc) or FITS (.fits). With --sphere a table of bulk flows: .csv,
    .parquet, .fits or .h5. What the quantities are: docs/query.md.
    """
    from velfield.answers.export import bulk_flows
    from velfield.answers.export import export as run

    if spheres and (quantities or boxes):
        raise VelfieldError(
            f"two forms at once: sphere={len(spheres)}, quantity={','.join(quantities)}, box={len(boxes)}; "
            "ask for cubes and for bulk flows one after the other"
        )
    with Terminal() as progress:
        if spheres:
            flows = bulk_flows(store, spheres, out, overwrite=overwrite, progress=progress)
            for sphere, flow in zip(spheres, flows, strict=True):
                x, y, z = flow.velocity
                click.echo(
                    f"radius {sphere[-1]:g} h⁻¹Mpc: {x:.1f}, {y:.1f}, {z:.1f} km/s from {flow.cells} cells, "
                    f"{100 * flow.inside:.4g} % of the sphere"
                )
        else:
            run(
                store,
                out,
                quantities=quantities or ("velocity",),
                boxes=boxes or None,
                overwrite=overwrite,
                progress=progress,
            )
    click.echo(f"exported: {out}")
