"""Verbs that make data and look at them: simulate, paint, info, verify."""

from __future__ import annotations

import json
from typing import Any

import click

from velfield.commands.cli_options import (
    COSMOLOGY_HELP,
    Cluster,
    catalogue_options,
    cluster_options,
    cosmology,
    note,
    painting_options,
    reading_options,
)
from velfield.commands.runfile import config_option
from velfield.files.progress import Terminal


@click.command()
@click.argument("url")
@click.option("--boxsize", type=float, required=True, help="Side of the periodic volume [h⁻¹Mpc].")
@click.option("--particles", type=int, required=True, help="Particles along one side.")
@click.option("--redshift", type=float, multiple=True, default=(0.0,), help="Snapshot; may be repeated.")
@click.option("--seed", type=int, required=True, help="Of the initial conditions and the halos.")
@click.option("--min-halo-mass", type=float, default=3.7e10, help="Least massive halo written [h⁻¹M⊙].")
@click.option("--cosmology", callback=cosmology, default="outer-rim", help=COSMOLOGY_HELP)
@click.option("--steps", type=int, help="Particle-mesh steps.  [default: the configuration's]")
@click.option("--device", default="cpu", help="cpu or cuda.")
@config_option
def simulate(url: str, steps: int | None, redshift: tuple[float, ...], **options: Any) -> None:
    """Make a universe: particles and halos as GenericIO, in the Outer Rim release's names, beneath URL.

    Interrupted, the same command keeps the snapshots that are written and computes gravity anew for the others.
    """
    from velfield.simulation.simulate import SimulateConfig
    from velfield.simulation.simulate import simulate as run

    if steps is not None:
        options["steps"] = steps
    config = SimulateConfig(redshifts=redshift, **options)
    with Terminal() as progress:
        result = run(url, config, progress)
    if result.already_there:
        click.echo(f"already there, nothing done: {url}")
    for snapshot in result.snapshots:
        click.echo(
            f"z = {snapshot.redshift:.4g}: {snapshot.halos} ({snapshot.nhalos:,} halos), "
            f"{snapshot.particles} ({snapshot.nparticles:,} particles)"
        )


@click.command()
@click.argument("out")
@click.option("--halos", help="Catalogue of halos.")
@click.option("--particles", help="Catalogue of dark-matter particles.")
@click.option("--boxes", type=int, required=True, help="Boxes along the parent's side.")
@click.option("--cells", type=int, required=True, help="Cells along a box's side.")
@click.option("--margin", type=int, default=0, help="Cells of surroundings that each box carries on every side.")
@painting_options
@click.option("--validation", type=float, default=0.2, help="Share of the boxes set apart for validation.")
@click.option("--redshift", type=float, help="Of the snapshot, where the files' names do not say.")
@click.option("--parent", help="Name of the universe, one for all its snapshots.  [default: by simulation.json]")
@catalogue_options
@click.option("--plan", is_flag=True, help="Print what would be read, made and needed, and stop.")
@cluster_options()
@config_option
def paint(out: str, plan: bool, cluster: Cluster, **options: Any) -> None:
    """Paint catalogues into a field store of boxes at OUT."""
    from velfield.pipelines.paint import paint as run
    from velfield.pipelines.paint_job import PaintConfig, prepare
    from velfield.pipelines.paint_plan import check_fits, plan_of

    out = cluster.path(out)
    options |= {kind: cluster.path(options[kind]) for kind in ("halos", "particles")}
    job = prepare(out, PaintConfig(**options))
    for text in job.notes:
        note(text)
    planned = plan_of(job)
    if plan:
        click.echo(planned.table())
        return
    if job.receipts.finished():
        click.echo(f"already painted, nothing done: {out}")
        return
    with cluster.running("paint", {"out": out} | options) as (client, progress):
        check_fits(planned, client)
        run(client, job, progress)
    click.echo(f"painted {planned.boxes} boxes: {out}")


@click.command()
@click.argument("url")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(url: str, as_json: bool, **options: Any) -> None:
    """Say what is at URL: a catalogue, a store, a model bundle, a simulation, training, evaluation, experiment or demo.

    pretrained as URL is the model that comes with velfield.
    """
    from velfield.commands.info import describe, lines

    what = describe(url, **options)
    click.echo(json.dumps(what, indent=2) if as_json else "\n".join(lines(what)))


@click.command()
@click.argument("url")
@click.option("--inputs/--no-inputs", default=True, help="Look at what a store was made from, where it can be reached.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options()
def verify(url: str, inputs: bool, as_json: bool, cluster: Cluster, **reading: Any) -> int:
    """Read all of a store, model bundle, simulation or catalogue at URL and say what is wrong with it.

    pretrained as URL is the model that comes with velfield.

    Prints a line for each finding: what, where, the value found and the one expected. Exits 0 only if nothing is wrong,
    1 if something is, 2 if there is nothing to verify.
    """
    from velfield.pipelines.verify import verify as run
    from velfield.verification.verify import MODEL, check_model, kind_of

    url = cluster.model(url)
    if kind_of(url) == MODEL:
        report = check_model(url)
    else:
        with cluster.running("verify", {"url": url, "inputs": inputs} | reading) as (client, progress):
            report = run(client, url, inputs=inputs, progress=progress, **reading)
    click.echo(json.dumps(report.plain(), indent=2) if as_json else "\n".join(report.lines()))
    return 1 if report.damaged else 0
