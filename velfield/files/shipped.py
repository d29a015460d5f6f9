"""The model that comes with velfield, by its name: ``pretrained``, wherever a model's URL is taken.

The name is all that travels, in settings, records and to other machines: each process finds the bundle in its own
installation, and it is the hash of the weights that says whether two are the same.
"""

from __future__ import annotations

from pathlib import Path

from velfield.errors import StoreError, VelfieldError

PRETRAINED = "pretrained"
FOLDER = Path(__file__).parents[1] / PRETRAINED


def place(model: str) -> str:
    """URL of a model's bundle: as given, but that of the package's own bundle for the name ``pretrained``.

    A folder of that name is reached by ``./pretrained``. Refuses the name where the installation lacks the bundle.
    """
    if model != PRETRAINED:
        return model
    if not (FOLDER / "metadata.json").is_file():
        raise StoreError(
            f"the model that comes with velfield is not in this installation: model={model}, folder={FOLDER}; "
            "install velfield again, or name a bundle"
        )
    return str(FOLDER)


def refuse_as_target(model: str) -> None:
    """Refuse to write a bundle at the bare name, by which it would not be found again."""
    if model == PRETRAINED:
        raise VelfieldError(
            f"this is the name of the model that comes with velfield: model={model}; "
            f"choose another place, or ./{PRETRAINED} for a folder of that name"
        )
