"""A network with arbitrary weights, as a bundle that fits a store: for tests in which accuracy does not matter."""

from __future__ import annotations

from typing import Any

import torch

from velfield.network.model import Model
from velfield.network.normalisation import Channel, Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.physics.condition import NUMBERS, Ranges
from velfield.stores import store
from velfield.stores.sources import describe

INPUTS = ("number_overdensity", "mass_overdensity")


def bundle(
    url: str,
    fields: str,
    *,
    cells: int = 16,
    context: int = 0,
    margin: int = 0,
    guide: dict[str, Any] | None = None,
    ranges: Ranges | None = None,
    **config: Any,
) -> str:
    """Write a network that says it was trained on boxes of ``cells`` cells with this margin; returns ``url``."""
    torch.manual_seed(1)
    vectors = 0 if guide is None else len(guide.get("tracers", ["number"]))
    given = len(INPUTS) + 3 * vectors
    condition = 0 if ranges is None else NUMBERS
    shape = {"width": 4, "depth": 1, "groups": 2, "norm": "batch", "condition": condition} | config
    net = UNet(UNetConfig(in_channels=given, guide=vectors, **shape))
    with torch.no_grad():
        for p in net.out.parameters():
            p.normal_(0, 0.3)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    described = describe(store.open_fields(fields, chunks=None), INPUTS) | {"cells": cells, "margin": margin}
    channels = tuple(Channel(kind=kind, transform="linear", scale=1.0, mean=0.1, std=0.8) for kind in INPUTS)
    metadata: dict[str, Any] = {
        "trained_on": described,
        "context": context,
        "guide": guide,
        "parents": ["another"],
        "training": {"boxes": 1, "steps": 0, "settings": {"batch": 1}, "parameters": net.parameters_count},
    }
    if shape.get("std"):
        metadata["calibration"] = {"factor": 1.1, "power": 1.0, "coverage_68": None}
    Model(net, Normalisation(channels=channels, sigma_v=300.0, condition=ranges), metadata).save(url)
    return url
