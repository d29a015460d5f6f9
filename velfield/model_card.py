"""The model card: README.md of a bundle."""

from __future__ import annotations

from typing import Any


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
        "Another cell size or unit is refused; other differences are reported, and its accuracy there is not known.",
        "",
        "## Made from",
        "",
        f"{training['boxes']} boxes of {len(metadata['parents'])} simulated volumes, {training['steps']} steps of "
        f"{training['settings']['batch']} boxes; {training['parameters']} parameters, width {net['width']}, "
        f"depth {net['depth']}. Volumes: {', '.join(metadata['parents'])}.",
        "Test it on volumes that are not in this list: boxes of one volume share their long waves.",
        "",
        "## Reached on its validation boxes",
        "",
        *(f"- {name}: {value:.4g}" for name, value in reached.items()),
        *([] if reached else ["No validation boxes were set apart."]),
        *_error_bars(metadata.get("calibration")),
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
        f"redshifts {z:g} to {z_max:g}, halos above {mass:.3g} to {mass_max:.3g} h⁻¹M⊙ ({dense:.3g} to "
        f"{dense_max:.3g} of them in a (h⁻¹Mpc)³)"
    )


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
