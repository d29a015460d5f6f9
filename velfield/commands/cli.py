"""The command line: one verb for each step of the journey.

Every verb shows its progress on standard error, can be interrupted and run again, and exits 0 only if the work is done;
2 on a user's mistake, with one line that says what to do; 130 when interrupted, with a line that says whether the same
command goes on. The verbs are in ``cli_make``, ``cli_learn``, ``cli_use``, ``cli_ask`` and ``cli_serve``; heavy imports
happen inside them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from velfield.commands import cli_ask, cli_learn, cli_make, cli_serve, cli_use
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.version import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
VERBS = (
    cli_make.simulate,
    cli_make.paint,
    cli_make.info,
    cli_make.verify,
    cli_learn.train,
    cli_learn.calibrate,
    cli_learn.evaluate,
    cli_learn.compare,
    cli_use.predict,
    cli_ask.query,
    cli_ask.export,
    cli_use.demo,
    cli_use.experiment,
    cli_serve.serve,
)

GOES_ON = "run the same command again to go on"
AGAIN = {  # what the same command does after an interruption; any other verb begins anew
    **dict.fromkeys(("paint", "train", "calibrate", "predict", "demo", "experiment"), GOES_ON),
    "simulate": "run the same command again: snapshots that are written stay, gravity is computed anew",
}
ANEW = "run the same command again: it begins anew"


class VerbInterrupted(Exception):
    """A verb was interrupted; the message says what the same command would do."""


def _use_options(context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> None:
    if given:
        context.call_on_close(storage.forget_options)
    for text in given:
        protocol, name, value = storage.parse_option(text)
        storage.use_options({name: value}, protocol)


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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; an interruption knows which it was."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise VerbInterrupted(AGAIN.get(ctx.invoked_subcommand or "", ANEW)) from interrupt


@click.group(cls=Verbs, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="velfield")
def cli() -> None:
    """3D peculiar-velocity fields from halo and galaxy catalogues.

    The journey: simulate (or bring a catalogue) → paint → train → evaluate → predict → serve. Every URL is any that
    fsspec knows (a path, s3://…); credentials come from the environment, or --storage-option.
    """


for verb in VERBS:
    cli.add_command(verb)


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
    except (VerbInterrupted, KeyboardInterrupt, click.Abort) as error:
        again = str(error) if isinstance(error, VerbInterrupted) else ANEW
        return _fail(f"interrupted; {again}", status=130)
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


def _fail(message: str, status: int = 2) -> int:
    print(f"velfield: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return status
