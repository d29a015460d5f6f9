"""A service on a free port of loopback, in a thread of the test's process, or in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from velfield.network.model import Model
from velfield.network.normalisation import Channel, Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.physics.condition import Ranges
from velfield.service.allowed import Allowed
from velfield.service.app import Service, create_app
from velfield.service.limits import Limits
from velfield.service.models import load
from velfield.service.runner import Runner
from velfield.service.server import listen, server
from velfield.stores import store
from velfield.stores.sources import describe
from velfield.theory.guide import Guide

ABOUT = {"cellsize": 5.0, "redshift": 0.212, "min_mass": 1e12, "rsd": "none"}
LIMITS = {
    "body": 2**22,
    "upload": 2**22,
    "cells": 32**3,
    "upload_cells": 40**3,
    "table": 2**22,
    "rows": 10_000,
    "grid": 64,
    "cubes": 16,
    "line": 128,
    "queries": 2,
    "queue": 3,
    "space": 2**26,
    "rate": 100_000,
    "keep": 3600.0,
    "patience": 1.0,
}


def cube(seed: int = 0, cells: int = 8) -> dict[str, np.ndarray]:
    """Halos in a cube: counts and masses per cell."""
    rng = np.random.default_rng(seed)
    number = rng.poisson(0.5, (cells,) * 3).astype("f4")
    return {"halo_number": number, "halo_mass": (number * rng.uniform(1e12, 3e12, number.shape)).astype("f4")}


KINDS = ("mass_overdensity", "number_overdensity")


def write_model(
    url: str, fields: str, *, guided: bool = False, width: int = 4, depth: int = 1, context: int = 0,
    kinds: Sequence[str] = KINDS,
) -> None:  # fmt: skip
    """Write a bundle with the weights that a network begins with: error bars, or a guide and a condition."""
    torch.manual_seed(3)
    ranges = Ranges(redshift=(0.0, 0.5), min_mass=(1e11, 1e13), density=(1e-4, 1e-1), growth=(0.7, 1.0))
    channels = tuple(Channel(kind=kind, transform="linear", scale=1.0, mean=0.1, std=2.0) for kind in kinds)
    of = ({"in_channels": 5, "guide": 1, "condition": 2} if guided else {"in_channels": 2, "std": True}) | {
        "width": width,
        "depth": depth,
        "groups": 2,
    }
    described = describe(store.open_fields(fields, chunks=None), kinds)
    metadata = {
        "trained_on": {n: v for n, v in described.items() if not (guided and n in ("redshift", "min_mass"))},
        "parents": ["ab12"],
        "context": context,
        "training": {"boxes": 6, "steps": 0, "settings": {"batch": 4}, "parameters": 1},
        **({"guide": Guide(name="wiener").to_dict()} if guided else {}),
    }
    scale = 4.0 if guided else 300.0
    normalisation = Normalisation(channels=channels, sigma_v=scale, condition=ranges if guided else None)
    Model(UNet(UNetConfig(**of)), normalisation, metadata).save(url)


@contextmanager
def serving(
    folder: Path,
    models: Sequence[str],
    cluster: Callable[[], Any],
    *,
    tokens: Sequence[str] = (),
    allow: Sequence[str] = (),
    connections: int = 512,
    port: int = 0,
    **limits: float,
) -> Iterator[Service]:
    """Serve in a thread, jobs on a cluster that is there; ``service.url`` is where."""
    service = Service(
        models=load(models, "cpu"),
        allowed=Allowed(allow),
        limits=Limits(**(LIMITS | limits)),
        folder=str(folder),
        tokens=tokens,
    )
    service.runner = Runner(
        jobs=service.jobs,
        models=service.models,
        allowed=service.allowed,
        uploads=service.uploads,
        results=service.results,
        metrics=service.metrics,
        connect=lambda: nullcontext(cluster()),
    )
    with listen("127.0.0.1", port) as listening:
        http = server(create_app(service), "127.0.0.1", 0, connections)
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: http.started, 30)
        service.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            yield service
        finally:
            http.should_exit = True
            thread.join(timeout=90)
            assert not thread.is_alive()


@contextmanager
def process(folder: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """``velfield serve`` as a process of its own, killed at the end; yields it and its URL."""
    command = [sys.executable, "-m", "velfield", "serve", *arguments, "--port", "0", "--state", str(folder)]
    said = folder.with_name(f"{folder.name}.log")
    with said.open("w") as log, subprocess.Popen(command, stderr=log, env=os.environ | environment) as running:
        try:
            until(lambda: running.poll() is not None or "serving" in said.read_text(), 120)
            found = re.search(r"http://\S+", said.read_text())
            assert found, said.read_text()
            yield running, found[0]
        finally:
            running.kill()


def until(true, seconds: float) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
