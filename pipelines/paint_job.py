"""What a painting job is, settled before anything runs: its settings and its inputs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from velfield.catalogues.catalogue import Catalogue, open_catalogue
from velfield.catalogues.hacc import redshift_of_name
from velfield.catalogues.table_format import Table
from velfield.catalogues.universe import RECORD, ROUNDED, settled_cosmology, universe_of
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.geometry.boxes import BoxLayout, split
from velfield.painting import patches
from velfield.painting.clouds import CELLS_PER_AXIS
from velfield.physics.cosmology import Cosmology
from velfield.physics.redshift_space import check_pattern, sightlines
from velfield.pipelines.receipts import Receipts
from velfield.stores import store_layout

KINDS = ("halos", "particles")
FIELDS = {"halos": 2, "particles": 4}  # sums of a cell: number and mass; number and momentum
ROWS = 2**20  # rows of a range in which a block is read: some 30 MB as they are stored
HELD_BYTES = 2**27  # of patches, from which on they are written before the block is at its end
LATER = ("observer", "line_of_sight")  # options without which older receipts and names were made
HALF_A_STEP = 0.001  # of a: a redshift further from a step's is another step's, or no step's


@dataclass(frozen=True, kw_only=True)
class PaintConfig:
    """What to paint.

    Parameters
    ----------
    halos, particles : str, optional
        URLs of catalogues; one of the two may be left out.
    boxes, cells : int
        Boxes along the parent's side, and cells along a box's side.
    margin : int
        Cells of its surroundings that each box carries on every side.
    rsd : str
        Which space the halos are in, and which they are painted in: ``none``, positions are in real space and stay
        there; ``plane_parallel``, ``center_radial`` or ``random_radial``, they are in real space and are moved into
        redshift space by their velocities; ``observed``, they are in redshift space already. Without a default where
        there are halos; particles are never moved, and alone need none.
    observer : tuple of 3 floats, optional
        The observer's place in the parent's coordinates [h⁻¹Mpc], also outside the parent: with ``observed``, or with
        ``random_radial`` instead of the one that is drawn.
    line_of_sight : str, optional
        Axis ``x``, ``y`` or ``z`` along which a distant observer looks: with ``observed``, or with ``plane_parallel``
        instead of z.
    observer_per_box : bool
        With ``random_radial``: draw an observer for each box instead of one for all.
    min_mass : float
        Halos below it [h⁻¹M⊙] are left out.
    assignment : str
        ``ngp``, ``cic`` or ``tsc``.
    seed : int
        Draws the observers and the split.
    validation : float
        Share of the boxes set apart for validation.
    redshift : float, optional
        Of the snapshot, where the file's name does not say.
    boxsize : float, optional
        Side of the parent [h⁻¹Mpc], where the file does not say.
    periodic : bool
        Whether the parent repeats.
    max_shift : float
        A halo carried further by redshift space [h⁻¹Mpc] is refused: its velocity cannot be right.
    halo_column, particle_column : tuple of str
        ``NAME=COLUMN``: the files' names of x y z, vx vy vz and mass, where they are others than HACC's or just these.
    halo_velocity, particle_velocity : str, optional
        ``comoving`` or ``proper``, where the files do not say.
    halo_table, particle_table : str, optional
        The group or extension, of files that hold several tables.
    h : float, optional
        Hubble parameter, where the files do not say, for columns in units without h.
    outside : str
        What to do with positions outside the parent: ``refuse``, ``wrap`` or ``drop`` them.
    cosmology : Cosmology, or one of astropy's, optional
        Turns velocities into shifts; by default that of the record that ``velfield simulate`` left, or the one that
        the files state, else Outer Rim's.
    parent : str, optional
        Name of the universe, the same for all its snapshots; by default that of the same record, else the catalogue's
        fingerprint.
    """

    halos: str | None
    particles: str | None
    boxes: int
    cells: int
    margin: int = 0
    rsd: str = ""
    observer: tuple[float, float, float] | None = None
    line_of_sight: str | None = None
    observer_per_box: bool = False
    min_mass: float = 0.0
    assignment: str = "ngp"
    seed: int = 1
    validation: float = 0.2
    redshift: float | None = None
    boxsize: float | None = None
    periodic: bool = True
    max_shift: float = 50.0
    halo_column: tuple[str, ...] = ()
    particle_column: tuple[str, ...] = ()
    halo_velocity: str | None = None
    particle_velocity: str | None = None
    halo_table: str | None = None
    particle_table: str | None = None
    h: float | None = None
    outside: str = "refuse"
    cosmology: Cosmology | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        if self.halos is None and self.particles is None:
            raise VelfieldError("nothing to paint: no catalogue is named; give --halos, --particles or both")
        if self.halos is None and not self.rsd:
            object.__setattr__(self, "rsd", "none")
        if self.halos is None and self.rsd == "observed":
            raise VelfieldError("particles are in real space: rsd=observed, halos=None; leave --rsd out")
        check_pattern(
            self.rsd,
            observer=self.observer,
            line_of_sight=self.line_of_sight,
            observer_per_box=self.observer_per_box,
        )
        if self.assignment not in CELLS_PER_AXIS:
            raise VelfieldError(
                f"unknown assignment: assignment={self.assignment!r}; choose {', '.join(CELLS_PER_AXIS)}"
            )
        if not (0 <= self.validation < 1 and 0 <= self.min_mass < math.inf and 0 < self.max_shift < math.inf):
            raise VelfieldError(
                f"out of range: validation={self.validation}, min_mass={self.min_mass}, max_shift={self.max_shift}; "
                "validation is a share below 1, the others are finite and not negative"
            )
        if self.h is not None and self.cosmology is not None and abs(self.h - self.cosmology.h) > ROUNDED * self.h:
            raise VelfieldError(
                f"two Hubble parameters: h={self.h:g}, cosmology={self.cosmology.name} has h={self.cosmology.h:g}; "
                "leave --h out, or give the cosmology's"
            )
        if self.seed < 0:
            raise VelfieldError(f"no such seed: seed={self.seed}; give a number from 0 on")
        if self.outside == "wrap" and not self.periodic:
            raise VelfieldError(
                "only a parent that repeats can be wrapped: outside=wrap, periodic=False; choose --outside drop"
            )
        if self.cosmology is not None:
            object.__setattr__(self, "cosmology", Cosmology.of(self.cosmology))

    def open(self, kind: str, table: Table | None = None) -> Catalogue:
        """Open the catalogue of this kind, or take a table that is open for it."""
        where = self.urls[kind] if table is None else table
        return open_catalogue(where, self.redshift, kind=kind, boxsize=self.boxsize, **self.reading(kind))

    def reading(self, kind: str) -> dict[str, Any]:
        """What was said of how the catalogue of this kind is to be read: arguments of `open_catalogue`."""
        one = kind[:-1]
        said = {
            "columns": list(getattr(self, f"{one}_column")),
            "velocity": getattr(self, f"{one}_velocity"),
            "table": getattr(self, f"{one}_table"),
            "h": self.h,
            "outside": None if self.outside == "refuse" else self.outside,
        }
        return {name: value for name, value in said.items() if value}

    def settings(self) -> dict[str, Any]:
        """All but where the catalogues lie, for hashes: options that came later count where they are given."""
        found = {name: value for name, value in asdict(self).items() if name not in KINDS}
        return {name: value for name, value in found.items() if value is not None or name not in LATER}

    @property
    def urls(self) -> dict[str, str]:
        """The catalogues that were named, by kind."""
        return {kind: url for kind in KINDS if (url := getattr(self, kind)) is not None}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A painting job that is ready to run: the catalogues are opened, the scene is set."""

    out: str
    config: PaintConfig
    scene: patches.Scene
    catalogues: Mapping[str, Catalogue]
    parent: str
    fingerprint: str
    versions: Mapping[str, str]
    said: Sequence[str] = ()

    @property
    def masses(self) -> bool:
        """Whether halos have masses to paint."""
        return "halos" in self.catalogues and reads(self.catalogues["halos"], self.scene)["masses"]

    @property
    def receipts(self) -> Receipts:
        """What is done so far."""
        return Receipts(out=self.out, fingerprint=self.fingerprint)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing before the work begins."""
        notes = list(self.said)
        if self.scene.sightlines.given.get("line_of_sight") == "unknown":
            notes.append(
                "nobody says from where the halos were observed: linear theory takes out the mean of redshift space "
                "over all directions, 1 + β/3, and nothing is known along a line of sight; --observer or "
                "--line-of-sight says it"
            )
        if "halos" in self.catalogues and not self.masses:
            notes.append(
                "no column of the halos is known as their mass, so their number alone is painted; "
                "--halo-column mass=NAME (predict: --column) names one"
            )
        for kind, cat in self.catalogues.items():
            named, taken = redshift_of_name(cat.url), self.scene.redshift
            if named is not None and abs(1 / (1 + named) - 1 / (1 + taken)) > HALF_A_STEP:
                notes.append(f"the {kind} are taken at redshift={taken:g}, the step in their name is at {named:.4g}")
        return notes

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Every block of every catalogue, in the order in which they are added."""
        return [(kind, i) for kind, cat in self.catalogues.items() for i in range(len(cat.blocks))]


def prepare(out: str, config: PaintConfig, tables: Mapping[str, Table] | None = None) -> Job:
    """Open the catalogues and settle everything that the tasks share. Reads headers only.

    ``tables`` are taken in place of the catalogues that the configuration names, by kind. What is in memory alone must
    be painted in this process, and has no record beside it: let the configuration say parent and cosmology.
    """
    catalogues = {kind: config.open(kind, None if tables is None else tables[kind]) for kind in config.urls}
    for kind, cat in catalogues.items():
        if cat.kind != kind:
            way_out = "exchange --halos and --particles" if len(catalogues) > 1 else f"name a catalogue of {kind}"
            raise VelfieldError(f"a catalogue of the wrong kind: {kind}={cat.url} holds {cat.kind}; {way_out}")
    boxsize = _agreed("boxsize", config.boxsize, {kind: cat.boxsize for kind, cat in catalogues.items()})
    redshift = _agreed("redshift", config.redshift, {kind: cat.redshift for kind, cat in catalogues.items()})
    boxes = BoxLayout(boxsize=boxsize, boxes=config.boxes, cells=config.cells, margin=config.margin)
    parent, cosmology, said = _universe(config, catalogues)
    scene = patches.Scene(
        boxes=boxes,
        cosmology=cosmology,
        redshift=redshift,
        periodic=config.periodic,
        sightlines=sightlines(
            config.rsd,
            boxes,
            seed=config.seed,
            observer_per_box=config.observer_per_box,
            observer=config.observer,
            line_of_sight=config.line_of_sight,
        ),
        assignment=config.assignment,
        max_shift=config.max_shift,
    )
    settings = config.settings() | {"boxsize": boxsize, "redshift": redshift, "schema": store_layout.SCHEMA}
    settings |= {"parent": parent, "cosmology": asdict(cosmology)}
    settings |= {kind: cat.fingerprint for kind, cat in catalogues.items()}
    # a catalogue's fingerprint is the same wherever it lies; what is half done was read from these very files
    versions = {kind: storage.version(files_of(cat)) for kind, cat in catalogues.items()}
    settings |= {f"{kind} files": version for kind, version in versions.items()}
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    job = Job(
        out=out,
        config=config,
        scene=scene,
        catalogues=catalogues,
        parent=parent,
        fingerprint=fingerprint,
        versions=versions,
        said=said,
    )
    if config.min_mass > 0 and "halos" in catalogues and not job.masses:
        halos = catalogues["halos"]
        raise VelfieldError(
            f"no masses to cut by: min_mass={config.min_mass:g}, file={halos.url}, columns={', '.join(halos.columns)}; "
            "leave --min-mass out, or say which column the mass is (--halo-column mass=NAME, predict: --column)"
        )
    return job


def reads(cat: Catalogue, scene: patches.Scene) -> dict[str, bool]:
    """What painting reads of a catalogue beside positions: keywords of `Catalogue.chunks`.

    Velocities of halos are read where they move them, masses where there are any.
    """
    halos = cat.kind == "halos"
    return {"velocities": not halos or scene.sightlines.moves, "masses": halos and "mass" in cat.meaning.sources}


def files_of(cat: Catalogue) -> Sequence[str]:
    """URLs of all files of a catalogue."""
    return getattr(cat, "files", (cat.url,))


def spec_of(job: Job, means: Mapping[str, float], totals: Mapping[str, Any]) -> store_layout.FieldSpec:
    """Describe the store that the job makes; ``means`` and ``totals`` are known once all blocks are painted."""
    config, scene = job.config, job.scene
    nbox = scene.boxes.nbox
    return store_layout.FieldSpec(
        boxes=scene.boxes,
        cosmology=scene.cosmology,
        redshift=scene.redshift,
        periodic=scene.periodic,
        rsd=config.rsd,
        observer_per_box=config.observer_per_box,
        line_of_sight=scene.sightlines.line_of_sight,
        observer=scene.sightlines.observer,
        given=scene.sightlines.given,
        min_mass=config.min_mass,
        assignment=config.assignment,
        seed=config.seed,
        split=split(nbox, round(config.validation * nbox), config.seed),
        parent=job.parent,
        inputs={
            kind: {"url": cat.url, "rows": len(cat), "bytes": cat.nbytes, "fingerprint": cat.fingerprint}
            | {"columns": cat.meaning.described(), "read_as": config.reading(kind)}
            for kind, cat in job.catalogues.items()
        },
        means=means,
        totals=totals,
        fingerprint=job.fingerprint,
    )


def painted_of(job: Job) -> list[str]:
    """The counts and masses that the job paints."""
    named = {"halos": [*["halo_mass"] * job.masses, "halo_number"], "particles": ["matter_number"]}
    return [name for kind in job.catalogues for name in named[kind]]


def _universe(config: PaintConfig, catalogues: Mapping[str, Catalogue]) -> tuple[str, Cosmology, list[str]]:
    """The parent's name and cosmology: as given, or by the simulation's record, a header, or the fallbacks; notes."""
    found = {kind: universe for kind, cat in catalogues.items() if (universe := universe_of(cat.url)) is not None}
    if len({universe.identity for universe in found.values()}) > 1:
        raise VelfieldError(
            f"the catalogues are of two universes: halos={config.halos}, particles={config.particles}; "
            "take both from one simulation"
        )
    if "halos" in found and config.rsd == "observed":
        raise VelfieldError(
            f"halos of a simulation are in real space: halos={config.halos}, rsd=observed, record={RECORD}; "
            "choose none, or a pattern that moves them"
        )
    known = next(iter(found.values()), None)
    source = catalogues.get("particles") or catalogues["halos"]
    parent = config.parent or (known.identity if known else source.fingerprint)
    cosmology, notes = settled_cosmology(
        config.cosmology, known.cosmology if known else None, {cat.url: cat.cosmology for cat in catalogues.values()}
    )
    return parent, cosmology, notes


def _agreed(name: str, given: float | None, found: Mapping[str, float | None]) -> float:
    """The one value that the user and the catalogues give; otherwise an error that says who says what."""
    known = {kind: value for kind, value in found.items() if value is not None}
    if given is not None:
        known = {"given": given} | known
    if not known:
        raise VelfieldError(f"the {name} is not known: the catalogues do not say; give --{name}")
    values = list(known.values())
    if any(abs(value - values[0]) > 1e-6 * max(1.0, abs(values[0])) for value in values):
        says = ", ".join(f"{who}={value:g}" for who, value in known.items())
        raise VelfieldError(f"the catalogues do not agree on the {name}: {says}; they must be of one snapshot")
    return float(values[0])
