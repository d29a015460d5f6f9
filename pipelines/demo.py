"""The whole journey on a miniature universe: two parents to learn from, one that the training never sees.

Every step is the verb of the same name; each is skipped where its result is there already.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from velfield.analysis.evaluate import read_rows, without_boxes
from velfield.analysis.report import load_figures, write_report
from velfield.catalogues.catalogue import outer_rim_names, redshift_to_step
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.files.progress import Progress
from velfield.learning.train import TrainConfig
from velfield.network.bundle import read_metadata
from velfield.pipelines import cluster
from velfield.pipelines.diary import Diary
from velfield.pipelines.paint_job import PaintConfig
from velfield.pipelines.steps import Evaluate, Paint, Predict, Simulate, Train
from velfield.simulation.simulate import SimulateConfig
from velfield.version import __version__

SAME_HALOS = ("unet", "wiener", "linear_halo_padded")  # given the halos of one box in redshift space
DARK_MATTER = ("linear", "linear_padded")  # given the dark matter itself
ROWS = (*SAME_HALOS, *DARK_MATTER)
COMPARED = ("linear", "wiener")  # drawn beside the network
LEGEND = (
    f"{', '.join(SAME_HALOS)} are given the halos of each box in redshift space; {', '.join(DARK_MATTER)} its dark "
    "matter itself, in real space. * marks the best of a line."
)
RECORD, RESULTS = "demo.json", ("metrics.json", "report.html")
CELL = 5.0  # h⁻¹Mpc, the paper's
COARSEST = 3.1  # h⁻¹Mpc between particles: beyond it too many cells have none


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How large the miniature is.

    Parameters
    ----------
    boxes, cells : int
        Boxes along a parent's side, and cells of 5 h⁻¹Mpc along a box's side.
    particles : int
        Particles along a parent's side.
    min_halo_mass : float
        Least massive halo [h⁻¹M⊙].
    steps : int
        Training steps of 4 boxes.
    seed : int
        The parents are seeded with it and the two numbers after it; the last is for the test.
    """

    boxes: int = 3
    cells: int = 32
    particles: int = 160
    min_halo_mass: float = 3e11
    steps: int = 450
    seed: int = 1

    def __post_init__(self) -> None:
        if self.boxes < 1 or self.cells < 8 or self.particles < 1:
            raise VelfieldError(
                f"too small: boxes={self.boxes}, cells={self.cells}, particles={self.particles}; "
                "take at least 1 box, 8 cells"
            )
        if self.seed < 0:
            raise VelfieldError(f"no such seed: seed={self.seed}; give a number from 0 on")
        if self.boxsize / self.particles > COARSEST:
            raise VelfieldError(
                f"too few particles: particles={self.particles}, boxsize={self.boxsize:g} h⁻¹Mpc; "
                f"take at least {int(np.ceil(self.boxsize / COARSEST))}, {COARSEST} h⁻¹Mpc apart"
            )
        self.simulation(self.seed), self.training()  # refuse what they would refuse later

    @property
    def boxsize(self) -> float:
        """Side of a parent [h⁻¹Mpc]."""
        return self.boxes * self.cells * CELL

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """Of the parents that the network learns from."""
        return (self.seed, self.seed + 1)

    @property
    def test_seed(self) -> int:
        """Of the parent that it is tested on."""
        return self.seed + 2

    def simulation(self, seed: int) -> SimulateConfig:
        """Of a parent."""
        return SimulateConfig(
            boxsize=self.boxsize,
            particles=self.particles,
            redshifts=(0.0,),
            seed=seed,
            min_halo_mass=self.min_halo_mass,
        )

    def painting(self, universe: str, seed: int) -> PaintConfig:
        """Of a parent's boxes."""
        halos, particles = (storage.join(universe, name) for name in outer_rim_names(redshift_to_step(0.0)))
        return PaintConfig(
            halos=halos, particles=particles, boxes=self.boxes, cells=self.cells, rsd="random_radial", seed=seed
        )

    def training(self) -> TrainConfig:
        """Of the network."""
        return TrainConfig(steps=self.steps, seed=self.seed)


def demo(folder: str, config: DemoConfig, progress: Progress, workers: int | None = None) -> bool:
    """Run what is left of the journey beneath ``folder``. Returns False if all of it was there."""
    settings = {**asdict(config), "version": __version__}
    receipt = storage.join(folder, RECORD)
    diary = _begin(folder, settings)
    if storage.exists(receipt) and all(storage.exists(storage.join(folder, name)) for name in RESULTS):
        return False
    diary.keep()
    seeds = (*config.training_seeds, config.test_seed)
    for seed in seeds:
        simulated = Simulate(url=_universe(folder, seed), config=config.simulation(seed))
        with diary.stage("simulate"):
            simulated.run(progress)
        diary.commands.append(simulated.command())
    stores = tuple(storage.join(folder, f"fields-{seed}.zarr") for seed in seeds)
    model = storage.join(folder, "model")
    with cluster.connect(None, workers) as client, diary.stage("paint"):
        for seed, url in zip(seeds, stores, strict=True):
            painted = Paint(url=url, config=config.painting(_universe(folder, seed), seed))
            painted.run(client, progress)
            diary.commands.append(painted.command())
    with diary.stage("train"):
        trained = Train(url=model, stores=stores[:-1], config=config.training())
        trained.run(progress)
        diary.commands.append(trained.command())
    with diary.stage("evaluate"):
        for row in ROWS:
            drawn = row == "unet"
            evaluated = Evaluate(
                url=storage.join(folder, "evaluation", row),
                model=model if drawn else row,
                stores=stores[-1:],
                compare=COMPARED if drawn else (),
            )
            evaluated.run(progress)
            diary.commands.append(evaluated.command())
    with cluster.connect(None, workers, quiet=True) as client, diary.stage("predict"):
        predicted = Predict(url=storage.join(folder, "velocity.zarr"), model=model, store=stores[-1])
        predicted.run(client, progress)
        diary.commands.append(predicted.command())
    rows = rows_of(folder)
    storage.write_json(storage.join(folder, "metrics.json"), {n: without_boxes(row) for n, row in rows.items()})
    write_report(
        folder,
        metrics=rows,
        figures=load_figures(storage.join(folder, "evaluation", "unet", "figures")),
        run=_what_was_run(config, diary, read_metadata(model)),
        title="A miniature universe, reconstructed",
    )
    storage.write_json(receipt, {"settings": settings, "seconds": diary.seconds, "commands": diary.commands})
    storage.remove(diary.url)
    return True


def rows_of(folder: str) -> dict[str, Any]:
    """The rows of a demo's table, with the values of each box."""
    return {row: read_rows(storage.join(folder, "evaluation", row))[row] for row in ROWS}


def _begin(folder: str, settings: dict[str, Any]) -> Diary:
    """See that the folder is this demo's or free; what was written of it before is gone on with."""
    diary = Diary(url=storage.join(folder, "demo.begun.json"), settings=settings, seconds={})
    for record in (storage.join(folder, RECORD), diary.url):
        if storage.exists(record):
            before = storage.read_json(record)
            _refuse_other(folder, before["settings"], settings)
            diary.seconds = before["seconds"]
            return diary
    if storage.names(folder):
        raise VelfieldError(f"this folder is not empty: folder={folder}; name another, or empty it")
    return diary


def _what_was_run(config: DemoConfig, diary: Diary, trained: dict[str, Any]) -> dict[str, Any]:
    import torch

    apart = config.boxsize / config.particles
    return {
        "Simulated": {
            "parents": f"{len(config.training_seeds)} to train on, 1 to test on; periodic, z = 0",
            "seeds": f"{', '.join(map(str, config.training_seeds))} to train on; {config.test_seed} to test on",
            "side": f"{config.boxsize:g} h⁻¹Mpc",
            "particles": f"{config.particles}³, {apart:.2g} h⁻¹Mpc apart",
            "halos": f"above {config.min_halo_mass:.3g} h⁻¹M⊙",
        },
        "Painted": {
            "boxes": f"{config.boxes**3} a parent, {config.cells}³ cells of {CELL:g} h⁻¹Mpc",
            "input": "halos in redshift space (random_radial), NGP: mass and number over-density",
            "truth": "mean velocity of the dark-matter particles in a cell, NGP, real space",
        },
        "Trained": {
            "steps": f"{trained['training']['steps']} of {trained['training']['settings']['batch']} boxes",
            "parameters": f"{trained['training']['parameters']:,}",
            "loss": "mean square + dice + ½ speed-weighted mean square",
        },
        "Compared with": {
            "wiener": "the Wiener filter of what the network is given: halos in redshift space, by number, each box "
            "alone",
            "linear_halo_padded": "linear theory of the same, smoothed and divided by the halos' bias, with as much "
            "empty space around the box as it has itself",
            "linear": "the paper's FFT: dark matter in real space, each box alone and taken as periodic",
            "linear_padded": "the same, with as much empty space around",
        },
        "Seconds": {name: f"{seconds:.0f}" for name, seconds in diary.seconds.items()},
        "Software": {
            "velfield": __version__,
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "Commands": diary.commands,
    }


def _universe(folder: str, seed: int) -> str:
    return storage.join(folder, f"universe-{seed}")


def _refuse_other(folder: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise VelfieldError(
                f"another demo is here: folder={folder}, {name}={found.get(name)}, this one's {name}={value}; "
                "name another folder, or empty it"
            )
