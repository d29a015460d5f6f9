"""Model bundles: a trained network with all that is needed to use it, as files.

A bundle is a folder: ``model.safetensors`` (weights), ``metadata.json`` (everything else, docs/network.md), and
``README.md`` (the model card). ``metadata.json`` is written last and holds the checksum of the weights: a bundle that
opens is complete. Nothing on the way in is executed: safetensors and JSON only, within stated limits.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from velfield.accuracy.tables import BY_NAME
from velfield.errors import SENSELESS, StoreError, VelfieldError
from velfield.files import shipped, storage
from velfield.network.error_bars import WHOLE, Calibration, WholeCalibration
from velfield.network.model_card import card
from velfield.network.normalisation import Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.physics.condition import NUMBERS
from velfield.stores.store import INPUTS
from velfield.theory.guide import COMPONENTS, Guide
from velfield.theory.settings import NAMES
from velfield.version import __version__

SCHEMA = 1
WEIGHTS, METADATA, CARD = "model.safetensors", "metadata.json", "README.md"
LARGEST_WEIGHTS = 2**30  # bytes: 250 million parameters, far above any sensible width; stops a hostile file
LARGEST_METADATA = 2**24  # bytes


def write(url: str, net: UNet, normalisation: Normalisation, metadata: dict[str, Any]) -> dict[str, Any]:
    """Write a bundle, ``metadata.json`` last; return the metadata with what a bundle adds to them."""
    weights = {name: t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    data = safetensors.torch.save(weights)
    complete = metadata | {
        "velfield_schema": SCHEMA,
        "velfield_kind": "model",
        "velfield_version": __version__,
        "architecture": net.config.to_dict(),
        "normalisation": normalisation.to_dict(),
        "inputs": [channel.kind for channel in normalisation.channels],
        "weights": {"file": WEIGHTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "software": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    storage.write_bytes(storage.join(url, WEIGHTS), data)
    storage.write_bytes(storage.join(url, CARD), card(complete).encode())
    storage.write_json(storage.join(url, METADATA), complete)
    return complete


def read(url: str) -> tuple[UNet, Normalisation, dict[str, Any]]:
    """Open a bundle by its URL or as ``pretrained``: the network on the CPU, its normalisation, its metadata."""
    metadata = read_metadata(url)
    try:
        config = UNetConfig.from_dict(metadata["architecture"])
        normalisation = Normalisation.from_dict(metadata["normalisation"])
        digest, size = str(metadata["weights"]["sha256"]), int(metadata["weights"]["bytes"])
        trained = metadata["trained_on"]
        float(trained["cellsize"]), list(metadata["parents"])
        for channel in normalisation.channels:
            str(INPUTS[channel.kind]), str(trained[f"units of {channel.kind}"])
        Calibration.from_dict(metadata.get("calibration", {}))
        WholeCalibration.of(metadata)
        guided = 0 if metadata.get("guide") is None else len(Guide.from_dict(metadata["guide"]).tracers)
        if config.condition != (0 if normalisation.condition is None else NUMBERS):
            raise ValueError(f"condition={config.condition}, ranges={normalisation.condition}")
        if guided != config.guide or int(metadata.get("context", trained["margin"])) < 0:
            raise ValueError(f"guide={metadata.get('guide')}, context={metadata.get('context')}")
    except SENSELESS as error:
        raise StoreError(
            f"the model's metadata do not make sense: model={url}, at={error}; train or fetch it again"
        ) from error
    data = _read(storage.join(shipped.place(url), WEIGHTS), LARGEST_WEIGHTS)
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise StoreError(
            f"the model's weights are not those that its metadata name: model={url}, bytes={len(data)}, "
            f"expected={size}; fetch it again"
        )
    net = _network(url, config, normalisation, data)
    return net, normalisation, metadata


def read_metadata(url: str) -> dict[str, Any]:
    """What a bundle says about itself; refuses what is not a bundle of this schema."""
    file = storage.join(shipped.place(url), METADATA)
    if not storage.exists(file):
        near = difflib.get_close_matches(url, (*NAMES, shipped.PRETRAINED), 1)
        meant = f"did you mean {near[0]}? " if near else storage.did_you_mean(url)
        raise StoreError(
            f"no model here, or an unfinished one: model={url}; {meant}make one with velfield train, or take "
            f"{shipped.PRETRAINED} or one of {', '.join(NAMES)}"
        )
    try:
        metadata = json.loads(_read(file, LARGEST_METADATA))
    except SENSELESS as error:
        raise StoreError(f"the model's metadata cannot be read: model={url}; fetch it again") from error
    found = (metadata.get("velfield_kind"), metadata.get("velfield_schema")) if isinstance(metadata, dict) else None
    if found != ("model", SCHEMA):
        raise StoreError(
            f"not a model that this version reads: model={url}, kind and schema={found}; "
            f"expected ('model', {SCHEMA}), as velfield {__version__} writes"
        )
    return dict(metadata)


def write_calibrated(url: str, out: str, calibration: WholeCalibration) -> None:
    """Write a bundle again at another place, or at its own, with this calibration over whole parents.

    The weights are the same to the byte. Evaluations of whole parents with other error bars are left out.
    """
    shipped.refuse_as_target(out)
    metadata = read_metadata(url)
    if out != url:
        weights = _read(storage.join(shipped.place(url), WEIGHTS), LARGEST_WEIGHTS)
        storage.write_bytes(storage.join(out, WEIGHTS), weights)
    metadata[WHOLE] = calibration.to_dict()
    metrics = metadata.get("metrics", {})
    if "tested" in metrics:
        kept = [one for one in metrics["tested"] if one.get("shown", "isolated") != "whole"]
        metadata["metrics"] = metrics | {"tested": kept}
    storage.write_bytes(storage.join(out, CARD), card(metadata).encode())
    storage.write_json(storage.join(out, METADATA), metadata)


def add_tested(url: str, row: Mapping[str, Any], about: Mapping[str, Any], *, seed: int | None = None) -> None:
    """Add to a bundle what it reached on a universe that its training did not see, and write its card again.

    Parameters
    ----------
    url : str
        The bundle. What was added for the same store, measured in the same way, is replaced; the same again is left.
    row : mapping
        The bundle's row of ``metrics.json``, as `velfield.analysis.evaluate.evaluate` returns it.
    about : mapping
        The same evaluation's ``evaluation.json``. Refused: another model's, of several stores, of a universe that the
        training saw.
    seed : int, optional
        Of the universe, where it has one.
    """
    shipped.refuse_as_target(url)
    metadata = read_metadata(url)
    weights, stores = metadata["weights"]["sha256"], about["fields"]
    if about.get("weights") != weights:
        raise VelfieldError(
            f"an evaluation of another model: model={url}, weights={weights[:12]}, evaluated="
            f"{str(about.get('weights'))[:12]}; evaluate this one"
        )
    if len(stores) != 1:
        raise VelfieldError(f"an evaluation of several stores: stores={len(stores)}; evaluate them one by one")
    store = stores[0]
    calibrated = WholeCalibration.of(metadata)
    saw = {*metadata["parents"], *(calibrated.parents if calibrated else ())}
    if seen := sorted(set(store["parents"]) & saw):
        raise VelfieldError(
            f"the model was calibrated or trained on this universe: model={url}, parent={seen[0]}; "
            "evaluate on another seed's"
        )
    shown = store.get("settings", {}).get("shown", "isolated")
    bars = store.get("settings", {}).get("calibration")
    if shown == "whole" and calibrated is not None and bars != calibrated.map.to_dict():
        raise VelfieldError(
            f"an evaluation with other error bars: model={url}, factor={calibrated.map.factor:.4g}, "
            f"evaluated={(bars or {}).get('factor')}; predict and evaluate with this bundle"
        )
    how = {"fingerprint": store["fingerprint"], "shown": shown}
    how |= {name: about[name] for name in ("split", "average", "count_filled")}
    tested = {
        **how,
        **{name: store[name] for name in ("parents", "redshift", "min_mass", "rsd", "cells", "margin", "boxsize")},
        "boxes": len(store["boxes"]),
        "seed": seed,
        "velfield_version": about["velfield_version"],
        "measures": {name: {k: row[name][k] for k in ("mean", "std")} for name in BY_NAME if name in row},
    }
    metrics = metadata.get("metrics", {})
    earlier = [{"shown": "isolated"} | one for one in metrics.get("tested", [])]  # the older ones do not say it
    if tested in earlier:
        return
    others = [one for one in earlier if any(one[name] != value for name, value in how.items())]
    metadata["metrics"] = metrics | {"tested": [*others, tested]}
    storage.write_bytes(storage.join(url, CARD), card(metadata).encode())
    storage.write_json(storage.join(url, METADATA), metadata)


def _network(url: str, config: UNetConfig, normalisation: Normalisation, data: bytes) -> UNet:
    """Build the network and give it its weights; nothing is allocated before names and shapes are known to match."""
    try:
        weights = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise StoreError(f"the model's weights cannot be read: model={url}; fetch it again") from error
    try:
        with torch.device("meta"):
            net = UNet(config)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise StoreError(
            f"the model's architecture makes no network: model={url}, because={reason}; train or fetch it again"
        ) from error
    expected = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in weights.items()}
    channels = len(normalisation.channels) + COMPONENTS * config.guide
    if expected != found or channels != config.in_channels or config.out_channels != 3:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise StoreError(
            f"weights do not fit the architecture: model={url}, "
            f"tensors={', '.join(wrong[:3]) or 'in or out channels'}; fetch it again"
        )
    net.load_state_dict(weights, assign=True)
    return net


def _read(url: str, largest: int) -> bytes:
    fs, path = storage.filesystem(url)
    if not fs.exists(path):
        raise StoreError(f"a file of the model is missing: file={url}; fetch the model again")
    if fs.size(path) > largest:
        raise StoreError(f"a file of the model is too large: file={url}, bytes={fs.size(path)}, limit={largest}")
    return storage.read_bytes(url)
