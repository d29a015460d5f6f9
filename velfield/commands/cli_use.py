"""Verbs that use what was learnt: predict; and demo and experiment, which go the whole way."""

from __future__ import annotations

import shutil
from typing import Any

import click

from velfield.commands.cli_options import (
    ACCEPT,
    AVERAGE_HELP,
    OUTSIDE,
    Cluster,
    Grouped,
    cluster_options,
    note,
    option_group,
    painting_options,
    reading_options,
)
from velfield.commands.runfile import config_option
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.files.progress import Terminal
from velfield.pipelines.checked_toml import shipped

EXPERIMENT_HELP = f"""An experiment of the paper, from nothing to its table and figures, beneath FOLDER.

NAME is one of {", ".join(shipped())}, or a file like theirs (docs/experiments.md). Experiments in one FOLDER, run one
after the other, share universes, stores, models and evaluations. Exits with 75 when --minutes are over and work is
left: run the same command until it exits with 0.
"""


@click.command(cls=Grouped)
@click.argument("model")
@click.argument("fields", metavar="INPUT")
@click.argument("out")
@option_group(
    "For a catalogue, how it is painted",
    painting_options,
    click.option("--boxes", type=int, help="Boxes along the parent's side.  [default: as the model's]"),
    click.option("--cells", type=int, help="Cells along a box's side.  [default: as the model's]"),
)
@option_group(
    "For a catalogue, how it is read",
    reading_options,
    click.option("--outside", type=OUTSIDE, default="refuse", help="Positions outside the parent."),
)
@option_group(
    "How the volume is cut",
    click.option("--isolated", is_flag=True, help="Predict box by box, also where the boxes are one parent."),
    click.option(
        "--tile", type=click.IntRange(1), help="Cells along a tile's side.  [default: the training's, or wider]"
    ),
    click.option("--overlap", type=click.IntRange(0), help="Cells that neighbouring tiles share."),
)
@option_group(
    "For linear theory",
    click.option(
        "--tracer",
        type=click.Choice(["number", "mass"]),
        default="number",
        help="How halos are weighted in linear_halo, linear_halo_padded and linear_whole.",
    ),
    click.option("--smoothing", type=float, help="Gaussian radius [h⁻¹Mpc].  [default: the model's own]"),
)
@option_group(
    "For a network",
    click.option("--average", type=int, default=1, help=AVERAGE_HELP),
    click.option("--guide-margin", type=click.IntRange(0), help="Cells around a tile that its guide sees."),
    click.option(
        "--batch",
        type=click.IntRange(1),
        help="Boxes or tiles at a time.  [default: 4 of the training's size, fewer larger ones]",
    ),
    click.option("--gpu", is_flag=True, help="Give its work to workers that offer GPU=1."),
)
@ACCEPT
@click.option("--plan", is_flag=True, help="Print what would be read, made and needed, and stop.")
@cluster_options()
@config_option
def predict(model: str, fields: str, out: str, plan: bool, cluster: Cluster, **options: Any) -> None:
    """Predict velocities from INPUT, a field store or a catalogue of halos, into a velocity store at OUT.

    MODEL is linear, linear_padded, linear_halo, linear_halo_padded, wiener, linear_whole, pretrained (the
    network that comes with velfield), or the URL of a bundle; ./pretrained is a folder of that name.

    A network is shown a store whose boxes are one parent, all seen by one observer, as overlapping tiles with
    their real neighbours, and any other box by box (docs/prediction.md). A catalogue is painted to OUT.fields
    first, which needs --rsd; that store is removed at the end.
    """
    from velfield.pipelines.predict_job import prepare

    if not storage.exists(fields):  # before an option is taken for wrong that fits what was meant
        raise VelfieldError(f"no such file or folder: input={fields}; {storage.did_you_mean(fields)}check the path")
    model, fields, out = cluster.model(model), cluster.path(fields), cluster.path(out)
    asked = {name: options.pop(name) for name in PREDICTING}
    settings = {"model": model, "input": fields, "out": out} | asked
    if _is_catalogue(fields):
        _from_catalogue(model, fields, out, plan, cluster, asked, options)
        return
    context = click.get_current_context()
    for name in options:
        if context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT):
            option = next(p for p in context.command.params if p.name == name)
            raise VelfieldError(
                f"{max(option.opts, key=len)} is for catalogues only: {name}={options[name]}, input={fields}; "
                "leave it out"
            )
    job = prepare(model, fields, out, **asked)
    _announce(job)
    if plan:
        click.echo(_plan_text(job))
        return
    if job.receipts.finished():
        click.echo(f"already predicted, nothing done: {out}")
        _remark(out)
        return
    with cluster.running("predict", settings) as (client, progress):
        _run(client, job, progress)
    _remark(out)
    click.echo(f"predicted {job.layout.nbox} boxes: {out}")


PREDICTING = (
    "batch",
    "average",
    "tile",
    "overlap",
    "guide_margin",
    "isolated",
    "tracer",
    "smoothing",
    "gpu",
    "accept",
)


def _is_catalogue(url: str) -> bool:
    """Whether a catalogue is what lies at a URL; a store, and a place with nothing, are not."""
    from velfield.catalogues import catalogue
    from velfield.files import shards
    from velfield.stores import store

    if shards.published(url) or storage.exists(storage.join(url, store.WORK)) or not storage.exists(url):
        return False
    return not storage.is_folder(url) or catalogue.is_folder_of_parts(url)


def _plan_text(job: Any) -> str:
    """What a prediction will need, for people."""
    from velfield.pipelines.predict_plan import plan_of

    return plan_of(job).table()


def _from_catalogue(
    model: str,
    url: str,
    out: str,
    plan: bool,
    cluster: Cluster,
    asked: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Paint a catalogue beside the result, predict, and take the fields away."""
    from velfield.pipelines.paint_plan import check_fits
    from velfield.pipelines.paint_plan import plan_of as paint_plan
    from velfield.pipelines.predict_catalogue import from_catalogue
    from velfield.pipelines.predict_plan import both
    from velfield.pipelines.predict_plan import check_fits as check_prediction
    from velfield.pipelines.predict_plan import plan_of as prediction_plan

    boxes, cells = options.pop("boxes"), options.pop("cells")
    reading = {
        "halo_column": tuple(options.pop("columns")),
        "halo_velocity": options.pop("velocity"),
        "halo_table": options.pop("table"),
    }
    work = from_catalogue(model, url, out, boxes=boxes, cells=cells, paint=options | reading, options=asked)
    for text in work.paint.notes:
        note(text)
    planned = paint_plan(work.paint)
    if not plan and work.finished():
        click.echo(f"already predicted, nothing done: {out}")
        _remark(out)
        return
    job, fields = work.expected()
    prediction = prediction_plan(job, fields)
    if plan:
        click.echo(both(planned, prediction))
        return
    settings = {"model": model, "input": url, "out": out, "boxes": boxes, "cells": cells} | asked | options
    with work.clearing(), cluster.running("predict", settings) as (client, progress):
        check_fits(planned, client)
        check_prediction(prediction, client)
        job = work.painted(client, progress)
        _announce(job)
        _run(client, job, progress)
    _remark(out)
    click.echo(f"predicted {job.layout.nbox} boxes: {out}")


def _announce(job: Any) -> None:
    for difference in job.differences:
        note(difference)


def _remark(out: str) -> None:
    """Say what a result says of itself that is worth knowing."""
    from velfield.pipelines.predict import remarks

    for text in remarks(out):
        note(text)


def _run(client: Any, job: Any, progress: Any) -> None:
    from velfield.pipelines.predict import predict as run
    from velfield.pipelines.predict_plan import check_fits, plan_of

    check_fits(plan_of(job), client)
    run(client, job, progress)


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--boxes", type=int, default=3, help="Boxes along a parent's side.")
@click.option("--cells", type=int, default=32, help="Cells of 5 h⁻¹Mpc along a box's side.")
@click.option("--particles", type=int, default=160, help="Particles along a parent's side.")
@click.option("--min-halo-mass", type=float, default=3e11, help="Least massive halo [h⁻¹M⊙].")
@click.option("--steps", type=int, default=450, help="Training steps.")
@click.option("--seed", type=int, default=1, help="Of the first of the three universes.")
@click.option("--workers", type=click.IntRange(1), help="Local worker processes.  [default: one a core]")
def demo(folder: str, workers: int | None, **options: Any) -> None:
    """The whole journey on a miniature universe, on this machine, in minutes; ends with a table and report.html."""
    from velfield.accuracy.standing import headline, lost, standings
    from velfield.accuracy.tables import table
    from velfield.pipelines.demo import LEGEND, DemoConfig, rows_of
    from velfield.pipelines.demo import demo as run

    with Terminal() as progress:
        new = run(folder, DemoConfig(**options), progress, workers)
    if not new:
        click.echo(f"already there, nothing done: {folder}")
    rows, width = rows_of(folder), shutil.get_terminal_size().columns
    click.echo(table(rows, width=width))
    for sentence in (LEGEND, headline(rows), standings(rows)[0].sentence(), lost(rows)):
        click.echo("\n" + click.wrap_text(sentence, width=min(width, 100)))
    click.echo(f"\nreport: {storage.join(folder, 'report.html')}")


@click.command(help=EXPERIMENT_HELP)
@click.argument("name")
@click.argument("folder")
@click.option(
    "--scale",
    help="How large: miniature, reduced, paper, pretrained, or one of --scales.  [default: the file's own, or "
    "miniature]",
)
@click.option("--scales", metavar="FILE", help="A file of other scales.")
@click.option("--minutes", type=float, help="Stop after so long, as at Ctrl-C, and exit with 75.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Local worker processes, or threads that paint from memory.  [default: one a core]",
)
@click.option(
    "--keep-universes/--no-keep-universes",
    default=None,
    help="Whether universes are written, and stay, or are painted from memory and never written.  "
    "[default: the scale's]",
)
def experiment(name: str, folder: str, **options: Any) -> None:
    """Run an experiment."""
    from velfield.pipelines.experiment import experiment as run
    from velfield.pipelines.experiment_report import TABLE

    with Terminal() as progress:
        outcome = run(name, folder, progress=progress, note=note, **options)
    if not outcome.new:
        click.echo(f"already there, nothing done: {outcome.out}")
    page = storage.join(outcome.out, TABLE)
    _, said, rest = storage.read_bytes(page).decode().partition("Mean ±")
    click.echo(said + rest.partition("\n##")[0].partition("\n![")[0])
    click.echo(f"results: {page}")
