"""The model card: README.md of a bundle."""

from __future__ import annotations

from typing import Any

from velfield.accuracy.tables import BY_NAME

TESTED = ("slope", "residuals_200", "cos_theta", "r", "rms", "coverage_68", "coverage_95")  # columns of the card


def card(metadata: dict[str, Any]) -> str:
    """The model card: what the model is for, what it saw, how well it did, and what it should not be used for."""
    trained, training, net = metadata["trained_on"], metadata["training"], metadata["architecture"]
    reached, guide = metadata.get("metrics", {}).get("validation", {}), metadata.get("guide")
    lines = [
        "# Peculiar velocities from tracers",
        "",
        f"A 3D U-Net of velfield {metadata['velfield_version']}: {', '.join(metadata['inputs'])} in, the velocity of "
        "matter out [km/s].",
        "",
        "```python",
        "import velfield",
        'velocity = velfield.load_model("this folder").predict(velfield.open_fields("a field store"))',
        "```",
        "",
        "## Made for",
        "",
        f"Cells of {trained['cellsize']:g} h⁻¹Mpc, boxes of {trained['cells']} cells a side with a margin of "
        f"{metadata.get('context', trained['margin'])}, {_halos(metadata)}, redshift-space pattern {trained['rsd']}, "
        f"mass assignment {trained['assignment']}.",
        *([f"It adds to the velocity of linear theory, {guide['name']}, which predict computes."] if guide else []),
        "",
        "## Not for",
        "",
        *(f"- {line}" for line in _not_for(metadata)),
        "",
        "## Made from",
        "",
        f"{training['boxes']} boxes of {len(metadata['parents'])} simulated volumes, {training['steps']} steps of "
        f"{training['settings']['batch']} boxes; {training['parameters']} parameters, width {net['width']}, "
        f"depth {net['depth']}. Volumes: {', '.join(metadata['parents'])}.",
        "Test it on volumes that are not in this list: boxes of one volume share their long waves.",
        "",
        *_tested(metadata.get("metrics", {}).get("tested", [])),
        "## Reached on its validation boxes",
        "",
        *(f"- {name}: {value:.4g}" for name, value in reached.items()),
        *([] if reached else ["No validation boxes were set apart."]),
        *_error_bars(metadata.get("calibration")),
        *_whole_bars(metadata),
        "",
        "These boxes may come from the volumes that it was trained on. `velfield evaluate` measures it on others.",
        "",
    ]
    return "\n".join(lines)


def _halos(metadata: dict[str, Any]) -> str:
    ranges, trained = metadata["normalisation"].get("condition"), metadata["trained_on"]
    if ranges is None:
        return f"redshift {trained['redshift']:g}, halos above {trained['min_mass']:g} h⁻¹M⊙"
    (z, z_max), (mass, mass_max), (dense, dense_max) = (ranges[n] for n in ("redshift", "min_mass", "density"))
    return (
        f"redshifts {z:.3g} to {z_max:.3g}, halos above {mass:.3g} to {mass_max:.3g} h⁻¹M⊙ ({dense:.3g} to "
        f"{dense_max:.3g} of them in a (h⁻¹Mpc)³)"
    )


def _not_for(metadata: dict[str, Any]) -> list[str]:
    """Where it must not be used, or not without a test, as its training says."""
    trained, guide = metadata["trained_on"], metadata.get("guide") or {}
    context, cosmology = metadata.get("context", trained["margin"]), trained["cosmology"]
    lines = [
        f"Anything but {_halos(metadata)}, pattern {trained['rsd']}, assignment {trained['assignment']}, in a universe "
        f"near Ωm {cosmology['omega_m']:g}, σ₈ {cosmology['sigma8']:g}, unless you test it there. `velfield predict` "
        "says what differs and goes on; its accuracy there is not known.",
        f"Cells of another size than {trained['cellsize']:g} h⁻¹Mpc, inputs in other units"
        f"{f', isolated boxes with a margin below {context} cells' if context else ''}: refused.",
        "Galaxies with a selection, and surveys with a mask: it takes an empty cell for an empty place, as it learnt "
        "from all halos above the threshold, everywhere in the box.",
        f"Boxes of less than {trained['cells'] * trained['cellsize']:g} h⁻¹Mpc a side: it learnt with as much around.",
        "Places outside the boxes, and velocities of single galaxies: it gives the mean velocity of matter in a cell.",
    ]
    if guide.get("name") == "linear_whole":
        lines.append("Boxes without the rest of their periodic parent: its guide, linear_whole, sees all of it.")
    elif guide.get("name") in ("linear_halo_padded", "wiener"):
        lines.append(
            f"Another margin than {trained['margin']} cells, unless you test it there: its guide, {guide['name']}, "
            "sees all of it, and error bars need not fit."
        )
    if metadata.get("calibration") is None:
        lines.append("Statements of how sure a velocity is: it gives no error bars.")
    return lines


def _tested(tested: list[dict[str, Any]]) -> list[str]:
    """The table of what evaluations measured, a line for each; none where there is none."""
    if not tested:
        return []
    shown = [BY_NAME[name] for name in TESTED if any(name in one["measures"] for one in tested)]
    head = [
        "redshift",
        "halos above [h⁻¹M⊙]",
        "pattern",
        "margin",
        "boxes",
        "seed",
        "orientations",
        *(e.label for e in shown),
    ]
    lines = ["## Reached on unseen parents", "", _row(head), _row(["---"] * len(head))]
    for one in tested:
        least = f"{one['min_mass']:.3g}" if one["min_mass"] else "all"
        around = "whole" if one.get("shown") == "whole" else f"{one['margin']}"
        where = [f"{one['redshift']:.3g}", least, one["rsd"], around, f"{one['boxes']}"]
        where += ["–" if one["seed"] is None else f"{one['seed']}", f"{one['average']}"]
        lines.append(_row([*where, *(entry.text(one["measures"]) for entry in shown)]))
    said = "Mean±scatter over boxes of universes that are not among those above, by `velfield evaluate`; cells of "
    more = "margin around a box shown by itself, or the whole parent as `velfield predict` shows it; seed of the "
    return [*lines, "", f"{said}{more}universe; orientations that a prediction is averaged over.", ""]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _error_bars(calibration: dict[str, Any] | None) -> list[str]:
    if calibration is None:
        return []
    if calibration["coverage_68"] is None:
        return ["", "It gives error bars, which were not calibrated."]
    return [
        "",
        f"It gives error bars; of {calibration['residuals']} components {calibration['coverage_68']:.1%} and "
        f"{calibration['coverage_95']:.1%} lie within their 68 and 95 % intervals.",
    ]


def _whole_bars(metadata: dict[str, Any]) -> list[str]:
    whole = metadata.get("calibration_whole")
    if whole is None:
        bars = metadata.get("calibration") is not None
        return ["Over whole parents they may be too wide; `velfield calibrate` makes them fit."] if bars else []
    found, stores = whole["map"], whole["stores"]
    parents = sorted({parent for one in stores for parent in one["parents"]})
    where = f"{len(stores)} store{'s' * (len(stores) > 1)} of {len(parents)} other universe{'s' * (len(parents) > 1)}"
    return [
        "",
        "Over whole parents, as `velfield predict` shows them, its error bars have a calibration of their own: "
        f"{found['factor']:.3f} of what the network gives{'' if found['power'] == 1 else ', to the same power'}, in "
        f"place of {metadata['calibration']['factor']:.3f}. It is from {found['residuals']} components of {where} "
        f"({', '.join(parents)}), of which {found['coverage_68']:.1%} and {found['coverage_95']:.1%} lie within the "
        "68 and 95 % intervals.",
    ]
