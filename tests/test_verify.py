"""What lies at a URL; model bundles; boxes as arrays. Faults of whole stores: tests/pipelines/test_verify.py."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from small_store import BOXES, arrays_of, spec_of

from velfield.commands.cli import main
from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.network.model import Model
from velfield.network.normalisation import Channel, Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.stores import store, store_layout
from velfield.verification.findings import fault, note
from velfield.verification.verify import check_model, kind_of
from velfield.verification.verify_boxes import Scene, check_box
from velfield.verification.verify_store import open_store, parts_of
from velfield.verification.verify_whole import check_margins, summarise


def scene_of(boxes, **changes):
    values = {"boxes": boxes, "periodic": True, "assignment": "ngp", "min_mass": 0.0, "shared": True,
              "rows": {"halos": 1e6, "particles": 1e6}}  # fmt: skip
    return Scene(**(values | changes))


def test_a_finding_is_one_line():
    assert fault("wrong units", "variable=x", "m", "Mpc/h").line() == "wrong units: variable=x, found=m, expected=Mpc/h"
    assert note("odd", "here=1", "a", "b").line() == "note: odd: here=1, found=a, expected=b"
    assert note("odd", "here=1", "a", "b").plain()["note"]


# model bundles


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(3)
    channel = Channel(kind="mass_overdensity", transform="linear", scale=1.0, mean=0.6, std=0.4)
    trained = {"cellsize": 5.0, "cells": 8, "margin": 0, "redshift": 0.0, "min_mass": 0.0, "rsd": "none",
               "assignment": "ngp", "cosmology": {"omega_m": 0.3, "sigma8": 0.8},
               "units of mass_overdensity": "1"}  # fmt: skip
    training = {"boxes": 6, "steps": 10, "settings": {"batch": 4}, "parameters": 1}
    net = UNet(UNetConfig(in_channels=1, width=4, groups=2, depth=1))
    model = Model(net, Normalisation(channels=(channel,), sigma_v=300.0),
                  {"trained_on": trained, "parents": ["universe-7"], "training": training})  # fmt: skip
    model.save(str(tmp_path / "bundle"))
    return model, tmp_path / "bundle"


def test_a_whole_model(bundle, capsys):
    model, url = bundle
    report = check_model(str(url))
    assert not report.findings
    assert report.checked["parameters"] == sum(t.numel() for t in model.net.state_dict().values())
    assert main(["verify", str(url)]) == 0
    assert capsys.readouterr().out.startswith(f"whole: model bundle={url}, tensors=")


def test_a_flipped_byte_in_the_weights(bundle, capsys):
    file = bundle[1] / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)
    assert main(["verify", str(bundle[1])]) == 1
    out = capsys.readouterr().out
    assert "the model cannot be used: model=" in out
    assert "the model's weights are not those that its metadata name" in out


def test_weights_that_are_not_finite(bundle):
    model, url = bundle
    name = next(iter(model.net.state_dict()))
    with torch.no_grad():
        model.net.state_dict()[name].view(-1)[:3] = torch.nan
    model.save(str(url))
    (finding,) = check_model(str(url)).findings
    assert finding.line() == f"weights that are not finite: tensor={name}, found=3 values, expected=finite numbers"


def test_a_scale_that_is_not_finite(bundle):
    _, url = bundle
    metadata = json.loads((url / "metadata.json").read_text())
    metadata["normalisation"]["channels"][0]["mean"] = float("nan")
    (url / "metadata.json").write_text(json.dumps(metadata))
    lines = [finding.line() for finding in check_model(str(url)).findings]
    assert len(lines) == 1
    assert "normalisation" in lines[0] or "the model cannot be used" in lines[0]


@pytest.mark.parametrize("name", ["metadata.json", "model.safetensors"])
def test_half_a_model(bundle, name):
    (bundle[1] / name).unlink()
    (finding,) = check_model(str(bundle[1])).findings
    assert finding.what == "the model cannot be used"


# what is at a place


def test_kinds_are_told_by_content(bundle, tmp_path):
    assert kind_of(str(bundle[1])) == "model bundle"
    store.write_fields(str(tmp_path / "f"), spec_of(BOXES), arrays_of(BOXES))
    assert kind_of(str(tmp_path / "f")) == "store"
    (tmp_path / "f" / "zarr.json").unlink()
    assert kind_of(str(tmp_path / "f")) == "store"  # a damaged one
    (tmp_path / "x").write_text("x")
    assert kind_of(str(tmp_path / "x")) == "catalogue"
    with pytest.raises(VelfieldError, match="no such file or folder: url="):
        kind_of(str(tmp_path / "nowhere"))


def test_a_store_without_any_provenance_is_no_traceback(tmp_path):
    store.write_fields(str(tmp_path / "f"), spec_of(BOXES), arrays_of(BOXES))  # totals and inputs of a test's store
    opened = open_store(str(tmp_path / "f"))
    assert [f.what for f in opened.findings] == ["the attributes make no sense"]
    assert len(parts_of(opened)) == 7


def painted(url: str) -> str:
    """A store that says where it comes from, as painting does."""
    sums = {"number": 5832.0, "mass": 1e16}
    totals = {kind: {"kept": 5832, "sums": sums} for kind in ("halos", "particles")}
    inputs = {kind: {"fingerprint": "ab12", "url": kind} for kind in ("halos", "particles")}
    said = spec_of(BOXES, totals=totals, inputs=inputs)
    attrs = store_layout.field_layout(said).attrs
    store.write_fields(url, store_layout.spec_of_attributes(attrs, said.split.count("validation")), arrays_of(BOXES))
    return url


@pytest.mark.slow
def test_any_nonsense_for_an_attribute_is_a_finding(tmp_path):
    url = tmp_path / "f"
    assert not open_store(painted(str(url)), inputs=False).findings
    root = json.loads((url / "zarr.json").read_text())
    for name in root["attributes"]:
        for value in (None, [], {"a": 1}, "x", -1, 1e300, 10**400, "[" * 100_000, True):
            changed = root | {"attributes": root["attributes"] | {name: value}}
            (url / "zarr.json").write_text(json.dumps(changed))
            if changed != root:  # True is 1
                assert open_store(str(url), inputs=False).findings, (name, value)
    for text in ("", "{", "[]", "null", "[" * 100_000, '{"attributes": 3}', "\x00"):
        Path(url / "zarr.json").write_text(text)
        assert "the root cannot be understood" in [f.what for f in open_store(str(url)).findings]


def test_a_store_on_a_web_server_is_looked_at_by_its_manifest(tmp_path):
    path = Path(painted(str(tmp_path / "f")))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/f"
        try:
            opened = open_store(url, inputs=False)
            assert [(f.what, f.note) for f in opened.findings] == [("this place cannot be listed", True)]
            assert opened.present == open_store(str(path), inputs=False).present
            assert len(parts_of(opened)) == 7
            (path / "velocity" / "c" / "3" / "0" / "0" / "0" / "0").unlink()
            found = [f.line() for f in open_store(url, inputs=False).findings if not f.note]
            assert len(found) == 1
            assert found[0].startswith("an object is missing: object=velocity/c/3/0/0/0/0, ")
            (path / "manifest" / "zarr.json").unlink()
            with pytest.raises(VelfieldError, match="no manifest: file=http"):
                open_store(url, inputs=False)
        finally:
            server.shutdown()


# boxes as arrays


def test_fields_of_a_periodic_whole_agree_with_each_other():
    boxes = BoxLayout(boxsize=60.0, boxes=3, cells=4, margin=5)
    whole = np.random.default_rng(0).poisson(8, (12, 12, 12)).astype("f4")
    cut = {}
    for box in range(27):
        index = [np.arange(s, s + 14) % 12 for s in boxes.start(box)]
        cut[box] = whole[np.ix_(*index)]
    scene = scene_of(boxes)
    summaries = {b: summarise(scene, b, {"matter_number": v}) for b, v in cut.items()}
    assert len(summaries[0].seen["matter_number"]) == 124  # 5³ − 1: the margin reaches two boxes far
    assert not check_margins(scene, summaries)
    cut[13] = cut[13].copy()
    cut[13][0, 0, 0] += 1
    summaries[13] = summarise(scene, 13, {"matter_number": cut[13]})
    (finding,) = check_margins(scene, summaries)
    assert finding.found.startswith("1 of 124 sides differ")


def test_one_cell_more_shows_in_a_margin_of_any_size():
    boxes = BoxLayout(boxsize=60.0, boxes=1, cells=24, margin=8)
    values = np.random.default_rng(0).poisson(8, (24, 24, 24)).astype("f4")
    values = np.pad(values, 8, mode="wrap")
    scene = scene_of(boxes)
    assert not check_margins(scene, {0: summarise(scene, 0, {"matter_number": values})})
    rng = np.random.default_rng(1)
    for _ in range(20):
        at = (int(rng.integers(8)), *rng.integers(40, size=2))
        values[at] += 1
        assert check_margins(scene, {0: summarise(scene, 0, {"matter_number": values})})
        values[at] -= 1


def test_inputs_are_not_changed():
    arrays = {name: values[0] for name, values in arrays_of(BOXES).items()}
    before = {name: values.copy() for name, values in arrays.items()}
    check_box(scene_of(BOXES), 0, arrays)
    summarise(scene_of(BOXES), 0, arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, before[name])
