"""Verbs that use what was learnt: predict; and demo and experiment, which go the whole way."""

from __future__ import annotations

import shutil
from typing import Any

import click

from velfield import storage
from velfield.cli_options import AVERAGE_HELP, Cluster, cluster_options, note
from velfield.pipelines.checked_toml import shipped
from velfield.progress import Terminal
from velfield.runfile import config_option

EXPERIMENT_HELP = f"""An experiment of the paper, from nothing to its table and figures, beneath FOLDER.

NAME is one of {", ".join(shipped())}, or a file like theirs (docs/experiments.md). Experiments in one FOLDER, run one
after the other, share universes, stores, models and evaluations. Exits with 75 when --minutes are over and work is
left: run the same command until it exits with 0.
"""


@click.command()
@click.argument("model")
@click.argument("fields")
@click.argument("out")
@click.option("--batch", type=click.IntRange(1), default=4, help="Boxes that go through the network together.")
@click.option("--average", type=int, default=1, help=AVERAGE_HELP)
@cluster_options()
@config_option
def predict(model: str, fields: str, out: str, batch: int, average: int, cluster: Cluster) -> None:
    """Predict the velocity of every box of the field store FIELDS, into a velocity store at OUT.

    MODEL is linear, linear_padded, linear_halo, linear_halo_padded, wiener, linear_whole, pretrained (the
    network that comes with velfield), or the URL of a bundle; ./pretrained is a folder of that name.
    """
    from velfield.pipelines.predict import predict as run
    from velfield.pipelines.predict import prepare

    job = prepare(model, fields, out, batch=batch, average=average)
    for difference in job.differences:
        note(difference)
    if job.receipts.finished():
        click.echo(f"already predicted, nothing done: {out}")
        return
    settings = {"model": model, "fields": fields, "out": out, "batch": batch, "average": average}
    with cluster.running("predict", settings) as (client, progress):
        run(client, job, progress)
    click.echo(f"predicted {job.layout.nbox} boxes: {out}")


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
    from velfield.pipelines.demo import DemoConfig, rows_of
    from velfield.pipelines.demo import demo as run
    from velfield.tables import headline, table

    with Terminal() as progress:
        new = run(folder, DemoConfig(**options), progress, workers)
    if not new:
        click.echo(f"already there, nothing done: {folder}")
    rows = rows_of(folder)
    click.echo(table(rows, width=shutil.get_terminal_size().columns))
    for sentence in headline(rows):
        click.echo(click.wrap_text(sentence, width=min(shutil.get_terminal_size().columns, 100)))
    click.echo(f"report: {storage.join(folder, 'report.html')}")


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
