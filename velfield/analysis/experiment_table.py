"""An experiment's results as Markdown: rows by measures, the paper beside, differences to the first row, how made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from velfield.accuracy.tables import MINUS, Entry

SURE = 0.001  # a smaller p says no more: boxes of one universe are not independent
KINDS = {"universes": "simulated", "fields": "painted", "models": "trained", "evaluations": "measured"}


def text(results: Mapping[str, Any]) -> str:
    """The page; ``results`` as results.json has them."""
    scale, rows = results["scale"], results["rows"]
    entries = [Entry(**entry) for entry in results["measures"]]
    boxes, parents = results["boxes"], results["parents"]
    lines = [
        f"# {results['title']}",
        "",
        f"Reproduces {results['reproduces']}.",
        *(["", results["says"].strip()] if results["says"] else []),
        "",
        f"**Scale `{scale['name']}`**: {scale['title']}.",
        *([scale["says"].strip()] if scale["says"] else []),
        "",
        f"Mean ± scatter of {boxes} boxes of {_count(parents, 'universe')} that no training saw"
        + ("; in brackets the paper's value." if any(row["paper"] for row in rows) else "."),
        "",
        *_table(["", *(e.label for e in entries)], [[r["label"], *(_value(e, r) for e in entries)] for r in rows]),
    ]
    first, others = rows[0], [row for row in rows if row["difference"]]
    if others:
        shown = [[row["label"], *(_difference(e, row) for e in entries)] for row in others]
        lines += [
            "",
            f"Difference to *{first['label']}*, box by box: mean ± its standard error over "
            + ("universes" if parents > 1 else "boxes of one universe, which share its long waves")
            + "; in brackets the p of a paired t test.",
            "",
            *_table(["", *(e.label for e in entries)], shown),
        ]
    lines += ["", *(f"![{name.removesuffix('.png')}]({name})" for name in results["figures"])]
    return "\n".join([*lines, "", *_how(results)]) + "\n"


def _how(results: Mapping[str, Any]) -> list[str]:
    """Universes, trainings, seconds, machines and commands."""
    scale = results["scale"]
    side = scale["boxsize"] / scale["boxes"]
    lines = [
        "## How it was made",
        "",
        f"Universes of {scale['boxsize']:g} h⁻¹Mpc with {scale['particles']}³ particles and halos above "
        f"{scale['min_halo_mass']:.3g} h⁻¹M⊙; seeds {_listed(scale['training_seeds'])} to learn from, "
        f"{_listed(scale['test_seeds'])} to measure on. {scale['boxes'] ** 3} boxes each, of {side:g} h⁻¹Mpc and "
        f"{scale['cells']}³ cells.",
        "",
    ]
    trained: dict[str, Mapping[str, Any]] = {}
    for row in results["rows"]:
        if "training" in row:
            trained.setdefault(row["model"], row)  # later rows measure the same network elsewhere
    if trained:
        cells = []
        for row in trained.values():
            training = row["training"]
            settings = training["settings"]
            cells.append(
                [
                    row["label"],
                    f"{training['steps']} × {settings['batch']} boxes",
                    str(settings["seed"]),
                    f"{training['parameters']:,}",
                    f"{training['seconds']:.0f}",
                    f"{training['device']}, {_count(training['threads'], 'thread')}",
                ]
            )
        lines += _table(["network trained for", "steps", "seed", "parameters", "s", "on"], cells)
        lines += [""]
    lines += _table(["", "how many", "s in all", "on"], _made(results["made"]))
    version = ", ".join(results["velfield_version"])
    drawn = sum(not one["written"] for one in results["made"])
    lines += ["", f"velfield {version}. The commands:", "", "```sh", *results["commands"], "```"]
    if drawn:
        lines += [
            "",
            f"{_count(drawn, 'universe')} of these {'was' if drawn == 1 else 'were'} painted from memory and never "
            "written. The commands write them, and paint stores with the same arrays from the files (to the last bit "
            "where both were simulated on the same machine's CPU).",
        ]
    return lines


def _made(made: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Seconds of each kind of step, and where they were spent; a thing that came without a note counts as unknown."""
    lines = []
    for folder, said in KINDS.items():
        some = [one for one in made if one["url"].split("/")[-2] == folder]
        if not some:
            continue
        known = [one["seconds"] for one in some if one["seconds"] is not None]
        seconds = f"{sum(known):.0f}" if len(known) == len(some) else f"{sum(known):.0f} of {len(known)}"
        machines = sorted({one["machine"] for one in some if one["machine"]})
        lines.append([said, str(len(some)), seconds, "; ".join(machines) or "–"])
    return lines


def _value(entry: Entry, row: Mapping[str, Any]) -> str:
    paper = row["paper"].get(entry.name)
    shown = entry.text(row["measured"])
    return shown if paper is None else f"{shown} ({paper * entry.scale:.{entry.decimals}f})"


def _difference(entry: Entry, row: Mapping[str, Any]) -> str:
    paired = row["difference"].get(entry.name)
    if paired is None:
        return "–"
    of = "parents" if paired["parents"] > 1 else "boxes"
    digits = entry.decimals + 1
    error, p = paired[f"error_{of}"], paired[f"p_{of}"]
    shown = f"{paired['difference'] * entry.scale:+.{digits}f}".replace("-", MINUS)
    shown += "" if error is None else f"±{error * entry.scale:.{digits}f}"
    if p is None:
        return shown
    return f"{shown} ({p:.2g})" if p >= SURE else f"{shown} (<{SURE:g})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its first column to the left."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return [padded[0], rule, *padded[1:]]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
