"""3D peculiar-velocity fields from halo and galaxy catalogues.

The names below are resolved on first use: importing velfield loads neither torch nor Dask.
"""

from importlib import import_module
from typing import Any

from velfield.version import __version__

_HOME = {
    "OUTER_RIM": "physics.cosmology",
    "Client": "client.client",
    "Cosmology": "physics.cosmology",
    "VelfieldError": "errors",
    "open_catalogue": "catalogues.catalogue",
    "open_fields": "stores.store",
    "open_velocity": "stores.store",
    "linear_velocity": "physics.linear",
    "load_model": "models",
    "metrics": "accuracy.measures",
    "query": "answers.queries",
    "query_positions": "answers.queries",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'velfield' has no attribute {name!r}")
    return getattr(import_module(f"velfield.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
