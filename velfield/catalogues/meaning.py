"""What the columns of a table mean: which are positions, velocities and masses, and how they become our units.

Our names are x y z, vx vy vz and mass. A table's own names for them are found where they are HACC's or these; others
are given. Units come with the columns, or with the names that are given; a column without one is taken to be in
h⁻¹Mpc, km/s or h⁻¹M⊙, and `velfield info` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from velfield.catalogues import hacc, units
from velfield.catalogues.table_format import Column, Facts
from velfield.errors import CatalogueError, VelfieldError
from velfield.painting.tracers import NAMES

QUANTITY = dict(zip(NAMES, ("length",) * 3 + ("speed",) * 3 + ("mass",), strict=True))
OURS = {"length": hacc.LENGTH, "speed": hacc.SPEED, "mass": hacc.MASS}
VELOCITY = ("comoving", "proper")
KINDS = ("halos", "particles")
REFERENCE = re.compile(r"(?P<column>.+?)(?:\[(?P<component>\d+)\])?(?:\s+\[(?P<unit>[^\]]+)\])?")
COM = tuple(f"fof_halo_com_{x}" for x in "xyz")
# names that are looked for, the first that are all there
POSITIONS = {"halos": (hacc.CENTRES, hacc.MEANS, COM, hacc.POSITIONS), "particles": (hacc.POSITIONS,)}
VELOCITIES = {
    "halos": (hacc.HALO_VELOCITIES, tuple(f"fof_halo_com_v{x}" for x in "xyz"), hacc.VELOCITIES),
    "particles": (hacc.VELOCITIES,),
}
MASSES = ((hacc.HALO_MASS,), ("mass",))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one of our columns comes from: a column (of a vector one, a component), times a factor."""

    column: str
    component: int | None
    unit: str
    factor: float

    def __str__(self) -> str:
        name = self.column if self.component is None else f"{self.column}[{self.component}]"
        times = "" if self.factor == 1 else f" × {self.factor:.6g}"
        return f"{name} [{self.unit or 'no unit stated'}]{times}"


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a table holds.

    Parameters
    ----------
    kind : str
        ``halos`` or ``particles``.
    sources : dict of str to Source
        By our names, those that are there.
    velocity : str or None
        ``comoving`` (proper is a times it) or ``proper``; None where nobody says.
    length : str
        ``comoving`` or ``proper`` (comoving is 1 + z times it).
    """

    kind: str
    sources: dict[str, Source]
    velocity: str | None
    length: str

    def described(self) -> dict[str, str]:
        """For people: each of our columns, and the frame of the velocities."""
        what = {name: str(source) for name, source in self.sources.items()}
        return what | ({"velocities": self.velocity or "not said whether comoving or proper"} if "vx" in what else {})


def pairs(columns: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    """Our names and the file's, from a mapping or from ``NAME=COLUMN`` texts."""
    if columns is None:
        return {}
    if isinstance(columns, Mapping):
        given = dict(columns)
    else:
        wrong = [text for text in columns if "=" not in text]
        if wrong:
            raise VelfieldError(f"not a name and a column: column={wrong[0]!r}; write it as mass=NAME")
        given = {name.strip(): column.strip() for name, _, column in (text.partition("=") for text in columns)}
    unknown = [name for name in given if name not in NAMES]
    if unknown:
        raise VelfieldError(f"no such name: column={unknown[0]}; the names to give are {' '.join(NAMES)}")
    return given


def meaning_of(
    url: str,
    columns: Mapping[str, Column],
    facts: Facts,
    *,
    given: Mapping[str, str],
    velocity: str | None = None,
    kind: str | None = None,
    h: float | None = None,
) -> Meaning:
    """Settle what the columns of a table mean.

    Parameters
    ----------
    url : str
        The file, for errors.
    columns, facts : mapping, Facts
        What the table has, and says of itself.
    given : mapping of str to str
        The file's names by ours, ``NAME``, ``NAME[0]`` for a component of a vector column, ``NAME [unit]``.
    velocity, kind : str, optional
        What the user says of the velocities, and of a table whose own names do not tell its kind.
    h : float, optional
        Hubble parameter for units without it.
    """
    if velocity not in (None, *VELOCITY) or kind not in (None, *KINDS):
        raise VelfieldError(
            f"no such choice: velocity={velocity}, kind={kind}; velocities are comoving or proper, "
            "a table holds halos or particles"
        )
    settled = _kind(columns, facts, given, kind)
    names = _names(columns, settled) | dict(given)
    if not {"x", "y", "z"} <= set(names):
        if {"ra", "dec"} <= {column.lower() for column in columns}:
            raise CatalogueError(
                f"a catalogue on the sky, without places in a box: file={url}, columns={', '.join(columns)}; give "
                "comoving x, y, z [h⁻¹Mpc] of a complete catalogue that fills its cube: a survey needs its selection "
                "(its mask, and how its density falls with distance), which is not taken yet"
            )
        raise CatalogueError(
            f"neither halos nor particles: file={url}, columns={', '.join(columns)}; halos need fof_halo_center_x y z, "
            "particles x y z, or say which columns these are (columns={'x': NAME}, --halo-column x=NAME)"
        )
    found = {name: _source(url, columns, name, names[name], h) for name in NAMES if name in names}
    sources = {name: source for name, (source, _) in found.items()}
    frames = {name: frame for name, (_, frame) in found.items() if frame}
    return Meaning(
        kind=settled,
        sources=sources,
        velocity=velocity or agreed_frame(url, frames, NAMES[3:6], facts.velocity) or _velocity_of_names(sources),
        length=agreed_frame(url, frames, NAMES[:3], facts.length) or "comoving",
    )


def _kind(columns: Mapping[str, Column], facts: Facts, given: Mapping[str, str], asked: str | None) -> str:
    """HACC's names and a file's own statement decide, unless the user names the positions; then what the user says."""
    halos = any(set(names) <= set(columns) for names in (hacc.CENTRES, hacc.MEANS, COM, (hacc.HALO_MASS,)))
    certain = facts.kind or ("halos" if halos else None)
    if certain and not {"x", "y", "z"} & set(given):
        return certain
    masses = "mass" in given or any(set(names) <= set(columns) for names in MASSES)
    return asked or ("halos" if masses else facts.kind or "particles")


def _names(columns: Mapping[str, Column], kind: str) -> dict[str, str]:
    """The file's names by ours, where they are known ones."""
    names: dict[str, str] = {}
    for ours, choices in ((NAMES[:3], POSITIONS[kind]), (NAMES[3:6], VELOCITIES[kind]), (NAMES[6:], MASSES)):
        most = max(choices, key=lambda choice: len(set(choice) & set(columns)))  # the first of equal ones
        names |= {name: column for name, column in zip(ours, most, strict=True) if column in columns}
    return names


def _source(
    url: str, columns: Mapping[str, Column], name: str, reference: str, h: float | None
) -> tuple[Source, str | None]:
    """Where a column comes from, and the frame that its unit names."""
    column, component, unit = reference, None, ""
    if reference not in columns and (parts := REFERENCE.fullmatch(reference)):
        column, unit = parts["column"], parts["unit"] or ""
        component = int(parts["component"]) if parts["component"] else None
    if column not in columns:
        raise CatalogueError(
            f"no such column: file={url}, column={column}, wanted for={name}; the file has {', '.join(columns)}"
        )
    shape = columns[column].dtype.shape
    if (component is None) != (not shape) or (component is not None and component >= shape[0]) or len(shape) > 1:
        raise CatalogueError(
            f"not a single number a row: file={url}, column={reference}, components={shape or 1}; "
            f"of a vector column name one component, as in {name}={column}[0]"
        )
    if columns[column].dtype.base.kind not in "fiu":
        raise CatalogueError(
            f"not a column of numbers: file={url}, column={column}, dtype={columns[column].dtype.base}; "
            f"name another for {name}"
        )
    unit = unit or columns[column].unit
    quantity = QUANTITY[name]
    factor = units.factor(unit, quantity, h=h, where=f"file={url}, column={column}") if unit else 1.0
    parsed = units.parse(unit)
    return Source(column=column, component=component, unit=unit, factor=factor), parsed.frame if parsed else None


def agreed_frame(url: str, frames: Mapping[str, str], names: Sequence[str], stated: str | None) -> str | None:
    """The frame that these columns' units and the file agree on."""
    said = {frames[name] for name in names if name in frames} | ({stated} if stated else set())
    if len(said) > 1:
        units_say = ", ".join(f"{name}={frames.get(name)}" for name in names)
        raise CatalogueError(
            f"different frames: file={url}, stated={stated}, units of {units_say}; name columns that go together, "
            "or say which it is in their units"
        )
    return next(iter(said), None)


def _velocity_of_names(sources: Mapping[str, Source]) -> str | None:
    """HACC's names mean comoving velocities in whatever format they are."""
    own = "vx" in sources and sources["vx"].column.startswith("fof_halo_")
    return "comoving" if own else None
