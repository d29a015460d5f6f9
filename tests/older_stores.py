"""A store's layout as velfield wrote it before units were those of astropy: `velfield.files.shards` writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from velfield.files.shards import Layout
from velfield.stores.store_layout import EARLIER_UNITS, LACKED

UNITS = {today: before for before, today in EARLIER_UNITS.items()}
BOOLEANS = ("periodic", "observer_per_box")


def older(layout: Layout) -> Layout:
    """The same layout with the attributes of an older store."""

    def before(name: str, attrs: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in attrs.items() if key not in LACKED.get(name, ())}
        return kept | ({"units": UNITS.get(kept["units"], kept["units"])} if "units" in kept else {})

    return dataclasses.replace(
        layout,
        variables={n: dataclasses.replace(v, attrs=before(n, v.attrs)) for n, v in layout.variables.items()},
        coords={n: dataclasses.replace(c, attrs=before(n, c.attrs)) for n, c in layout.coords.items()},
        attrs={n: bool(value) if n in BOOLEANS else value for n, value in layout.attrs.items()},
    )
