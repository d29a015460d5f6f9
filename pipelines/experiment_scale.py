"""The scales at which an experiment can be run: how large its universes are, how they are cut, how long is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from velfield.catalogues.hacc import outer_rim_names, redshift_to_step
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.geometry.boxes import BoxLayout
from velfield.learning.train_config import TrainConfig
from velfield.physics.redshift_space import sightlines
from velfield.pipelines.checked_toml import SCALES, checked, choose, need, read, said_of
from velfield.pipelines.experiment_file import TRAINING, trained_by
from velfield.pipelines.paint_job import PaintConfig
from velfield.simulation.simulate import SimulateConfig

SCALE = {
    "title": str,
    "says": str,
    "boxsize": float,
    "particles": int,
    "min_halo_mass": float,
    "redshifts": tuple[float, ...],
    "boxes": int,
    "cells": int,
    "training_seeds": tuple[int, ...],
    "test_seeds": tuple[int, ...],
    "validation": float,
    "keep_universes": bool,
    "training": dict,
    "painting_seed": int,
}
OPTIONAL = ("says", "painting_seed")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large an experiment is run: its universes, how they are cut, and how long is trained.

    Attributes
    ----------
    boxsize : float
        Side of a universe [h⁻¹Mpc].
    particles, boxes : int
        Along a universe's side.
    cells : int
        Along a box's side.
    min_halo_mass : float
        Least massive halo [h⁻¹M⊙].
    redshifts : tuple of float
        Of the snapshots that every universe has.
    training_seeds, test_seeds : tuple of int
        Of the universes to learn from, and of those to measure on.
    validation : float
        Share of the boxes set apart in training.
    keep_universes : bool
        Whether universes are written, and stay, or are painted from memory and never written, unless the command says.
    training : mapping
        Options of every training.
    painting_seed : int, optional
        Draws observers and validation boxes; by default the universe's own seed does.
    """

    name: str
    title: str
    says: str
    boxsize: float
    particles: int
    min_halo_mass: float
    redshifts: tuple[float, ...]
    boxes: int
    cells: int
    training_seeds: tuple[int, ...]
    test_seeds: tuple[int, ...]
    validation: float
    keep_universes: bool
    training: Mapping[str, Any]
    painting_seed: int | None = None

    def simulation(self, seed: int, device: str = "cpu") -> SimulateConfig:
        """Of a universe."""
        return SimulateConfig(
            boxsize=self.boxsize,
            particles=self.particles,
            redshifts=self.redshifts,
            seed=seed,
            min_halo_mass=self.min_halo_mass,
            device=device,
        )

    def painting_of(self, painting: Mapping[str, Any], universe: str, seed: int) -> PaintConfig:
        """Of a universe's boxes, as a row says; refuses a redshift that the universes do not have."""
        options = dict(painting)
        redshift = options.pop("redshift", 0.0)
        if redshift not in self.redshifts:
            raise VelfieldError(
                f"no snapshot of this redshift: redshift={redshift:g}, scale={self.name}; it has "
                f"{', '.join(f'{z:g}' for z in self.redshifts)}"
            )
        halos, particles = (storage.join(universe, name) for name in outer_rim_names(redshift_to_step(redshift)))
        drawn = seed if self.painting_seed is None else self.painting_seed
        asked = PaintConfig(
            halos=halos,
            particles=particles,
            boxes=self.boxes,
            cells=self.cells,
            validation=self.validation,
            seed=drawn,
            **options,
        )
        layout = BoxLayout(boxsize=self.boxsize, boxes=self.boxes, cells=self.cells, margin=asked.margin)
        sightlines(asked.rsd, layout, seed=drawn, observer_per_box=asked.observer_per_box)  # refuses what cannot be
        return asked

    def training_of(self, training: Mapping[str, Any]) -> TrainConfig:
        """How a network is trained: as the scale says, less what the row says otherwise."""
        return trained_by(self.training, training)


def read_scales(name: str = SCALES) -> dict[str, Scale]:
    """The scales of a file, by name; of the one that comes with velfield if none is named."""
    _, document = read(name, "scales")
    scales = {}
    for title, table in document.items():
        where = f"file={name}, scale={title}"
        if not isinstance(table, dict):
            raise VelfieldError(f"a key outside of a scale: file={name}, key={title}; put it beneath a [scale]")
        about = checked(where, table, SCALE)
        need(where, about, *(key for key in SCALE if key not in OPTIONAL))
        about["training"] = checked(f"{where}, section=training", about["training"], TRAINING)
        scale = Scale(name=title, **({"says": ""} | about))
        both = set(scale.training_seeds) & set(scale.test_seeds)
        if not scale.training_seeds or not scale.test_seeds or both:
            raise VelfieldError(
                f"universes to learn from and to measure on must be others: {where}, "
                f"training_seeds={list(scale.training_seeds)}, test_seeds={list(scale.test_seeds)}; give at least one "
                "of each, none of both"
            )
        with said_of(where):
            (
                scale.simulation(scale.test_seeds[0]),
                scale.training_of({}),
                scale.painting_of({"rsd": "none"}, "universe", 1),
            )
        scales[title] = scale
    return scales


def pick_scale(name: str, scales: Mapping[str, Scale]) -> Scale:
    """The scale of this name."""
    if name not in scales:
        raise VelfieldError(f"no such scale: scale={name}; {choose(name, scales)}")
    return scales[name]
