"""Verbs that learn and measure: train, calibrate, evaluate, compare."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import click

from velfield.commands.cli_options import ACCEPT, AVERAGE_HELP, Cluster, cluster_options, note
from velfield.commands.runfile import config_option, given_instead
from velfield.errors import VelfieldError
from velfield.files.progress import Terminal

INPUTS = ("mass_overdensity", "number_overdensity", "mass_density", "number_density", "matter_overdensity")
LOSS = ("mse", "dice", "weighted", "alpha", "floor", "dice_over", "count_filled")


@click.command()
@click.argument("fields", nargs=-1, required=True)
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    type=click.Choice(list(INPUTS)),
    multiple=True,
    default=INPUTS[:2],
    help="A channel of the network's input; may be repeated.",
)
@click.option(
    "--guide",
    type=click.Choice(["linear_halo", "linear_halo_padded", "wiener", "linear_whole"]),
    help="Analytic velocity that the network begins with and adds to.  [default: none]",
)
@click.option("--guide-smoothing", type=float, help="Its Gaussian radius [h⁻¹Mpc].  [default: the model's own]")
@click.option(
    "--guide-tracer",
    "guide_tracers",
    type=click.Choice(["number", "mass"]),
    multiple=True,
    default=("number",),
    help="Halos by number, by mass, or both, in this order: a velocity of each, that of the first to add to; may be "
    "repeated.",
)
@click.option("--guide-cache", help="Keep the boxes' guides beneath this URL, for other trainings.")
@click.option(
    "--context",
    type=click.IntRange(0),
    help="Cells of the stores' margin that the network sees; a guide sees all.  [default: all]",
)
@click.option(
    "--condition/--no-condition", default=False, help="One network for stores of several redshifts and thresholds."
)
@click.option("--steps", type=int, help="Training steps.  [default: those of 100 epochs]")
@click.option("--epochs", type=int, help="Passes over the training boxes, instead of --steps.")
@click.option("--batch", type=int, default=4, help="Boxes a step.")
@click.option("--learning-rate", type=float, default=4e-3, help="Peak rate of AdamW.")
@click.option("--schedule", type=click.Choice(["cosine", "constant"]), default="cosine", help="Of the rate.")
@click.option("--warmup", type=float, default=0.05, help="Share of the steps in which the rate rises.")
@click.option("--weight-decay", type=float, default=1e-4, help="Of AdamW.")
@click.option("--clip", type=float, default=1.0, help="Largest norm of the gradient.")
@click.option("--transform", type=click.Choice(["linear", "log"]), default="linear", help="Of the inputs.")
@click.option("--width", type=int, default=8, help="Channels of the first level; doubles at each further one.")
@click.option("--depth", type=int, default=3, help="Poolings.")
@click.option("--norm", type=click.Choice(["group", "batch"]), default="group", help="Normalisation layers.")
@click.option("--groups", type=int, default=4, help="Groups of a group normalisation.")
@click.option("--conv-add/--no-conv-add", default=True, help="Residual additions in the blocks.")
@click.option("--upsample", type=click.Choice(["nearest", "trilinear"]), default="nearest", help="On the way up.")
@click.option(
    "--padding", type=click.Choice(["zeros", "replicate", "circular"]), default="zeros", help="Of convolutions."
)
@click.option("--dropout", type=float, default=0.0, help="Share of features dropped while training.")
@click.option("--mse", type=float, default=1.0, help="Weight of the mean squared error.")
@click.option("--dice", type=float, default=1.0, help="Weight of the dice loss.")
@click.option("--weighted", type=float, default=0.5, help="Weight of the speed-weighted squared error.")
@click.option("--alpha", type=float, default=1.0, help="Power of the speed in that weight: 1, 2 or -1.")
@click.option("--floor", type=float, default=0.1, help="Least speed [σ_v] in that weight where alpha is negative.")
@click.option(
    "--dice-over",
    type=click.Choice(["batch", "sample", "channel"]),
    default="batch",
    help="One dice for a batch, or the mean of one for each box or component.",
)
@click.option("--count-filled/--no-count-filled", default=True, help="Train on cells without a particle, too.")
@click.option("--augment/--no-augment", default=True, help="Turn and mirror boxes by the cube's symmetries.")
@click.option("--std/--no-std", default=False, help="Learn error bars of the velocity, too.")
@click.option("--std-share", type=float, default=0.0, help="Share of their gradient that the velocity's features get.")
@click.option("--ema", type=float, default=0.0, help="Decay of an average of the weights that is kept; 0: none.")
@click.option("--accumulate", type=int, default=1, help="Parts that a step's boxes are taken in, to save memory.")
@click.option("--compile/--no-compile", default=False, help="Compile the network with torch.compile.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to train.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="auto: bfloat16 on a GPU that has it.",
)
@click.option(
    "--loader",
    type=click.Choice(["auto", "resident", "stream"]),
    default="auto",
    help="All boxes in memory, or read as needed; auto: in memory if they fit in half of what is free.",
)
@click.option("--loader-workers", "workers", type=int, default=2, help="Reading processes when streaming.")
@click.option("--validate-every", type=int, default=100, help="Steps between validations.")
@click.option("--checkpoint-every", type=int, default=100, help="Steps between checkpoints.")
@click.option("--seed", type=int, default=1, help="Of weights, order and orientations.")
@cluster_options("scheduler", "wait")
@config_option
def train(
    fields: tuple[str, ...], model: str, steps: int | None, epochs: int | None, cluster: Cluster, **options: Any
) -> None:
    """Train a network on field stores FIELDS… (one a parent simulation) and write the bundle MODEL.

    With several GPUs: torchrun --nproc-per-node N -m velfield train FIELDS… MODEL.

    With --scheduler (or DASK_SCHEDULER_ADDRESS) a worker trains that was started with --resources GPU=1.
    """
    from velfield.learning.loss import LossConfig
    from velfield.learning.train import TrainConfig
    from velfield.learning.train import train as run

    context = click.get_current_context()
    if given_instead(context, "steps", "epochs"):
        epochs = None
    elif given_instead(context, "epochs", "steps"):
        steps = None
    if steps is None and epochs is None:
        epochs = 100
    loss = LossConfig(**{name: options.pop(name) for name in LOSS})
    config = TrainConfig(steps=steps, epochs=epochs, loss=loss, **options)
    if cluster.wanted():
        if "RANK" in os.environ:
            raise VelfieldError(
                f"torchrun and a scheduler are both asked for: rank={os.environ['RANK']}, "
                f"scheduler={cluster.scheduler or os.environ['DASK_SCHEDULER_ADDRESS']}; start it without torchrun, "
                "or leave --scheduler and DASK_SCHEDULER_ADDRESS out"
            )
        from velfield.pipelines.train import train as on_a_worker

        with cluster.running("train", {"fields": fields, "model": model}) as (client, progress):
            result = on_a_worker(client, fields, model, config, progress, note)
    else:
        with Terminal() as progress:
            result = run(fields, model, config, progress, note)
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes speaks
    if result.already_done:
        click.echo(f"already trained, nothing done: {model}")
    else:
        click.echo(f"trained {result.steps} steps in {result.seconds:.0f} s: {model}")
        if config.std:
            note("its error bars are those of boxes as it saw them; velfield calibrate makes those of whole parents")


@click.command()
@click.argument("model")
@click.argument("fields", nargs=-1, required=True)
@click.argument("out")
@cluster_options()
@config_option
def calibrate(model: str, fields: tuple[str, ...], out: str, cluster: Cluster) -> None:
    """Calibrate the error bars of the bundle MODEL over whole parents, and write it to OUT; nothing is trained.

    FIELDS… are field stores with velocities, each a whole parent of a universe that MODEL was not trained on. They are
    predicted as velfield predict does it, in tiles with real neighbours, where errors are smaller than in boxes by
    themselves; predict then gives the error bars that fit there (docs/network.md).
    """
    from velfield.pipelines.calibrate import run, settle
    from velfield.pipelines.predict_plan import check_fits, plan_of

    model, fields, out = cluster.model(model), tuple(map(cluster.path, fields)), cluster.path(out)
    asked = settle(model, fields, out)
    for text in asked.notes:
        note(text)
    if asked.done:
        click.echo(f"already calibrated, nothing done: {out}")
        return
    with cluster.running("calibrate", {"model": model, "fields": fields, "out": out}) as (client, progress):
        for job in asked.jobs:
            check_fits(plan_of(job), client)
        made = run(client, asked, progress).map
    click.echo(
        f"calibrated on {made.residuals:,} components: {made.coverage_68:.1%} and {made.coverage_95:.1%} within their "
        f"68 and 95 % error bars: {out}"
    )


@click.command()
@click.argument("model")
@click.argument("fields", nargs=-1, required=True)
@click.argument("out")
@click.option("--split", type=click.Choice(["train", "validation"]), help="Only boxes of this split.")
@click.option("--allow-seen", is_flag=True, help="Take boxes of universes that the model was trained on, too.")
@click.option("--figures/--no-figures", default=True, help="Draw the paper's figures for one box.")
@click.option("--compare", multiple=True, default=("linear",), help="Analytic model drawn beside; may be repeated.")
@click.option("--box", type=int, help="The box that is drawn.  [default: drawn with --seed]")
@click.option("--seed", type=click.IntRange(0), default=0, help="Draws that box.")
@click.option(
    "--tracer", type=click.Choice(["number", "mass"]), default="number", help="For linear_halo and linear_whole."
)
@click.option(
    "--smoothing", type=float, help="Gaussian radius for linear models [h⁻¹Mpc].  [default: halos 5, linear_whole 3.5]"
)
@click.option("--count-filled/--no-count-filled", default=True, help="Count cells without a particle.")
@click.option("--average", type=int, default=1, help=AVERAGE_HELP)
@ACCEPT
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the table.")
@cluster_options()
@config_option
def evaluate(model: str, fields: tuple[str, ...], out: str, as_json: bool, cluster: Cluster, **options: Any) -> None:
    """Measure MODEL on field stores FIELDS… against their truth; metrics, table and figures go to OUT.

    MODEL is linear, linear_padded, linear_halo, linear_halo_padded, wiener, linear_whole, pretrained (the
    network that comes with velfield), or the URL of a bundle; ./pretrained is a folder of that name. A bundle is
    shown each box by itself. To measure a whole parent, name the velocity store that velfield predict made of it.

    Without --scheduler (or DASK_SCHEDULER_ADDRESS) and --workers it runs in this process, without a cluster.
    """
    from velfield.accuracy.tables import table

    if cluster.wanted():
        from velfield.pipelines.evaluate import evaluate as spread

        model, fields = cluster.model(model), tuple(map(cluster.path, fields))
        settings = {"model": model, "fields": fields, "out": out} | options
        with cluster.running("evaluate", settings) as (client, progress):
            rows = spread(client, model, fields, out, progress=progress, note=note, **options)
    else:
        from velfield.analysis.evaluate import evaluate as run

        with Terminal() as progress:
            rows = run(model, fields, out, progress=progress, note=note, **options)
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows, width=shutil.get_terminal_size().columns))


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print all measures as JSON instead of a table.")
def compare(a: str, b: str, as_json: bool) -> None:
    """Compare two evaluations A and B of the same boxes, box by box.

    A and B are folders that velfield evaluate wrote. For each measure: the mean difference, its standard error over
    boxes and over parents, the share of boxes in which A is better, and a paired t test and sign test.
    """
    from velfield.analysis.compare import compare as run

    comparison = run(a, b)
    click.echo(json.dumps(comparison.plain(), indent=2) if as_json else "\n".join(comparison.lines()))
