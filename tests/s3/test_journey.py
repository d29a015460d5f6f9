"""The whole journey on object storage, and painting through a server that fails."""

import time

import pytest

from velfield.catalogues import genericio
from velfield.commands.cli import main
from velfield.files import storage
from velfield.pipelines.lease import REFRESH
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare

DATA = "tests/data/mock-outer-rim"
FAULTS = {"500": 0.05, "503": 0.05, "dropped": 0.03, "lost": 0.03, "slow": 0.02, "cut": 0.05, "truncated": 0.05}


def objects(url):
    """Bytes of every object beneath a URL."""
    fs, path = storage.filesystem(url)
    return {name.removeprefix(path): fs.cat_file(name) for name in fs.find(path)}


@pytest.fixture(scope="module")
def universe(bucket):
    """The mock catalogue, copied to the bucket."""
    for name in storage.names(DATA):
        if name.startswith("m000"):
            storage.write_bytes(storage.join(bucket, "mock", name), storage.read_bytes(storage.join(DATA, name)))
    return storage.join(bucket, "mock")


def config(universe, **options):
    return PaintConfig(
        halos=f"{universe}/m000-499.fofproperties",
        particles=f"{universe}/m000.mpicosmo.499",
        **({"boxes": 2, "cells": 8, "margin": 1, "rsd": "random_radial"} | options),
    )


@pytest.mark.slow
def test_painting_from_a_server_that_fails_gives_the_same_bytes(universe, place, proxy, client):
    out = f"{place}/out.zarr"
    assert paint(client, prepare(out, config(universe)))
    undisturbed = objects(out)
    storage.remove(out)
    proxy.clear()
    proxy.faults, proxy.most, proxy.delay = FAULTS, 3, 0.1
    job = prepare(out, config(universe))
    proxy.faults = FAULTS | {
        "flipped": 0.05
    }  # now: nothing but TCP's checksum watches over the CRCs that name an input
    assert paint(client, job)
    hits = proxy.hits
    proxy.faults = {}
    assert set(hits) >= {"500", "503", "cut", "truncated", "flipped"}
    assert objects(out) == undisturbed


@pytest.mark.slow
def test_requests_of_a_painting(universe, place, proxy, client):
    job = prepare(f"{place}/out.zarr", config(universe))
    proxy.clear()
    began = time.monotonic()
    assert paint(client, job)
    blocks, variables = len(job.blocks), 5
    shards = 8
    work = f"{place.rpartition('/')[2]}/out.zarr/.work"
    patches = proxy.count("PUT", "/patches/")
    assert patches == blocks  # one file of each
    assert patches <= proxy.count("GET", "/patches/") <= blocks * shards  # each patch is read once
    for kind, tasks in (("blocks", blocks), ("shards", shards)):
        assert proxy.count("PUT", f"{work}/{job.fingerprint[:16]}/{kind}/") == tasks  # a receipt
        assert proxy.count("GET", f"/{kind}/") <= 2 * tasks  # looked for by the task
    assert proxy.count("PUT", "/c/") == variables * shards + 9  # and the coordinates
    assert proxy.count("GET", "/c/") == 0  # a shard is not read before it is written
    assert proxy.count("GET", "out.zarr/velocity") == 0
    leases = proxy.count("HEAD", "/run-")  # looked for twice and at the end, and each time it is refreshed
    assert leases <= 3 + (time.monotonic() - began) / REFRESH
    assert proxy.count("HEAD", "out.zarr") - leases <= 3
    # where others may be at work, what is done, twice; and what is removed, with a look at what stands beside it
    assert proxy.count("GET", "list-type") <= 20
    # a sub-file is opened by each worker: header and size, and its version; a block of halos is two ranges
    for name, parts in (("m000-499.fofproperties", 2), ("m000.mpicosmo.499", 1)):
        of_kind = sum(kind == ("halos" if parts == 2 else "particles") for kind, _ in job.blocks)
        assert proxy.count("GET", f"{name}#") <= parts * of_kind + 2 * 3
        assert proxy.count("HEAD", f"{name}#") <= 2 * 2 * 3


def test_stale_work_is_not_taken_for_done(universe, place):
    halos = f"{place}/m000-499.fofproperties"
    for name in storage.names(universe):
        if name.startswith("m000-499"):
            storage.write_bytes(f"{place}/{name}", storage.read_bytes(f"{universe}/{name}"))
    wanted = PaintConfig(halos=halos, particles=None, boxes=2, cells=8, rsd="none")
    before = prepare(f"{place}/out.zarr", wanted)
    assert prepare(f"{place}/out.zarr", wanted).fingerprint == before.fingerprint
    # one value in a middle block changes, and its CRC with it: what the headers and the catalogue's own fingerprint
    # cover stays as it was
    data = bytearray(storage.read_bytes(halos + "#0"))
    gio = genericio.open(halos)
    header = gio.headers[0]
    assert len(header.nrows) > 2
    data[int(header.starts[1, 0])] ^= 1
    storage.write_bytes(halos + "#0", bytes(data))
    after = prepare(f"{place}/out.zarr", wanted)
    assert after.catalogues["halos"].fingerprint == before.catalogues["halos"].fingerprint
    assert after.fingerprint != before.fingerprint


@pytest.mark.slow
def test_every_verb_on_object_storage(place, capfd):
    def run(*words):
        status = main([str(word) for word in words])
        said = capfd.readouterr()
        assert status == 0, said.err
        assert "Unclosed" not in said.err
        return said.out

    universe, fields, model = f"{place}/universe", f"{place}/fields.zarr", f"{place}/model"
    simulate = ("simulate", universe, "--boxsize", 200, "--particles", 32, "--seed", 3, "--min-halo-mass", 3e12)
    run(*simulate)
    assert "already there" in run(*simulate)
    assert "GenericIO" in run("info", f"{universe}/m000.mpicosmo.499")
    painting = (
        "paint", fields, "--halos", f"{universe}/m000-499.fofproperties", "--particles",
        f"{universe}/m000.mpicosmo.499", "--boxes", 2, "--cells", 16, "--rsd", "random_radial",
        "--workers", 1,
    )  # fmt: skip
    assert "boxes" in run(*painting, "--plan")
    run(*painting)
    assert "already painted" in run(*painting)
    training = ("train", fields, model, "--steps", 3, "--batch", 2, "--width", 2, "--depth", 2, "--groups", 1,
                "--validate-every", 2, "--checkpoint-every", 2)  # fmt: skip
    run(*training)
    assert "already trained" in run(*training)
    run("evaluate", model, fields, f"{place}/evaluation", "--allow-seen", "--no-figures")
    assert "unet" in storage.read_json(f"{place}/evaluation/metrics.json")
    predicting = ("predict", model, fields, f"{place}/velocity.zarr", "--workers", 1)
    run(*predicting)
    assert "already predicted" in run(*predicting)
    assert "velocity" in run("info", f"{place}/velocity.zarr")
    assert all(".work" not in name for name in objects(place))
