"""HACC's names: what the columns of its files are, and how the Outer Rim release numbers and names its snapshots."""

from __future__ import annotations

import re

from velfield.errors import VelfieldError

LAST_STEP = 499  # of 500; Outer Rim went from z = 200 to z = 0 in equal steps of a
OUTER_RIM_NAME = re.compile(r"(?:m000-(\d+)\.fofproperties|m000\.mpicosmo\.(\d+))(?:(?:#|%23)\d+)?")

LENGTH, MASS, SPEED = "h⁻¹Mpc", "h⁻¹M⊙", "km/s"
COLUMNS = {
    "fof_halo_count": ("1", "particles in the halo"),
    "fof_halo_tag": ("1", "number of the halo"),
    "fof_halo_mass": (MASS, "friends-of-friends mass"),
    **{f"fof_halo_center_{x}": (LENGTH, f"potential minimum, {x}, comoving") for x in "xyz"},
    **{f"fof_halo_mean_{x}": (LENGTH, f"centre of mass, {x}, comoving") for x in "xyz"},
    **{f"fof_halo_mean_v{x}": (SPEED, f"mean velocity, {x}, comoving: proper is a times it") for x in "xyz"},
    "fof_halo_vel_disp": (SPEED, "velocity dispersion, comoving; not to be used"),
    **{x: (LENGTH, f"position, {x}, comoving") for x in "xyz"},
    **{f"v{x}": (SPEED, f"velocity, {x}, comoving: proper is a times it") for x in "xyz"},
    "phi": ("", "gravitational potential, the code's units"),
    "id": ("1", "number of the particle"),
    "mask": ("1", "the code's flags"),
}
CENTRES = tuple(f"fof_halo_center_{x}" for x in "xyz")
MEANS = tuple(f"fof_halo_mean_{x}" for x in "xyz")
HALO_VELOCITIES = tuple(f"fof_halo_mean_v{x}" for x in "xyz")
HALO_MASS = "fof_halo_mass"
POSITIONS, VELOCITIES = ("x", "y", "z"), ("vx", "vy", "vz")


def step_to_redshift(step: int) -> float:
    """Redshift of an Outer Rim step: a = 1/201 + (200/201)·(step + 1)/500; step 499 is z = 0 exactly."""
    if not 0 <= step <= LAST_STEP:
        raise VelfieldError(f"no such step: step={step}; Outer Rim's steps are 0 to {LAST_STEP}")
    return 201 / (1 + 200 * (step + 1) / (LAST_STEP + 1)) - 1


def redshift_to_step(redshift: float) -> int:
    """The Outer Rim step whose a is nearest to that of ``redshift``."""
    if not 0 <= redshift <= step_to_redshift(0):
        raise VelfieldError(
            f"no step near this redshift: redshift={redshift}; "
            f"Outer Rim's steps go from z = {step_to_redshift(0):.0f} to 0"
        )
    return max(0, round((201 / (1 + redshift) - 1) / 200 * (LAST_STEP + 1)) - 1)


def outer_rim_names(step: int) -> tuple[str, str]:
    """Names of the halo and of the particle file of a step."""
    return f"m000-{step}.fofproperties", f"m000.mpicosmo.{step}"


def redshift_of_name(url: str) -> float | None:
    """Redshift of the step in a name as Outer Rim's files have it; None for any other name."""
    named = OUTER_RIM_NAME.fullmatch(url.rstrip("/").rpartition("/")[2])
    if named is None:
        return None
    step = int(named[1] or named[2])
    return step_to_redshift(step) if step <= LAST_STEP else None
