"""``velfield info``: what lies at a URL, as plain values and as lines for a person."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from velfield.accuracy.tables import HEADLINE
from velfield.catalogues import catalogue
from velfield.errors import VelfieldError
from velfield.files import shards, shipped, storage
from velfield.stores import store
from velfield.stores.store_layout import TRUTHS

SHOWN = 12  # hexadecimal digits of a fingerprint, for people
HASH = re.compile("[0-9a-f]{64}")
SCALED = "sigma_v / (a H f D σ₈)"  # of a conditioned network
UNITS = {  # of values by their names, for people
    **dict.fromkeys(("boxsize", "cellsize", "max_shift", "smoothing"), " h⁻¹Mpc"),
    **dict.fromkeys(("min_mass", "min_halo_mass"), " h⁻¹M⊙"),
    "sigma_v": " km/s",
    SCALED: " h⁻¹Mpc",
    "margin": " cells on every side",
    "seconds": " s",
}
ALONG_A_SIDE = dict.fromkeys(("boxes", "cells", "particles", "mesh"), " along a side")
LISTED = 8  # longer lists are counted, for people


def describe(
    url: str,
    redshift: float | None = None,
    *,
    columns: Sequence[str] = (),
    velocity: str | None = None,
    table: str | None = None,
    h: float | None = None,
) -> dict[str, Any]:
    """Describe a catalogue, a store, a model bundle, or what a verb has left or not finished, by its content.

    Parameters
    ----------
    url : str
        Any fsspec URL, or ``pretrained``.
    redshift, columns, velocity, table, h : optional
        Of a catalogue that does not say; as in `velfield.catalogues.catalogue.open_catalogue`.

    Returns
    -------
    dict
        Plain values; ``what`` says which of these it is.
    """
    url = shipped.place(url)
    if shards.published(url):
        return _store(url)
    for name, what, describe_it in RECORDS:
        if storage.exists(storage.join(url, name)):
            return {"what": what, "url": url, **describe_it(url, storage.read_json(storage.join(url, name)))}
    if storage.exists(storage.join(url, store.WORK)):
        raise VelfieldError(f"an unfinished store: url={url}; run the command that makes it again to go on")
    if storage.is_folder(url) and not catalogue.is_folder_of_parts(url):
        raise VelfieldError(f"nothing of velfield's is here: url={url}; name a catalogue, a store or a bundle")
    cat = catalogue.open_catalogue(url, redshift, columns=columns, velocity=velocity, table=table, h=h)
    return {"what": "catalogue", **catalogue.describe(cat)}


def _as_it_is(_url: str, record: dict[str, Any]) -> dict[str, Any]:
    return record


def _training(url: str, _record: dict[str, Any]) -> dict[str, Any]:
    from velfield.learning.checkpoint import read  # torch: only where there is one

    saved = read(url)
    begun = {} if saved is None else {"settings": saved.settings}
    return {"steps_done": 0 if saved is None else saved.step, **begun, "to_go_on": "run the same command again"}


def _demo(url: str, record: dict[str, Any]) -> dict[str, Any]:
    here = {name: storage.join(url, name) for name in ("report.html", "metrics.json")}
    return record | {name: place for name, place in here.items() if storage.exists(place)}


def _evaluation(url: str, record: dict[str, Any]) -> dict[str, Any]:
    metrics = storage.join(url, "metrics.json")
    if not storage.exists(metrics):
        return record
    ((_, row),) = storage.read_json(metrics).items()
    return record | {"metrics": {name: row[name] for name in HEADLINE if name in row}}


def _experiment(_url: str, record: dict[str, Any]) -> dict[str, Any]:
    kept = {name: record[name] for name in ("title", "reproduces", "boxes", "parents")}
    rows = {row["label"]: {n: row["measured"][n] for n in HEADLINE if n in row["measured"]}
            for row in record["rows"]}  # fmt: skip
    return kept | {"scale": record["scale"]["name"], "rows": rows}


def _begun(_url: str, _record: dict[str, Any]) -> dict[str, Any]:
    return {"to_go_on": "run the same command again"}


RECORDS: tuple[tuple[str, str, Callable[[str, dict[str, Any]], dict[str, Any]]], ...] = (
    ("metadata.json", "model bundle", _as_it_is),
    ("simulation.json", "simulation", _as_it_is),
    ("demo.json", "demo", _demo),
    ("evaluation.json", "evaluation", _evaluation),
    ("results.json", "experiment", _experiment),
    (".checkpoint/begun.json", "unfinished training", _training),
    (".calibrate/begun.json", "unfinished calibration", _as_it_is),
    ("simulation.begun.json", "unfinished simulation", _as_it_is),
    ("demo.begun.json", "unfinished demo", _as_it_is),
    ("evaluation.begun.json", "unfinished evaluation", _as_it_is),
    ("plan.json", "unfinished experiment", _begun),
)


def lines(what: dict[str, Any]) -> list[str]:
    """The description for a person: a heading, then a line for each value."""
    out = [f"{what['what']}: {what['url']}"]
    for name, value in what.items():
        if name in ("what", "url", "columns", "variables"):
            continue
        out += _lines_of(name, value, 2, "cells" in what)
    for name, column in what.get("columns", {}).items():
        shape = f" × {column['components']}" if column["components"] > 1 else ""
        out.append(f"  {name:<22} {column['dtype'] + shape:<12} {column['unit']:<10} {column['description']}".rstrip())
    for name, variable in what.get("variables", {}).items():
        mean = f"  mean {variable['mean']:.6g} a cell" if "mean" in variable else ""
        out.append(f"  {name:<16} {variable['dtype']:<8} {variable['units']:<17} {variable['shape']}{mean}")
    return out


def _lines_of(name: str, value: Any, indent: int, cut: bool) -> list[str]:
    """Lines of a value; ``cut`` where it stands among those that say how a volume is cut: numbers along a side."""
    start, label = " " * indent, name.replace("_", " ")
    if isinstance(value, dict) and set(value) == {"mean", "std"}:
        mean, std = (_text(value[n]) for n in ("mean", "std"))
        return [f"{start}{label:<20} {mean}" + ("" if value["std"] is None else f" ± {std}")]
    if name == "normalisation" and isinstance(value, dict) and value.get("condition"):
        value = {SCALED if n == "sigma_v" else n: item for n, item in value.items()}
    if value == {}:
        return []
    if isinstance(value, dict):
        inside = "cells" in value or "boxsize" in value
        return [f"{start}{label}:"] + [
            line
            for key, item in value.items()
            for line in _lines_of(key, item, indent + 2, inside and (key != "boxes" or "measures" not in value))
        ]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [line for i, item in enumerate(value, 1) for line in _lines_of(f"{name} {i}", item, indent, cut)]
    if isinstance(value, list):
        long = len(value) > LISTED or any(isinstance(item, list) for item in value)
        text = f"{len(value)} values" if long else ", ".join(map(_text, value))
    else:
        text = _text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            text += UNITS.get(name, "") or (ALONG_A_SIDE.get(name, "") if cut else "")
    return [f"{start}{label:<20} {text}"]


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value[:SHOWN] if HASH.fullmatch(value) else str(value)


def _store(url: str) -> dict[str, Any]:
    attrs = store.attributes(url)
    if "velfield_kind" not in attrs:
        raise VelfieldError(f"a Zarr group that velfield did not write: url={url}; open it with xarray")
    ds = (store.open_fields if attrs["velfield_kind"] == "fields" else store.open_velocity)(url, chunks=None)
    what: dict[str, Any] = {
        "what": "field store" if attrs["velfield_kind"] == "fields" else "velocity store",
        "url": url,
    }
    for name, value in attrs.items():
        if name not in ("velfield_kind", "Conventions"):
            what[name] = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
        if name in TRUTHS:
            what[name] = bool(value)
    if "split" in ds.coords:
        what["split"] = dict(Counter(map(str, ds.split.values)))
    what["variables"] = {
        str(name): {
            "dtype": str(v.dtype),
            "units": v.attrs.get("units", ""),
            "shape": " ".join(f"{dim}={n}" for dim, n in v.sizes.items()),
            **({"mean": v.attrs["mean"]} if "mean" in v.attrs else {}),
        }
        for name, v in ds.data_vars.items()
    }
    return what
