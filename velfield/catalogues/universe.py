"""Which universe a catalogue is of: its cosmology, and an identity that all snapshots of one simulation share.

Boxes of one universe share its long waves, at every redshift; so a model that was trained on one snapshot has seen the
others. `simulate` leaves a record beside its catalogues that says enough; of others the user knows.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from velfield.catalogues.hacc import OUTER_RIM_NAME
from velfield.errors import StorageError, VelfieldError
from velfield.files import storage
from velfield.physics.cosmology import OUTER_RIM, Cosmology

RECORD = "simulation.json"  # what simulate leaves beside its catalogues
UNWRITTEN = "drawn:"  # begins what stands for the URL of a catalogue that was never written
NAMED = {OUTER_RIM.name: OUTER_RIM}
NUMBERS = ("omega_m", "omega_b", "h", "sigma8", "n_s")
STATED = {  # what of a cosmology a file may state, and other names of it
    "omega_m": ("Om0",),
    "omega_b": ("Ob0",),
    "h": (),
    "sigma8": ("sigma_8",),
    "n_s": ("ns",),
    "omega_l": ("Ode0",),
    "omega_nu": (),
    "n_eff_massive": (),
    "w_0": ("w0",),
    "w_a": ("wa",),
}
ROUNDED = 1e-3  # relative, of numbers of a cosmology: they are written with three digits or more
RADIATION = 2e-3  # of Ωm + ΩΛ from 1: today's photons and massless neutrinos are some 1e-4


@dataclass(frozen=True, kw_only=True)
class Universe:
    """What a simulation's record says: the same for every snapshot, halo threshold and number of steps.

    Parameters
    ----------
    identity : str
        Hash of all that its initial density depends on.
    cosmology : Cosmology
        It was simulated with.
    """

    identity: str
    cosmology: Cosmology


def universe_of(url: str) -> Universe | None:
    """The universe of a catalogue that `simulate` wrote, by the record beside it; None of any other."""
    folder, _, name = url.rpartition("/")
    if not OUTER_RIM_NAME.fullmatch(name):
        return None
    try:
        data = storage.find_bytes(storage.join(folder, RECORD) if folder else RECORD)
    except (StorageError, PermissionError):  # where listing is not allowed, what is not there is denied
        return None
    if data is None:
        return None
    try:
        record = json.loads(data)
        if not any(name in (snapshot["halos"], snapshot["particles"]) for snapshot in record["snapshots"]):
            return None
        return universe_with(record["parameters"])
    except (ValueError, KeyError, TypeError) as error:
        raise VelfieldError(
            f"the simulation's record cannot be read: file={folder}/{RECORD}, because={error!r}; "
            "run velfield simulate again, or remove it"
        ) from error


def universe_with(parameters: Mapping[str, Any]) -> Universe:
    """The universe that a simulation with these parameters makes; they may have been to JSON and back."""
    cosmology = Cosmology.from_dict(parameters["cosmology"])
    initial = {"cosmology": _numbers(cosmology), **{n: parameters[n] for n in ("boxsize", "particles", "seed")}}
    digest = hashlib.sha256(json.dumps(initial, sort_keys=True).encode()).hexdigest()
    return Universe(identity=digest, cosmology=cosmology)


def read_cosmology(text: str) -> Cosmology:
    """A cosmology by its name (`NAMED`), or from a JSON or TOML file with the values that `NUMBERS` names."""
    if text in NAMED:
        return NAMED[text]
    if not text.endswith((".json", ".toml")):
        raise VelfieldError(
            f"no such cosmology: cosmology={text}; choose {', '.join(NAMED)}, or name a .json or .toml file"
        )
    data = storage.find_bytes(text)
    if data is None:
        raise VelfieldError(f"no such file: cosmology={text}; {storage.did_you_mean(text)}check the path")
    try:
        values: Any = json.loads(data) if text.endswith(".json") else tomllib.loads(data.decode())
    except ValueError as error:
        raise VelfieldError(f"not a file of this format: cosmology={text}, because={error}; mend it") from error
    if not isinstance(values, dict):
        raise VelfieldError(f"not a cosmology: cosmology={text} holds no names; give {', '.join(NUMBERS)}")
    name = text.rpartition("/")[2].rpartition(".")[0]
    wrong = [n for n in NUMBERS if isinstance(values.get(n), bool) or not isinstance(values.get(n), int | float)]
    wrong += sorted(set(values) - {*NUMBERS, "name"})
    if wrong:
        raise VelfieldError(
            f"not a cosmology: cosmology={text}, missing, unknown or no number={', '.join(wrong)}; "
            f"give {', '.join(NUMBERS)}, and nothing else but a name"
        )
    return Cosmology(name=str(values.get("name", name)), **{n: float(values[n]) for n in NUMBERS})


def settled_cosmology(
    given: Cosmology | None, recorded: Cosmology | None, stated: Mapping[str, Mapping[str, float]]
) -> tuple[Cosmology, list[str]]:
    """The cosmology of catalogues, and what is to be said of it.

    The one that is given, else that of the simulation's record, else what the files state, else Outer Rim's. One that
    contradicts a file is refused, as are files that contradict each other or state what is not flat ΛCDM.

    Parameters
    ----------
    given, recorded : Cosmology, optional
        By the user; by the record beside the catalogues.
    stated : mapping
        By the catalogues' URLs what each states: numbers by the names of `STATED`.
    """
    notes = [note for url, numbers in stated.items() for note in _beyond_ours(url, numbers)]
    said: dict[str, tuple[float, str]] = {}
    for url, numbers in stated.items():
        _refuse_contradiction(url, numbers, said)
        said = {name: (numbers[name], f"file={url}") for name in NUMBERS if name in numbers} | said
    for one, whose in ((given, "given"), (recorded, f"in {RECORD}")):
        if one is not None:
            for url, numbers in stated.items():
                _refuse_contradiction(url, numbers, {n: (v, f"{whose}={one.name}") for n, v in _numbers(one).items()})
            return one, notes
    if not said:
        if not all(OUTER_RIM_NAME.fullmatch(url.rstrip("/").rpartition("/")[2]) for url in stated):
            notes.append(
                f"the catalogue states no cosmology: {OUTER_RIM.name}'s is taken (omega_m={OUTER_RIM.omega_m}, "
                f"h={OUTER_RIM.h}); --cosmology names another"
            )
        return OUTER_RIM, notes
    if lacking := [name for name in NUMBERS if name not in said]:
        taken = ", ".join(f"{name}={getattr(OUTER_RIM, name)}" for name in lacking)
        notes.append(
            f"the catalogue's cosmology has no {', '.join(lacking)}: {OUTER_RIM.name}'s is taken ({taken}); "
            "--cosmology gives all five"
        )
    values = _numbers(OUTER_RIM) | {name: value for name, (value, _) in said.items()}
    return Cosmology(name="header", **values), notes


def _refuse_contradiction(url: str, numbers: Mapping[str, float], others: Mapping[str, tuple[float, str]]) -> None:
    for name in NUMBERS:
        if name in numbers and name in others:
            value, whose = others[name]
            if abs(numbers[name] - value) > ROUNDED * abs(value):
                raise VelfieldError(
                    f"two cosmologies: file={url} states {name}={numbers[name]:g}, {whose} has {name}={value:g}; "
                    "leave --cosmology out, or give the file's"
                )


def _beyond_ours(url: str, numbers: Mapping[str, float]) -> list[str]:
    """Refuse what a flat ΛCDM universe does not have; say what it leaves out."""
    w0, wa, nu = numbers.get("w_0", -1.0), numbers.get("w_a", 0.0), numbers.get("omega_nu", 0.0)
    if abs(w0 + 1) > ROUNDED or abs(wa) > ROUNDED:
        raise VelfieldError(
            f"dark energy that is no cosmological constant: file={url}, w_0={w0:g}, w_a={wa:g}; velfield knows flat "
            "ΛCDM alone"
        )
    if "omega_m" in numbers and "omega_l" in numbers:
        rest = 1 - numbers["omega_m"] - numbers["omega_l"]
        if min(abs(rest), abs(rest - nu)) > RADIATION:  # omega_m may have the neutrinos in it, or not
            raise VelfieldError(
                f"a universe that is not flat: file={url}, omega_m={numbers['omega_m']:g}, "
                f"omega_l={numbers['omega_l']:g}; velfield knows flat ΛCDM alone"
            )
    if nu > 0 or numbers.get("n_eff_massive", 0.0) > 0:
        about = ", ".join(f"{n}={numbers[n]:g}" for n in ("omega_nu", "n_eff_massive") if n in numbers)
        return [f"the catalogue's universe has massive neutrinos ({about}), which velfield takes for cold matter"]
    return []


def _numbers(cosmology: Cosmology) -> dict[str, float]:
    return {name: float(getattr(cosmology, name)) for name in NUMBERS}
