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


def _numbers(cosmology: Cosmology) -> dict[str, float]:
    return {name: float(getattr(cosmology, name)) for name in NUMBERS}
