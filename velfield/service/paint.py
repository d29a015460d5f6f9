"""Catalogues of halos that clients send or name: how they are painted, and what a file of theirs may not have in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from velfield.catalogues import table_hdf5
from velfield.physics.cosmology import Cosmology
from velfield.physics.redshift_space import CHOICES
from velfield.service import cubes
from velfield.service.problems import Problem

# types of bodies; what a file is, it says itself
FORMS = ("text/csv", "application/vnd.apache.parquet", "application/fits", "application/x-hdf5")
FORMATS = ("CSV", "Parquet", "FITS", "HDF5")


class FiveNumbers(BaseModel):
    """A cosmology."""

    model_config = ConfigDict(extra="forbid", strict=True)

    omega_m: cubes.OmegaM
    omega_b: cubes.OmegaB
    h: cubes.Hubble
    sigma8: cubes.Sigma8
    n_s: cubes.Tilt


class Paint(BaseModel):
    """How a catalogue of halos is painted: the options that `velfield predict` takes for one, with its defaults.

    Which space its positions are in has none: ``rsd`` must be said.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"redshift": 0.0, "boxsize": 900.0, "rsd": "none", "min_mass": 1e12}]},
    )

    boxes: int | None = Field(None, ge=1, le=1024, description="Along the parent's side; as the model's by default.")
    cells: int | None = Field(None, ge=2, le=1024, description="Along a box's side; given with boxes or not at all.")
    rsd: Literal["none", "plane_parallel", "center_radial", "random_radial", "observed"] = Field(
        description="none: positions are in real space and stay there; plane_parallel, center_radial, random_radial: "
        "halos are moved into redshift space by their velocities; observed: positions are in redshift space already."
    )
    observer: list[Annotated[float, Field(allow_inf_nan=False)]] | None = Field(
        None, min_length=3, max_length=3,
        description="observed, random_radial: from where the halos are seen, x, y, z in the parent [Mpc/h].",
    )  # fmt: skip
    line_of_sight: Literal["x", "y", "z"] | None = Field(
        None, description="observed, plane_parallel: the axis along which the halos are seen; plane_parallel's is z."
    )
    observer_per_box: bool = Field(False, description="random_radial: an observer for each box, not one for all.")
    min_mass: float = Field(0.0, ge=0, le=1e16, allow_inf_nan=False, description="Leave out halos below it [Msun/h].")
    assignment: Literal["ngp", "cic", "tsc"] = Field("ngp", description="How a halo is shared among cells.")
    seed: int = Field(1, ge=0, lt=2**31, description="Draws the observers.")
    redshift: float | None = Field(None, ge=0, le=20, allow_inf_nan=False, description="Where the file does not say.")
    boxsize: float | None = Field(
        None, gt=0, le=1e5, allow_inf_nan=False, description="Side of the parent [Mpc/h], where the file does not say."
    )
    periodic: bool = Field(True, description="Whether the parent repeats.")
    max_shift: float = Field(50.0, gt=0, le=1000, description="A halo carried further is refused [Mpc/h].")
    column: list[Annotated[str, Field(max_length=200)]] = Field(
        [], max_length=7, description="x=NAME or x=NAME [unit]: the file's names of x y z, vx vy vz, mass."
    )
    velocity: Literal["comoving", "proper"] | None = Field(None, description="Where the file does not say.")
    table: str | None = Field(None, max_length=200, description="Group or extension, where a file has several tables.")
    h: float | None = Field(None, ge=0.3, le=1.5, description="For units without h, where the file does not say it.")
    outside: Literal["refuse", "wrap", "drop"] = Field("refuse", description="Positions outside the parent.")
    cosmology: FiveNumbers | None = Field(None, description="By default the file's, else Outer Rim's.")

    @model_validator(mode="before")
    @classmethod
    def _rsd_is_said(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("rsd") is None:
            raise ValueError(f"it is not said whether halos are in redshift space: give rsd: {CHOICES}")
        return values

    def keywords(self) -> dict[str, Any]:
        """Of `velfield.pipelines.paint_job.PaintConfig`, but for boxes and cells."""
        given = self.model_dump(exclude={"boxes", "cells", "column", "velocity", "table", "cosmology"})
        given["observer"] = None if self.observer is None else tuple(self.observer)
        cosmology = None if self.cosmology is None else Cosmology(name="given", **self.cosmology.model_dump())
        halos = {"column": tuple(self.column), "velocity": self.velocity, "table": self.table}
        return given | {f"halo_{name}": value for name, value in halos.items()} | {"cosmology": cosmology}


def check_sent(path: str) -> None:
    """Refuse an HDF5 file whose values, by links or storage, lie elsewhere on this machine."""
    with open(path, "rb") as file:
        if file.read(len(table_hdf5.MAGIC)) != table_hdf5.MAGIC:
            return
    for name in table_hdf5.elsewhere(path):
        raise Problem(
            422, f"what lies elsewhere is not read: name={name[:80]!a}", "send a file that holds its columns itself"
        )
