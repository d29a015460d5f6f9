"""What came of an experiment: results.json, table.md and figures, from the evaluations of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from velfield.accuracy.tables import entry_of
from velfield.analysis import experiment_figures
from velfield.analysis.compare import pair_rows, parents_of
from velfield.analysis.evaluate import RECORD, read_rows
from velfield.analysis.experiment_table import text
from velfield.analysis.figure_style import save
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.network.bundle import add_tested, read_metadata
from velfield.pipelines.experiment_plan import Plan, RowPlan

RESULTS, TABLE, BEGUN = "results.json", "table.md", "plan.json"
FIGURES = {"measures": experiment_figures.measures, "depth": experiment_figures.depth}


def begin(plan: Plan) -> None:
    """Take the folder of the results; what an earlier version of the experiment left there goes."""
    begun = storage.join(plan.out, BEGUN)
    if not storage.exists(begun):
        if storage.names(plan.out):
            raise VelfieldError(
                f"this folder is not empty: folder={plan.out}; it is for the experiment's results: empty it"
            )
    elif storage.read_json(begun)["plan"] != plan.digest():
        storage.remove(plan.out)
    storage.write_json(begun, {"plan": plan.digest()})


def finished(plan: Plan) -> bool:
    """Whether the results of just this plan are there, all."""
    names = (RESULTS, TABLE, *(f"{name}.png" for name in plan.experiment.figures))
    begun = storage.join(plan.out, BEGUN)
    return (
        storage.exists(begun)
        and storage.read_json(begun)["plan"] == plan.digest()
        and all(storage.exists(storage.join(plan.out, name)) for name in names)
    )


def record_of(url: str) -> dict[str, Any]:
    """What is noted of how a universe, store, model or evaluation was made; empty where nothing is."""
    beside = f"{url}.json"
    return dict(storage.read_json(beside)) if storage.exists(beside) else {}


def complete_cards(plan: Plan) -> None:
    """Write on the model cards of the networks that are here what they reached, where that is of one universe."""
    seeds = plan.scale.test_seeds
    for one in plan.rows:
        if one.train is None or len(seeds) > 1 or not one.train.done():
            continue
        record = storage.read_json(storage.join(one.evaluate.url, RECORD))
        add_tested(one.train.url, read_rows(one.evaluate.url)[record["row"]], record, seed=seeds[0])


def write(plan: Plan) -> None:
    """Write all results but the contours; results.json is the last."""
    rows, results = _results(plan)
    for name in plan.experiment.figures:
        if name in FIGURES:
            save(FIGURES[name](results, rows), storage.join(plan.out, f"{name}.png"))
    storage.write_bytes(storage.join(plan.out, TABLE), text(results).encode())
    storage.write_json(storage.join(plan.out, RESULTS), results)


def _results(plan: Plan) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Each row's measures with all boxes' values, and what results.json holds."""
    records = [storage.read_json(storage.join(one.evaluate.url, RECORD)) for one in plan.rows]
    measured = [read_rows(one.evaluate.url)[record["row"]] for one, record in zip(plan.rows, records, strict=True)]
    parents = [parents_of(one.evaluate.url, record) for one, record in zip(plan.rows, records, strict=True)]
    places = [
        [(parent, box) for parent, box in zip(of, _boxes(record), strict=True)]
        for of, record in zip(parents, records, strict=True)
    ]
    rows = []
    for one, row, where in zip(plan.rows, measured, places, strict=True):
        if where != places[0]:
            raise VelfieldError(
                f"rows of other boxes cannot be compared: row={one.row.name}, evaluation={one.evaluate.url}; "
                "remove the evaluation and run again"
            )
        paired = {} if one is plan.rows[0] else pair_rows(row, measured[0], parents[0])
        rows.append(
            _row(plan, one, row) | {"difference": {n: asdict(p) for n, p in paired.items() if n in _shown(plan)}}
        )
    experiment = plan.experiment
    return measured, {
        "experiment": experiment.name,
        "title": experiment.title,
        "reproduces": experiment.reproduces,
        "says": experiment.says,
        "measures": [asdict(entry_of(name)) for name in experiment.measures],
        "scale": asdict(plan.scale),
        "boxes": len(places[0]),
        "parents": len(set(parents[0])),
        "rows": rows,
        "figures": [f"{name}.png" for name in experiment.figures],
        "made": [_made(step.url) for step in plan.steps],
        "commands": plan.commands(),
        "velfield_version": sorted({str(record["velfield_version"]) for record in records}),
    }


def _shown(plan: Plan) -> tuple[str, ...]:
    return plan.experiment.measures


def _row(plan: Plan, one: RowPlan, measured: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.row.name,
        "label": one.row.label,
        "model": one.evaluate.model,
        "stores": list(one.evaluate.stores),
        "evaluation": one.evaluate.url,
        "painting": dict(one.row.painting),
        "paper": dict(one.row.paper),
        "measured": {
            name: {key: measured[name][key] for key in ("mean", "std")} for name in _shown(plan) if name in measured
        },
    }
    if one.train is not None and one.train.done():  # what is measured may have been taken elsewhere
        training = read_metadata(one.train.url)["training"]
        kept = ("steps", "boxes", "seconds", "device", "threads", "precision", "parameters", "settings")
        row["training"] = {name: training[name] for name in kept if name in training}
        row["training"]["seconds"] = _made(one.train.url)["seconds"] or training["seconds"]  # over all runs, if known
    return row


def _made(url: str) -> dict[str, Any]:
    """How a thing was made, if it is known."""
    record = record_of(url)
    settings = record.get("settings", {})
    return {
        "url": url,
        "seconds": sum(record["seconds"].values()) if record else None,
        "machine": settings.get("machine"),
        "velfield_version": settings.get("velfield_version"),
        "written": settings.get("written", True),
    }


def _boxes(record: Mapping[str, Any]) -> list[int]:
    return [box for store in record["fields"] for box in store["boxes"]]
