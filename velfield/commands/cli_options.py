"""What verbs share: their options of clusters and catalogues, and how they speak to the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from velfield.errors import VelfieldError
from velfield.files import shipped, storage
from velfield.files.progress import Terminal

OUTSIDE = click.Choice(["refuse", "wrap", "drop"])
RSD = click.Choice(["none", "plane_parallel", "center_radial", "random_radial", "observed"])
AXIS = click.Choice(["x", "y", "z"])
ASSIGNMENT = click.Choice(["ngp", "cic", "tsc"])
VELOCITY = click.Choice(["comoving", "proper"])
AVERAGE_HELP = "Orientations of each box whose predictions by a network are averaged: 1, 8, 16 or 48."
ACCEPT = click.option(
    "--accept",
    type=click.Choice(["implausible"]),
    multiple=True,
    help="implausible: go on where input or velocities cannot be right, and say so in the result.",
)
COLUMN_HELP = "The file's name of x, y, z, vx, vy, vz or mass; may be repeated. With its unit: 'mass=M200c [Msun]'."
RUNNING = "The run"
COSMOLOGY_HELP = "outer-rim, or a .json or .toml file with omega_m, omega_b, h, sigma8, n_s."


class Grouped(click.Command):
    """A verb whose help lists its options by `option_group`, in the order in which the groups are named there."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group's options beneath its title; those of no group, last, are how the verb runs."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", RUNNING), []).append(record)
        for title in sorted(groups, key=lambda title: title == RUNNING):
            with formatter.section(title):
                formatter.write_dl(groups[title])


def option_group(title: str, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add options to a verb, top to bottom, as one group of a `Grouped` verb's help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        before = len(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for parameter in command.__click_params__[before:]:  # type: ignore[attr-defined]
            parameter.group = title
        return command

    return add


def note(text: str) -> None:
    """Tell the user something worth knowing, on standard error."""
    click.echo(f"note: {text}", err=True)


def cosmology(_context: click.Context, _parameter: click.Parameter, given: str | None) -> Any:
    """The callback of a verb's ``--cosmology``: what was given, read."""
    from velfield.catalogues.universe import read_cosmology

    return None if given is None else read_cosmology(given)


def _place(_context: click.Context, _parameter: click.Parameter, given: str | None) -> tuple[float, ...] | None:
    """Three numbers, with commas between them."""
    if given is None:
        return None
    try:
        x, y, z = map(float, given.split(","))
    except ValueError as error:
        raise VelfieldError(f"not a place: observer={given}; give three numbers, as 250,250,-1000") from error
    return (x, y, z)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the tasks of a verb run, and what is told about them, as its options say."""

    scheduler: str | None
    wait: float
    workers: int | None = None
    threads: int = 1
    report: str | None = None

    def path(self, url: str | None) -> Any:
        """A URL as workers find it: on a running cluster, whose folder is another, a relative path becomes absolute."""
        elsewhere = self.scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS")
        return storage.absolute(url) if url is not None and elsewhere else url

    def model(self, model: str) -> str:
        """The same of a model, which may be a name."""
        from velfield.theory.settings import NAMES

        return model if model in NAMES or model == shipped.PRETRAINED else str(self.path(model))

    def wanted(self) -> bool:
        """Whether a cluster is asked for, of a verb that also works without; its other options need one."""
        if self.scheduler or self.workers or os.environ.get("DASK_SCHEDULER_ADDRESS"):
            return True
        context = click.get_current_context()
        known = {flag for parameter in context.command.params for flag in parameter.opts}
        asking = "--workers or --scheduler" if "--workers" in known else "--scheduler"
        for name in ("threads", "wait", "report"):
            if f"--{name}" in known and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise VelfieldError(
                    f"no cluster is asked for: {name}={getattr(self, name)}; add {asking}, or leave --{name} out"
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


CLUSTER = {
    "scheduler": click.option("--scheduler", help="Running Dask scheduler (tcp://…), also DASK_SCHEDULER_ADDRESS."),
    "workers": click.option("--workers", type=click.IntRange(1), help="Local worker processes.  [default: one a core]"),
    "threads": click.option("--threads", type=click.IntRange(1), default=1, help="Threads of a local worker."),
    "wait": click.option("--wait", type=float, default=600.0, help="Give up when no worker works for so long [s]."),
    "report": click.option(
        "--report",
        callback=_report,
        help="Write Dask's performance report here (….html) and a summary beside it (….json).",
    ),
}


def cluster_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of verbs that run on a cluster, or some; the verb gets them together, as ``cluster``."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_cluster(**options: Any) -> Any:
            cluster = Cluster(**{name: options.pop(name) for name in names or CLUSTER})
            return command(**options, cluster=cluster)

        wrapped: Callable[..., Any] = with_cluster
        for name in reversed(names or tuple(CLUSTER)):
            wrapped = CLUSTER[name](wrapped)
        return wrapped

    return add


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


def painting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a catalogue is painted, besides the boxes and how its columns are read."""
    for option in (
        click.option("--max-shift", type=float, default=50.0, help="Refuse halos carried further [h⁻¹Mpc]."),
        click.option(
            "--cosmology",
            callback=cosmology,
            help=f"{COSMOLOGY_HELP}  [default: the simulation's or the file's, else outer-rim]",
        ),
        click.option("--periodic/--not-periodic", default=True, help="Whether the parent repeats."),
        click.option("--boxsize", type=float, help="Side of the parent [h⁻¹Mpc], where the files do not say."),
        click.option("--seed", type=int, default=1, help="Draws the observers and the split."),
        click.option("--assignment", type=ASSIGNMENT, default="ngp", help="How a tracer is shared among cells."),
        click.option("--min-mass", type=float, default=0.0, help="Leave out halos below it [h⁻¹M⊙]."),
        click.option(
            "--observer-per-box", is_flag=True, help="random_radial: an observer for each box, not one for all."
        ),
        click.option(
            "--line-of-sight",
            type=AXIS,
            help="observed, plane_parallel: the axis along which the halos are seen.  [default: plane_parallel's is z]",
        ),
        click.option(
            "--observer",
            metavar="X,Y,Z",
            callback=_place,
            help="observed, random_radial: from where the halos are seen, in the parent's coordinates [h⁻¹Mpc]; "
            "inside it or outside.  [default: random_radial's is drawn]",
        ),
        click.option(
            "--rsd",
            type=RSD,
            metavar="PATTERN",
            help="Needed for halos. none: their positions are in real space and stay there; plane_parallel, "
            "center_radial, random_radial: they are moved into redshift space by their velocities; observed: they are "
            "in redshift space already.",
        ),
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
