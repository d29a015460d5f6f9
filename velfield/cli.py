"""The command line: one verb for each step of the journey.

Every verb shows its progress on standard error, can be interrupted and run again, and exits 0 only if the work is done;
2 on a user's mistake, with one line that says what to do; 130 when interrupted. Heavy imports happen inside the verbs.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import click

from velfield import storage
from velfield.errors import VelfieldError
from velfield.progress import Terminal
from velfield.runfile import config_option, given_instead
from velfield.version import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
RSD = click.Choice(["none", "plane_parallel", "center_radial", "random_radial"])
INPUTS = ("mass_overdensity", "number_overdensity", "mass_density", "number_density", "matter_overdensity")
LOSS = ("mse", "dice", "weighted", "alpha", "floor", "dice_over", "count_filled")
ASSIGNMENT = click.Choice(["ngp", "cic", "tsc"])
OUTSIDE = click.Choice(["refuse", "wrap", "drop"])
VELOCITY = click.Choice(["comoving", "proper"])
AVERAGE_HELP = "Orientations of each box whose predictions by a network are averaged: 1, 8, 16 or 48."
COLUMN_HELP = "The file's name of x, y, z, vx, vy, vz or mass; may be repeated. With its unit: 'mass=M200c [Msun]'."


def _use_options(context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> None:
    if given:
        context.call_on_close(storage.forget_options)
    for text in given:
        protocol, name, value = storage.parse_option(text)
        storage.use_options({name: value}, protocol)


COSMOLOGY_HELP = "outer-rim, or a .json or .toml file with omega_m, omega_b, h, sigma8, n_s."


def _cosmology(_context: click.Context, _parameter: click.Parameter, given: str | None) -> Any:
    from velfield.universe import read_cosmology

    return None if given is None else read_cosmology(given)


class Verbs(click.Group):
    """All verbs take URLs, and so storage options."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a verb."""
        option = click.Option(
            ["--storage-option"],
            multiple=True,
            metavar="KEY=VALUE",
            help="For object storage, as endpoint_url=…, anon=true, retries=8; may be repeated.",
            callback=_use_options,
            expose_value=False,
        )
        cmd.params.append(option)
        super().add_command(cmd, name)


@click.group(cls=Verbs, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="velfield")
def cli() -> None:
    """3D peculiar-velocity fields from halo and galaxy catalogues.

    The journey: simulate (or bring a catalogue) → paint → train → evaluate → predict. Every URL is any that fsspec
    knows (a path, s3://…); credentials come from the environment, or --storage-option.
    """


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the tasks of a verb run, and what is told about them, as its options say."""

    scheduler: str | None
    workers: int | None
    threads: int
    wait: float
    report: str | None

    def wanted(self) -> bool:
        """Whether a cluster is asked for, of a verb that also works without; its other options need one."""
        if self.scheduler or self.workers or os.environ.get("DASK_SCHEDULER_ADDRESS"):
            return True
        context = click.get_current_context()
        for name in ("threads", "wait", "report"):
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise VelfieldError(
                    f"no cluster is asked for: {name}={getattr(self, name)}; add --workers or --scheduler, or leave "
                    f"--{name} out"
                )
        return False

    @contextmanager
    def running(self, verb: str, settings: Mapping[str, Any]) -> Iterator[tuple[Any, Terminal]]:
        """Connect; yields the client and the terminal's progress. The report is written at the end."""
        from velfield.pipelines.cluster import connect
        from velfield.pipelines.watch import reported

        with (
            connect(self.scheduler, self.workers, threads=self.threads, wait=self.wait) as client,
            Terminal() as progress,
            reported(client, self.report, verb, settings),
        ):
            yield client, progress


def _report(_context: click.Context, _parameter: click.Parameter, given: str | None) -> str | None:
    if given is not None:
        from velfield.pipelines.watch import check_name

        check_name(given)
    return given


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of verbs that run on a cluster; the verb gets them together, as ``cluster``."""

    @functools.wraps(command)
    def with_cluster(**options: Any) -> Any:
        cluster = Cluster(**{field.name: options.pop(field.name) for field in fields(Cluster)})
        return command(**options, cluster=cluster)

    wrapped: Callable[..., Any] = with_cluster
    for option in (
        click.option(
            "--report",
            callback=_report,
            help="Write Dask's performance report here (….html) and a summary beside it (….json).",
        ),
        click.option("--wait", type=float, default=600.0, help="Give up when no worker works for so long [s]."),
        click.option("--threads", type=click.IntRange(1), default=1, help="Threads of a local worker."),
        click.option("--workers", type=click.IntRange(1), help="Local worker processes.  [default: one a core]"),
        click.option("--scheduler", help="Running Dask scheduler (tcp://…), also DASK_SCHEDULER_ADDRESS."),
    ):
        wrapped = option(wrapped)
    return wrapped


def catalogue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what the columns of catalogues in other formats are."""
    column: dict[str, Any] = {"multiple": True, "metavar": "NAME=COLUMN"}
    for option in (
        click.option("--outside", type=OUTSIDE, default="refuse", help="Positions outside the parent."),
        click.option("--h", type=float, help="Hubble parameter, for units without h where the files do not say it."),
        click.option("--particle-table", help="The same of the particles."),
        click.option("--halo-table", help="Group or extension of the halos, where a file holds several tables."),
        click.option("--particle-velocity", type=VELOCITY, help="The same of the particles."),
        click.option(
            "--halo-velocity", type=VELOCITY, help="What the halos' velocities are, where the file does not say."
        ),
        click.option("--particle-column", **column, help="The same of the particles."),
        click.option("--halo-column", **column, help=COLUMN_HELP),
    ):
        command = option(command)
    return command


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how one catalogue is to be read."""
    for option in (
        click.option("--h", type=float, help="Hubble parameter, for units without h where the file does not say it."),
        click.option("--table", help="Group or extension, where a file holds several tables."),
        click.option("--velocity", type=VELOCITY, help="Of a catalogue that does not say."),
        click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help=COLUMN_HELP),
        click.option("--redshift", type=float, help="Of a catalogue that does not say."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("url")
@click.option("--boxsize", type=float, required=True, help="Side of the periodic volume [h⁻¹Mpc].")
@click.option("--particles", type=int, required=True, help="Particles along one side.")
@click.option("--redshift", type=float, multiple=True, default=(0.0,), help="Snapshot; may be repeated.")
@click.option("--seed", type=int, required=True, help="Of the initial conditions and the halos.")
@click.option("--min-halo-mass", type=float, default=3.7e10, help="Least massive halo written [h⁻¹M⊙].")
@click.option("--cosmology", callback=_cosmology, default="outer-rim", help=COSMOLOGY_HELP)
@click.option("--steps", type=int, help="Particle-mesh steps.  [default: the configuration's]")
@click.option("--device", default="cpu", help="cpu or cuda.")
@config_option
def simulate(url: str, steps: int | None, redshift: tuple[float, ...], **options: Any) -> None:
    """Make a universe: particles and halos as GenericIO, in the Outer Rim release's names, beneath URL."""
    from velfield.simulate import SimulateConfig
    from velfield.simulate import simulate as run

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


@cli.command()
@click.argument("url")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(url: str, as_json: bool, **options: Any) -> None:
    """Say what is at URL: a catalogue, a store, a model bundle, a simulation, training, evaluation or demo."""
    from velfield.info import describe, lines

    what = describe(url, **options)
    click.echo(json.dumps(what, indent=2) if as_json else "\n".join(lines(what)))


@cli.command()
@click.argument("out")
@click.option("--halos", help="Catalogue of halos.")
@click.option("--particles", help="Catalogue of dark-matter particles.")
@click.option("--boxes", type=int, required=True, help="Boxes along the parent's side.")
@click.option("--cells", type=int, required=True, help="Cells along a box's side.")
@click.option("--margin", type=int, default=0, help="Cells of surroundings that each box carries on every side.")
@click.option("--rsd", type=RSD, default="random_radial", help="Redshift-space pattern of the halos.")
@click.option("--observer-per-box", is_flag=True, help="random_radial: an observer for each box, not one for all.")
@click.option("--min-mass", type=float, default=0.0, help="Leave out halos below it [h⁻¹M⊙].")
@click.option("--assignment", type=ASSIGNMENT, default="ngp", help="How a tracer is shared among cells.")
@click.option("--seed", type=int, default=1, help="Draws the observers and the split.")
@click.option("--validation", type=float, default=0.2, help="Share of the boxes set apart for validation.")
@click.option("--redshift", type=float, help="Of the snapshot, where the files' names do not say.")
@click.option("--boxsize", type=float, help="Side of the parent [h⁻¹Mpc], where the files do not say.")
@click.option("--periodic/--not-periodic", default=True, help="Whether the parent repeats.")
@click.option("--cosmology", callback=_cosmology, help=f"{COSMOLOGY_HELP}  [default: the simulation's, else outer-rim]")
@click.option("--parent", help="Name of the universe, one for all its snapshots.  [default: by simulation.json]")
@click.option("--max-shift", type=float, default=50.0, help="Refuse halos carried further [h⁻¹Mpc].")
@catalogue_options
@click.option("--plan", is_flag=True, help="Print what would be read, made and needed, and stop.")
@cluster_options
@config_option
def paint(out: str, plan: bool, cluster: Cluster, **options: Any) -> None:
    """Paint catalogues into a field store of boxes at OUT."""
    from velfield.pipelines.paint import paint as run
    from velfield.pipelines.paint_job import PaintConfig, prepare
    from velfield.pipelines.paint_plan import check_fits, plan_of

    job = prepare(out, PaintConfig(**options))
    for text in job.notes:
        _note(text)
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


@cli.command()
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
@click.option("--guide-cache", help="Keep the boxes' guides beneath this URL, for other trainings.")
@click.option(
    "--context",
    type=click.IntRange(0),
    help="Cells of the stores' margin that the network sees; a guide sees all.  [default: all]",
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
@config_option
def train(fields: tuple[str, ...], model: str, steps: int | None, epochs: int | None, **options: Any) -> None:
    """Train a network on field stores FIELDS… (one a parent simulation) and write the bundle MODEL.

    With several GPUs: torchrun --nproc-per-node N -m velfield train FIELDS… MODEL.
    """
    from velfield.loss import LossConfig
    from velfield.train import TrainConfig
    from velfield.train import train as run

    context = click.get_current_context()
    if given_instead(context, "steps", "epochs"):
        epochs = None
    elif given_instead(context, "epochs", "steps"):
        steps = None
    if steps is None and epochs is None:
        epochs = 100
    loss = LossConfig(**{name: options.pop(name) for name in LOSS})
    with Terminal() as progress:
        result = run(fields, model, TrainConfig(steps=steps, epochs=epochs, loss=loss, **options), progress, _note)
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes speaks
    if result.already_done:
        click.echo(f"already trained, nothing done: {model}")
    else:
        click.echo(f"trained {result.steps} steps in {result.seconds:.0f} s: {model}")


@cli.command()
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
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the table.")
@cluster_options
@config_option
def evaluate(model: str, fields: tuple[str, ...], out: str, as_json: bool, cluster: Cluster, **options: Any) -> None:
    """Measure MODEL on field stores FIELDS… against their truth; metrics, table and figures go to OUT.

    MODEL is linear, linear_padded, linear_halo, linear_halo_padded, wiener, linear_whole, or the URL of
    a bundle.

    Without --scheduler (or DASK_SCHEDULER_ADDRESS) and --workers it runs in this process, without a cluster.
    """
    from velfield.tables import table

    if cluster.wanted():
        from velfield.pipelines.evaluate import evaluate as spread

        settings = {"model": model, "fields": fields, "out": out} | options
        with cluster.running("evaluate", settings) as (client, progress):
            rows = spread(client, model, fields, out, progress=progress, note=_note, **options)
    else:
        from velfield.evaluate import evaluate as run

        with Terminal() as progress:
            rows = run(model, fields, out, progress=progress, note=_note, **options)
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows, width=shutil.get_terminal_size().columns))


@cli.command()
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print all measures as JSON instead of a table.")
def compare(a: str, b: str, as_json: bool) -> None:
    """Compare two evaluations A and B of the same boxes, box by box.

    A and B are folders that velfield evaluate wrote. For each measure: the mean difference, its standard error over
    boxes and over parents, the share of boxes in which A is better, and a paired t test and sign test.
    """
    from velfield.compare import compare as run

    comparison = run(a, b)
    click.echo(json.dumps(comparison.plain(), indent=2) if as_json else "\n".join(comparison.lines()))


@cli.command()
@click.argument("model")
@click.argument("fields")
@click.argument("out")
@click.option("--batch", type=click.IntRange(1), default=4, help="Boxes that go through the network together.")
@click.option("--average", type=int, default=1, help=AVERAGE_HELP)
@cluster_options
@config_option
def predict(model: str, fields: str, out: str, batch: int, average: int, cluster: Cluster) -> None:
    """Predict the velocity of every box of the field store FIELDS, into a velocity store at OUT.

    MODEL is linear, linear_padded, linear_halo, linear_halo_padded, wiener, linear_whole, or the URL of
    a bundle.
    """
    from velfield.pipelines.predict import predict as run
    from velfield.pipelines.predict import prepare

    job = prepare(model, fields, out, batch=batch, average=average)
    for difference in job.differences:
        _note(difference)
    if job.receipts.finished():
        click.echo(f"already predicted, nothing done: {out}")
        return
    settings = {"model": model, "fields": fields, "out": out, "batch": batch, "average": average}
    with cluster.running("predict", settings) as (client, progress):
        run(client, job, progress)
    click.echo(f"predicted {job.layout.nbox} boxes: {out}")


@cli.command()
@click.argument("url")
@click.option("--inputs/--no-inputs", default=True, help="Look at what a store was made from, where it can be reached.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cluster_options
def verify(url: str, inputs: bool, as_json: bool, cluster: Cluster, **reading: Any) -> int:
    """Read all of a store, model bundle, simulation or catalogue at URL and say what is wrong with it.

    Prints a line for each finding: what, where, the value found and the one expected. Exits 0 only if nothing is wrong,
    1 if something is, 2 if there is nothing to verify.
    """
    from velfield.pipelines.verify import verify as run
    from velfield.verify import MODEL, check_model, kind_of

    if kind_of(url) == MODEL:
        report = check_model(url)
    else:
        with cluster.running("verify", {"url": url, "inputs": inputs} | reading) as (client, progress):
            report = run(client, url, inputs=inputs, progress=progress, **reading)
    click.echo(json.dumps(report.plain(), indent=2) if as_json else "\n".join(report.lines()))
    return 1 if report.damaged else 0


@cli.command()
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # torch's threads spin while they wait for each other, which on a machine that others use too slows training by 3
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = cli.main(args=arguments, prog_name="velfield", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        return _fail(error.format_message().rstrip(".") + hint)
    except VelfieldError as error:
        return _fail(str(error), status=error.status)
    except (KeyboardInterrupt, click.Abort):
        print("velfield: interrupted; run the same command again to go on", file=sys.stderr)  # noqa: T201
        return 130
    except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        said = str(error).strip().splitlines() or ["it does not say how much"]
        return _fail(f"not enough memory: {said[0]}; ask for less at a time, or use a larger machine", status=1)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(f"{error.strerror or error}: file={error.filename}" if error.filename else str(error), status=1)
    return status or 0


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _fail(message: str, status: int = 2) -> int:
    print(f"velfield: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return status
