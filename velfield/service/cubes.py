"""A cube as a client sends it: counts and masses in an npz, read within limits, made into one isolated box.

The box is a field store's (`velfield.stores.store_layout`), so that a model takes it as it takes every other.
"""

from __future__ import annotations

import hashlib
import math
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM, Cosmology
from velfield.physics.redshift_space import sightlines
from velfield.service import npz
from velfield.service.problems import Problem
from velfield.stores.store_layout import PAINTED, FieldSpec

CONTRAST = "_overdensity"  # after a variable's name: value / mean - 1, of which the counts are made with the mean
SENDABLE = (*PAINTED, *(name + CONTRAST for name in PAINTED))
LEAST_SIDE = 2
LEAST_MASS = 1e5  # of a halo [h⁻¹M⊙]; far below it linear theory has no answer
ALTERNATIVES = "send numpy.savez(file, halo_number=…, halo_mass=…): cubes (x, y, z) of numbers"
OmegaM = Annotated[float, Field(ge=0.05, le=1)]
OmegaB = Annotated[float, Field(ge=0.005, le=0.3)]
Hubble = Annotated[float, Field(ge=0.3, le=1.5)]
Sigma8 = Annotated[float, Field(ge=0.2, le=2)]
Tilt = Annotated[float, Field(ge=0.5, le=1.5)]


class Cube(BaseModel):
    """What a cube is: its geometry, its epoch, and how its halos were chosen."""

    model_config = ConfigDict(extra="forbid")

    cellsize: float = Field(
        gt=0, le=1e4, allow_inf_nan=False, description="Side of a cell, in length_unit.", examples=[5.0]
    )
    redshift: float = Field(ge=0, le=20, allow_inf_nan=False, description="Of the snapshot.", examples=[0.0])
    min_mass: float = Field(
        ge=0, le=1e16, allow_inf_nan=False, examples=[1e12],
        description="Halos below it were left out, in mass_unit; 0 where the threshold is not known.",
    )  # fmt: skip
    rsd: Literal["none", "plane_parallel", "center_radial", "random_radial", "observed"] = Field(
        description="How the halos were moved into redshift space: none; along an axis; seen from the box's centre; "
        "seen from observer; observed: as a survey has them, along line_of_sight or from observer, if that is known.",
        examples=["none"],
    )
    observer: list[float] | None = Field(
        None, min_length=3, max_length=3,
        description="random_radial, observed: x, y, z from the corner of the box, without its margin, in length_unit.",
    )  # fmt: skip
    line_of_sight: Literal["x", "y", "z"] | None = Field(
        None, description="plane_parallel, observed: the axis along which the halos are seen; plane_parallel's is z."
    )
    margin: int = Field(
        0, ge=0, le=1000,
        description="Cells on each side that are surroundings only: the box, which is answered, lies within.",
    )  # fmt: skip
    assignment: Literal["ngp", "cic", "tsc"] = Field("ngp", description="How halos were shared among cells.")
    length_unit: Literal["Mpc/h", "Mpc"] = Field("Mpc/h", description="Of cellsize and observer; comoving.")
    mass_unit: Literal["Msun/h", "Msun"] = Field("Msun/h", description="Of halo_mass, its mean and min_mass.")
    mean_halo_number: float | None = Field(
        None,
        ge=1e-9,
        le=1e24,
        allow_inf_nan=False,
        description="Mean of the universe per cell; the cube's own by default, but of an over-density it is needed.",
    )
    mean_halo_mass: float | None = Field(None, ge=1e-9, le=1e24, allow_inf_nan=False, description="The same.")
    mean_matter_number: float | None = Field(None, ge=1e-9, le=1e24, allow_inf_nan=False, description="The same.")
    omega_m: OmegaM | None = Field(None, description="Cosmology: all five, or none for Outer Rim's.")
    omega_b: OmegaB | None = None
    h: Hubble | None = None
    sigma8: Sigma8 | None = None
    n_s: Tilt | None = None

    @field_validator("min_mass")
    @classmethod
    def _threshold(cls, value: float) -> float:
        if 0 < value < LEAST_MASS:
            raise ValueError(f"no halo is so light: give 0 or at least {LEAST_MASS:g}")
        return value

    def cosmology(self) -> Cosmology:
        """The cosmology that is meant."""
        given = {name: getattr(self, name) for name in ("omega_m", "omega_b", "h", "sigma8", "n_s")}
        if all(value is None for value in given.values()):
            return OUTER_RIM
        if lacking := [name for name, value in given.items() if value is None]:
            raise Problem(422, f"half a cosmology: without {', '.join(lacking)}", "give all five numbers, or none")
        return Cosmology(name="given", **given)

    def side(self, cells: int) -> int:
        """Cells along the side of the box in a cube of so many; refuses a margin that leaves too few."""
        side = cells - 2 * self.margin
        if side < LEAST_SIDE:
            raise Problem(
                422,
                f"nothing is left within the margin: cells={cells}, margin={self.margin}",
                f"send a larger cube: the box within has at least {LEAST_SIDE} cells a side",
            )
        return side

    def mean_of(self, name: str) -> float | None:
        """The universe's mean per cell of a variable, if it is given."""
        value: float | None = getattr(self, f"mean_{name}")
        return value


class Asked(Cube):
    """A cube that is to be answered at once, and what of the answer is accepted."""

    accept: list[Literal["implausible"]] = Field(
        default_factory=list, max_length=1,
        description="implausible: answer, flagged, also where input or velocities cannot be right.",
    )  # fmt: skip


def read_npz(file: IO[bytes], cube: Cube, most_cells: int) -> dict[str, NDArray[np.float32]]:
    """Counts and masses (x, y, z) of an npz by their names, float32; see `Cube`.

    An over-density δ, as ``halo_number_overdensity``, becomes (1 + δ) times the mean, which must be given. At most 24
    bytes for each of ``most_cells`` cells are unpacked: three arrays of eight bytes a number.
    """
    seen: set[str] = set()

    def check(name: str, shape: tuple[int, ...]) -> None:
        variable = name.removesuffix(CONTRAST)
        if variable in seen:
            raise Problem(422, f"the same in two forms: arrays={variable}, {variable}{CONTRAST}", "send one of them")
        seen.add(variable)
        if variable != name and cube.mean_of(variable) is None:
            raise Problem(422, f"an over-density without its mean: array={name}", f"give mean_{variable}")
        if len(shape) != 3 or len(set(shape)) != 1 or shape[0] < LEAST_SIDE:
            raise Problem(
                422, f"not a cube: array={name}, shape={shape[:8]}", "send (x, y, z) with equal sides of at least 2"
            )
        if math.prod(shape) > most_cells:
            raise Problem(
                413, f"too many cells: array={name}, shape={shape}, limit={most_cells}", "send a smaller cube"
            )

    found = {}
    for name, values in npz.arrays(file, SENDABLE, check, ALTERNATIVES):
        variable = name.removesuffix(CONTRAST)
        found[variable] = _counts(name, values if variable == name else _of_contrast(name, values, cube))
    shapes = {values.shape for values in found.values()}
    if len(shapes) > 1:
        raise Problem(422, f"arrays of several shapes: shapes={sorted(shapes)}", "send cubes of one shape")
    return found


def spec_of(cube: Cube, arrays: dict[str, NDArray[np.float32]], fingerprint: str) -> FieldSpec:
    """The field store of one isolated box that a cube stands for."""
    cosmology = cube.cosmology()
    length = cosmology.h if cube.length_unit == "Mpc" else 1.0
    mass = cosmology.h if cube.mass_unit == "Msun" else 1.0
    side = cube.side(next(iter(arrays.values())).shape[0])
    boxes = BoxLayout(boxsize=side * cube.cellsize * length, boxes=1, cells=side, margin=cube.margin)
    if cube.rsd == "random_radial" and cube.observer is None:
        raise Problem(422, "nobody to see the cube: rsd=random_radial, observer=none", "give an observer")
    place = None if cube.observer is None else [value * length for value in cube.observer]
    sight = sightlines(cube.rsd, boxes, seed=0, observer=place, line_of_sight=cube.line_of_sight)
    means = {}
    for name, values in arrays.items():
        mean = cube.mean_of(name)
        own = float(values.mean(dtype=np.float64)) * (mass if name == "halo_mass" else 1.0)
        means[name] = own if mean is None else mean * (mass if name == "halo_mass" else 1.0)
        if not means[name] > 0:
            raise Problem(422, f"a cube without tracers: {name} is 0 everywhere", f"give mean_{name}, or another cube")
    return FieldSpec(
        boxes=boxes,
        cosmology=cosmology,
        redshift=cube.redshift,
        periodic=False,
        rsd=cube.rsd,
        observer_per_box=False,
        line_of_sight=sight.line_of_sight,
        observer=sight.observer,
        given=sight.given,
        min_mass=cube.min_mass * mass,
        assignment=cube.assignment,
        seed=0,
        split=["validation"],
        parent=fingerprint,
        inputs={},
        means=means,
        totals={},
        fingerprint=fingerprint,
    )


def boxed(cube: Cube, arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The arrays with a box axis in front, in the units of a store."""
    mass = np.float32(cube.cosmology().h if cube.mass_unit == "Msun" else 1.0)
    return {n: (values * mass if n == "halo_mass" and mass != 1 else values)[None] for n, values in arrays.items()}


def fingerprint_of(cube: Cube, body: hashlib._Hash) -> str:
    """Hash of a cube: of its bytes, already fed to ``body``, and of what is said of it."""
    later = {"line_of_sight"} if cube.line_of_sight is None else set()  # uploads from before it had no such word
    body.update(cube.model_dump_json(exclude={"accept", *later}).encode())
    return body.hexdigest()


def _of_contrast(name: str, values: NDArray[Any], cube: Cube) -> NDArray[np.float32]:
    """(1 + δ) times the mean; refuses less than nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        made = values.astype(np.float32) + np.float32(1)
        if wrong := int((~(made >= 0)).sum()):
            raise Problem(422, f"below -1 or not a number: array={name}, cells={wrong}", "send value / mean - 1")
        made *= np.float32(cube.mean_of(name.removesuffix(CONTRAST)))
    return made


def _counts(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Counts or masses as float32; refuses what is none."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.ascontiguousarray(values.astype(np.float32))
    if not np.isfinite(found).all() or (found < 0).any():
        wrong = int((~np.isfinite(found) | (found < 0)).sum())
        raise Problem(422, f"negative or not finite: array={name}, cells={wrong}", "send counts and masses per cell")
    return found
