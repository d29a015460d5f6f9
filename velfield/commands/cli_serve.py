"""The verb that serves: models and jobs over HTTP."""

from __future__ import annotations

import os
from typing import Any

import click

from velfield.commands.cli_options import Cluster, cluster_options, note

LIMITS: tuple[tuple[str, Any, Any, str], ...] = (
    ("body", int, 64 * 2**20, "Bytes of a cube that is answered at once."),
    ("cells", int, 128**3, "Its cells; what it may unpack to follows: 24 bytes a cell."),
    ("upload", int, 512 * 2**20, "Bytes of a cube or a catalogue that is uploaded."),
    ("upload-cells", int, 192**3, "Its cells."),
    ("table", int, 64 * 2**20, "Bytes of a table of positions."),
    ("rows", int, 1_000_000, "Its rows."),
    ("grid", int, 512, "Cells along the side of a parent that is painted from a catalogue."),
    ("cubes", int, 16, "Cubes that are received, kept and predicted at a time."),
    ("line", int, 128, "Requests that wait for that, before their bodies are read."),
    ("queries", int, 2, "Tables that are received and answered at a time; each may take 2 GiB."),
    ("queue", int, 100, "Jobs that wait."),
    ("space", int, 20 * 2**30, "Bytes of all uploads together."),
    ("rate", int, 1200, "Requests a minute of a client; reading results is not counted."),
    ("keep", float, 7 * 86400.0, "How long finished jobs and unused uploads are kept [s]."),
    ("patience", float, 30.0, "For a body to come [s]; each 64 KiB that came add one."),
)


def _limits(command: Any) -> Any:
    for name, kind, default, text in reversed(LIMITS):
        command = click.option(f"--{name}", type=kind, default=default, help=text)(command)
    return command


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL…")
@click.option("--host", default="127.0.0.1", help="Address to listen on; without a token loopback only.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0 takes any that is free.")
@click.option("--state", default="velfield-state", help="Folder of this machine for jobs, results and uploads.")
@click.option("--allow", multiple=True, metavar="URL", help="What lies at or beneath it may be named; repeatable.")
@_limits
@click.option("--connections", type=click.IntRange(1), default=512, help="Connections at a time.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where cubes are predicted.")
@cluster_options("scheduler", "workers", "threads", "wait")
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    state: str,
    allow: tuple[str, ...],
    connections: int,
    device: str,
    cluster: Cluster,
    **limits: Any,
) -> None:
    """Serve models over HTTP: small cubes at once, whole stores as jobs on Dask (docs/service.md).

    MODEL is pretrained or a bundle's URL, called by its last part, or NAME=URL.

    Tokens come from the environment: VELFIELD_TOKEN, several separated by commas, or VELFIELD_TOKEN_FILE, one a line.
    """
    import logging

    from velfield.pipelines.cluster import connect
    from velfield.service.allowed import Allowed
    from velfield.service.app import Service, create_app
    from velfield.service.auth import check_bind, tokens_of
    from velfield.service.limits import Limits
    from velfield.service.models import load
    from velfield.service.runner import Runner, reachable
    from velfield.service.server import listen, own, server

    tokens, kept = tokens_of(), Limits(**limits)
    check_bind(host, tokens)
    allowed, served = Allowed(allow), load(models, device)
    scheduler = cluster.scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS")
    folder = os.path.abspath(state)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("velfield.service").setLevel(logging.INFO)
    with own(folder), listen(host, port) as listening:
        service = Service(
            models=served,
            allowed=allowed,
            limits=kept,
            folder=folder,
            tokens=tokens,
            scheduler=lambda: reachable(scheduler),
        )
        service.runner = Runner(
            jobs=service.jobs,
            models=served,
            allowed=allowed,
            uploads=service.uploads,
            results=service.results,
            metrics=service.metrics,
            connect=lambda: connect(cluster.scheduler, cluster.workers, threads=cluster.threads, wait=cluster.wait),
        )
        if not tokens:
            note("no token is set: whoever uses this machine may use the service")
        for place in allowed.missing():
            note(f"nothing is there yet: allow={place}; stores that come to lie there may be named")
        address = f"[{host}]" if ":" in host else host
        click.echo(f"serving {', '.join(served.by_name)}: http://{address}:{listening.getsockname()[1]}", err=True)
        server(create_app(service), host, port, connections).run(sockets=[listening])
