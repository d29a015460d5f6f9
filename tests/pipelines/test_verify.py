"""Every fault that ``velfield verify`` is made for, planted in a painted store; the undamaged ones pass."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from velfield.commands.cli import main
from velfield.files import manifest
from velfield.pipelines import verify as job
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.pipelines.predict import predict
from velfield.pipelines.predict import prepare as prepare_prediction
from velfield.stores import store

MOCK = Path(__file__).parent.parent / "data" / "mock-outer-rim"
HALOS, PARTICLES = str(MOCK / "m000-499.fofproperties"), str(MOCK / "m000.mpicosmo.499")


def painted(client, out, **changes):
    values = {"halos": HALOS, "particles": PARTICLES, "boxes": 2, "cells": 8, "margin": 2, "rsd": "random_radial"}
    paint(client, prepare(str(out), PaintConfig(**values | changes)))
    return out


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    return painted(client, tmp_path_factory.mktemp("whole") / "f", min_mass=1e13)


@pytest.fixture(scope="module")
def bounded(client, tmp_path_factory):
    return painted(client, tmp_path_factory.mktemp("bounded") / "f", rsd="plane_parallel", periodic=False)


@pytest.fixture
def url(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "f"))


@pytest.fixture
def verify(monkeypatch):
    """The job, task by task in this process; returns the lines of the faults and of the notes."""
    monkeypatch.setattr(job, "run_tasks", lambda _, task, items, *common, name: ((i, task(i, *common)) for i in items))  # noqa: ARG005

    def run(url, **options):
        report = job.verify(None, str(url), **options)
        assert report.damaged == any(not f.note for f in report.findings)
        return [f.line() for f in report.findings]

    return run


def sign(url):
    """Make the manifest anew: the store was written as it is."""
    names = [p.relative_to(url).as_posix() for p in url.rglob("*") if p.is_file()]
    manifest.write(str(url), {n: manifest.entry((url / n).read_bytes()) for n in names if n != manifest.KEY})


def change(url, name, edit):
    """Change the values of a variable or coordinate, as a program that wrote something else would have."""
    array = zarr.open_array(str(url / name), mode="r+")
    values = array[...]
    edited = edit(values)
    array[...] = values if edited is None else edited
    sign(url)


def edit_json(url, name, edit):
    """Change the metadata of an array, or of the root where ``name`` is empty, in all places that hold them."""
    root = json.loads((url / "zarr.json").read_text())
    if name:
        document = json.loads((url / name / "zarr.json").read_text())
        edit(document)
        edit(root["consolidated_metadata"]["metadata"][name])
        (url / name / "zarr.json").write_text(json.dumps(document))
    else:
        edit(root)
    (url / "zarr.json").write_text(json.dumps(root))
    sign(url)


def attribute(url, name, **values):
    edit_json(url, name, lambda document: document["attributes"].update(values))


def matches(lines, pattern):
    return [line for line in lines if re.search(pattern, line)]


# the whole


@pytest.mark.parametrize(
    "changes",
    [
        {"rsd": "none", "margin": 0},
        {"rsd": "plane_parallel", "margin": 9, "assignment": "cic"},  # a margin wider than a box
        {"rsd": "center_radial", "assignment": "tsc", "min_mass": 3e13},
        {"rsd": "random_radial", "observer_per_box": True},
        {"rsd": "plane_parallel", "periodic": False, "assignment": "cic"},
        {"rsd": "center_radial", "periodic": False, "boxes": 1, "cells": 16},
        {"particles": None, "boxes": 3, "cells": 5},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_an_undamaged_store_passes(client, tmp_path, verify, changes):
    assert verify(painted(client, tmp_path / "f", **changes)) == []


def test_command_says_so_and_exits_0(client, whole, capsys):
    assert main(["verify", str(whole), "--scheduler", client.scheduler.address]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"whole: field store=.*, objects=\d+, bytes=\d+, boxes=8\n", out)


def test_command_says_what_is_wrong_and_exits_1(client, url, capsys):
    (url / "halo_mass" / "c" / "3" / "0" / "0" / "0").unlink()
    address = client.scheduler.address
    assert main(["verify", str(url), "--scheduler", address, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["damaged"]
    assert report["findings"][0] | {"expected": ""} == {
        "what": "an object is missing", "where": "object=halo_mass/c/3/0/0/0", "found": "nothing", "expected": "",
        "note": False}  # fmt: skip
    assert main(["verify", str(url), "--scheduler", address]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("an object is missing: object=halo_mass/c/3/0/0/0, found=nothing, expected=")
    assert lines[1].startswith("note: sums were not checked: boxes=all, found=1 of 8 boxes cannot be read")
    assert lines[2].startswith("damaged, 1 finding: field store=")


@pytest.mark.parametrize(
    ("place", "message"),
    [("nowhere", "no such file or folder: url=.*; check the path"), (".", "nothing of velfield's is here")],
)
def test_nothing_to_verify_exits_2(tmp_path, capsys, place, message):
    assert main(["verify", str(tmp_path / place)]) == 2
    assert re.search(f"^velfield: {message}", capsys.readouterr().err)


def test_an_unfinished_store_is_no_store(tmp_path, capsys):
    prepare(str(tmp_path / "f"), PaintConfig(halos=HALOS, particles=None, boxes=2, cells=8, rsd="none")).receipts.begin(
        {}
    )
    assert main(["verify", str(tmp_path / "f")]) == 2
    assert "this store is not finished" in capsys.readouterr().err


# damage: what the manifest finds


def test_a_flipped_byte_in_any_object(whole, tmp_path, verify):
    rng = np.random.default_rng(1)
    names = sorted(p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file())
    chosen = ["zarr.json", "origin/zarr.json", "origin/c/0/0", "halo_mass/c/1/0/0/0", manifest.KEY]
    chosen += list(rng.choice(names, 8, replace=False))
    url = shutil.copytree(whole, tmp_path / "f")
    for name in chosen:
        data = bytearray((whole / name).read_bytes())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (url / name).write_bytes(data)
        lines = verify(url)
        what = "the manifest is damaged" if name == manifest.KEY else "an object has other bytes"
        assert matches(lines, f"^{what}: object={name}, found="), (name, lines)
        (url / name).write_bytes((whole / name).read_bytes())
    assert verify(url) == []


def test_a_truncated_object(url, verify):
    file = url / "velocity" / "c" / "2" / "0" / "0" / "0" / "0"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    lines = verify(url)
    size = f"found={len(data) - 100} bytes, expected={len(data)} bytes"
    assert f"an object has another size: object=velocity/c/2/0/0/0/0, {size}" in lines
    assert matches(lines, "^a chunk cannot be decoded: variable=velocity, box=2, found=")


@pytest.mark.parametrize("name", ["velocity_flag/c/4/0/0/0", "split/c/0", "observer/zarr.json", "zarr.json"])
def test_a_missing_object(url, verify, name):
    (url / name).unlink()
    assert matches(verify(url), rf"^an object is missing: object={name}, found=nothing, expected=\d+ bytes")


def test_a_missing_shard_that_was_never_written(url, verify):
    (url / "velocity_flag" / "c" / "4" / "0" / "0" / "0").unlink()
    sign(url)
    lines = verify(url)
    assert "an object is missing: object=velocity_flag/c/4/0/0/0, found=nothing, expected=an object" in lines


@pytest.mark.parametrize("signed", [False, True])
def test_an_unknown_object(url, verify, signed):
    (url / "velocity" / "notes.txt").write_text("mine")
    if signed:
        sign(url)
    assert verify(url) == ["an unknown object: object=velocity/notes.txt, found=4 bytes, expected=nothing"]


def test_no_manifest(url, verify):
    (url / manifest.KEY).unlink()
    assert store.open_fields(str(url)).sizes["box"] == 8
    (line,) = verify(url)
    assert line.startswith("no manifest: object=manifest/zarr.json, found=no manifest: file=")


def test_a_chunk_lost_inside_a_shard(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", halos=None, boxes=3, cells=4, margin=0)  # 27 boxes, 4 a shard
    change(url, "velocity", lambda v: v.__setitem__(5, np.nan))
    lines = verify(url)
    assert matches(
        lines, "^values that are not finite: variable=velocity, box=5, found=64 cells, expected=finite numbers"
    )


# stores that were written wrong: what is made anew finds


def test_a_box_painted_twice(url, verify):
    def twice(values):
        values[5] *= 2

    change(url, "matter_number", twice)
    lines = verify(url)
    assert matches(lines, r"^number sums are off: variable=matter_number, boxes=all, found=\d+, expected=167772$")
    assert matches(lines, "^painted more than once: variable=matter_number, box=5, found=only multiples of one count")
    assert matches(lines, "^momentum sums are off: variable=momentum, boxes=all")
    assert matches(lines, "^a margin differs from the neighbours' cores: variable=matter_number, box=5, found=26 of 26")


def test_a_box_written_over_another(url, verify):
    for name in ("halo_mass", "halo_number", "matter_number", "velocity", "velocity_flag"):
        change(url, name, lambda values: values.__setitem__(3, values[6]))
    lines = verify(url)
    for name in ("halo_mass", "halo_number", "matter_number"):
        assert f"two boxes hold the same data: variable={name}, box=6, found=those of box 3, expected=its own" in lines
        assert matches(lines, f"sums are off: variable={name}, boxes=all")
    assert matches(
        lines, "^a margin differs from the neighbours' cores: variable=velocity, box=3, found=26 of 26 sides"
    )


@pytest.mark.parametrize(
    ("name", "sums"),
    [("halo_number", "number"), ("halo_mass", "mass"), ("matter_number", "number"), ("velocity", "momentum")],
)
def test_sums_that_are_off(url, verify, name, sums):
    def more(values):
        core = values[2, ..., 2:10, 2:10, 2:10]
        at = np.unravel_index(core.argmax(), core.shape)
        core[at] += {"halo_mass": 1e13, "velocity": 200}.get(name, 1)

    change(url, name, more)
    variable = "momentum" if name == "velocity" else name
    assert matches(verify(url), rf"^{sums} sums are off: variable={variable}, boxes=all, found=.*, expected=.*")


def test_totals_of_unconserved_halos_are_what_was_painted(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", particles=None, rsd="center_radial")
    totals = json.loads(store.attributes(str(url))["totals"])["halos"]
    assert not totals["conserved"]
    change(url, "halo_number", lambda values: values.__setitem__((0, 5, 5, 5), values[0, 5, 5, 5] + 1))
    painted_number = f"expected={totals['painted']['number']:g}"
    assert matches(verify(url), f"^number sums are off: variable=halo_number, boxes=all, found=.*, {painted_number}")


def test_books_that_do_not_balance(url, verify):
    totals = json.loads(store.attributes(str(url))["totals"])
    totals["particles"]["kept"] -= 1
    totals["halos"]["read"] += 7
    totals["halos"]["sums"]["mass"] *= 1.01
    attribute(url, "", totals=json.dumps(totals))
    lines = verify(url)
    assert matches(
        lines, r"^rows read are not the catalogue's: attribute=totals, catalogue=halos, found=\d+, expected="
    )
    assert matches(lines, "^rows kept do not fit the rows read: .*catalogue=particles, found=167771, expected=167772")
    assert matches(lines, "^the number is not that of the rows kept: .*found=167772.0, expected=167771")
    assert matches(lines, "^mass was not conserved: attribute=totals, catalogue=halos, found=")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("halo_mass", {"units": "kg"}, "attributes.units, found=kg, expected=solMass / littleh"),
        ("velocity", {"units": "m/s"}, "attributes.units, found=m/s, expected=km/s"),
        ("x", {"units": "Mpc"}, "attributes.units, found=Mpc, expected=Mpc / littleh"),
        ("matter_number", {"mean": 7.5}, r"attributes.mean, found=7.5, expected=40.9599609375"),
        ("velocity_flag", {"flag_meanings": "a b c"}, "attributes.flag_meanings, found=a b c, expected=measured from_"),
        ("halo_number", {"comment": "?"}, r"attributes.comment, found=\?, expected=nothing"),
        ("", {"cellsize": 5.0}, "attributes.cellsize, found=5.0, expected=32.0"),
        ("", {"author": "me"}, "attributes.author, found=me, expected=nothing"),
    ],
)
def test_changed_attributes(url, verify, name, values, message):
    attribute(url, name, **values)
    where = f"{name}/zarr.json" if name else "zarr.json"
    assert matches(verify(url), f"^metadata differ: object={where}, {message}")


def test_a_changed_attribute_in_the_summary_alone(url, verify):
    edit_json(
        url, "", lambda root: root["consolidated_metadata"]["metadata"]["velocity"]["attributes"].update(units="m/s")
    )
    assert verify(url) == [
        "metadata differ: object=zarr.json, consolidated_metadata.velocity.attributes.units, found=m/s, expected=km/s"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": 3}, "metadata differ: object=.*/zarr.json, shape, found="),
        ({"margin": 1}, "metadata differ: object=velocity/zarr.json, shape, found="),
        ({"boxsize": 256.0}, "a coordinate is off: variable=x, values=12 of 12"),
        ({"rsd": "plane_parallel"}, "an object is missing: object=line_of_sight/zarr.json"),
        ({"rsd": "sideways"}, "the attributes make no sense: object=zarr.json, found=VelfieldError unknown redshift"),
        ({"seed": 3}, "a coordinate is off: variable=(observer|split)"),
        ({"min_mass": 5e13}, "halos lighter than the threshold: variable=halo_mass, box="),
        ({"velfield_kind": "potato"}, "the root cannot be understood: object=zarr.json, found=ValueError kind=potato"),
        ({"boxes": 10**9}, "the attributes make no sense: .*boxes=1000000000"),
        ({"cosmology": "{}"}, "the attributes make no sense: object=zarr.json, found=TypeError"),
        ({"totals": "{}"}, "an unknown object: object=halo_mass/"),
        ({"inputs": "{"}, "the attributes make no sense"),
        ({"periodic": False}, "flags contradict the counts: variable=velocity_flag, box=0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_root_attributes_that_do_not_fit_the_data(url, verify, changes, message):
    attribute(url, "", **changes)
    assert matches(verify(url), f"^{message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x", r"values=1 of 12, first=\[2\], found=17.0, expected=16.0"),
        ("origin", r"values=1 of 24, first=\[2, 0\], found=1.0, expected=0.0"),
        ("observer", r"values=1 of 24, first=\[2, 0\], found=.*, expected="),
    ],
)
def test_coordinates_that_are_off(url, verify, name, message):
    change(url, name, lambda v: v.__setitem__((2, 0)[: v.ndim], v[(2, 0)[: v.ndim]] + 1))
    assert matches(verify(url), f"^a coordinate is off: variable={name}, {message}")


def test_a_line_of_sight_that_is_off(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", particles=None, rsd="plane_parallel")
    change(url, "line_of_sight", lambda v: v.__setitem__((3, slice(None)), [1, 0, 0]))
    line = r"^a coordinate is off: variable=line_of_sight, values=2 of 24, first=\[3, 0\], found=1.0, expected=0.0"
    assert matches(verify(url), line)


def test_a_split_that_is_not_the_seeds(url, verify):
    change(url, "split", lambda v: v[::-1])
    assert matches(verify(url), r"^a coordinate is off: variable=split, values=\d of 8, first=.*, found=.*, expected=")


def test_a_parent_by_name_is_what_it_should_be(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", halos=None, parent="mine")
    assert verify(url) == []
    attribute(url, "", parent="another")
    assert matches(verify(url), r"^a coordinate is off: variable=parent, .*found=mine, expected=another")


def test_another_parent(url, verify):
    change(url, "parent", lambda v: np.array(["f00d"] * 8, dtype=object))  # noqa: ARG005
    assert matches(verify(url), r"^a coordinate is off: variable=parent, values=8 of 8, first=\[0\], found=f00d")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("matter_number", np.nan, "values that are not finite: variable=matter_number, box=4, found=1 cells"),
        ("halo_mass", -1.0, "negative values: variable=halo_mass, box=4, found=1 cells, -1 the least"),
        ("halo_number", 0.5, "counts that are no whole numbers: variable=halo_number, box=4, found=1 cells"),
        ("halo_mass", 1e30, "an absurd mass: variable=halo_mass, box=4, found=1 cells, expected=at most 1e"),
        (
            "matter_number",
            1e9,
            "an absurd count: variable=matter_number, box=4, found=1e.09, expected=at most the 167772",
        ),
        ("velocity", np.inf, "values that are not finite: variable=velocity, box=4, found=1 cells"),
        ("velocity", 1e6, r"an absurd velocity: variable=velocity, box=4, found=1e\+06 km/s, expected=at most 30000"),
        ("halo_number", 0.0, "mass without a halo: variable=halo_mass, box=4, found=1 cells"),
        ("velocity_flag", 1, "flags contradict the counts: variable=velocity_flag, box=4, found=1 cells, 1 there"),
        ("velocity_flag", 7, "flags contradict the counts: variable=velocity_flag, box=4, found=1 cells, 7 there"),
    ],
)
def test_values_that_cannot_be(url, verify, name, value, message):
    number = store.open_fields(str(url), chunks=None)["halo_number" if "halo" in name else "matter_number"].values[4]
    at = tuple(np.argwhere(number > 0)[0])

    def spoil(values):
        values[(4, 0, *at) if name == "velocity" else (4, *at)] = value

    change(url, name, spoil)
    assert matches(verify(url), f"^{message}")


def test_empty_cells_that_were_filled_wrongly(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", halos=None, cells=20, margin=1)
    flag = store.open_fields(str(url), chunks=None).velocity_flag.values[1]
    at = tuple(np.argwhere(flag == 1)[0])
    change(url, "velocity", lambda v: v.__setitem__((1, 2, *at), v[(1, 2, *at)] + 50))
    (line,) = verify(url)
    assert line.startswith(
        "empty cells were filled wrongly: variable=velocity, box=1, found=1 cells, expected=the mean"
    )


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("name", ["halo_number", "matter_number", "velocity"])
def test_a_margin_that_is_not_the_neighbours_core(tmp_path, verify, whole, bounded, name, periodic):
    url = Path(shutil.copytree(whole if periodic else bounded, tmp_path / "f"))
    margin = (slice(None),) * (name == "velocity") + (slice(2, 10), slice(2, 10), 10)  # the side towards z
    change(url, name, lambda v: v[0][margin].__iadd__(1) is None or v)
    lines = matches(verify(url), "^a margin differs")
    message = f"variable={name}, box=0, found=1 of 26 sides differ, neighbours 1, expected=the same cells in both"
    assert lines == [f"a margin differs from the neighbours' cores: {message}"]


def test_margins_of_boxes_seen_apart_are_their_own(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", rsd="random_radial", observer_per_box=True)
    change(url, "matter_number", lambda v: v[0, 2:10, 2:10, 10].__iadd__(1) is None or v)
    assert len(matches(verify(url), "^a margin differs")) == 1  # of the particles: they are not shifted


# where it came from


def test_inputs_that_cannot_be_reached_are_a_note(url, verify):
    inputs = json.loads(store.attributes(str(url))["inputs"])
    inputs["halos"]["url"] = "gone/m000-499.fofproperties"
    attribute(url, "", inputs=json.dumps(inputs))
    (line,) = verify(url)
    assert line.startswith("note: an input cannot be reached: catalogue=halos, url=gone/m000")
    assert verify(url, inputs=False) == []


def test_inputs_that_changed(url, verify):
    inputs = json.loads(store.attributes(str(url))["inputs"])
    inputs["halos"] |= {"fingerprint": "f00d", "bytes": 3}
    attribute(url, "", inputs=json.dumps(inputs))
    lines = verify(url)
    assert matches(
        lines, "^an input is not what was painted: catalogue=halos, url=.*, fingerprint, found=.*expected=f00d"
    )
    assert matches(lines, "^an input is not what was painted: catalogue=halos, url=.*, bytes, found=.*, expected=3")


# velocity stores


@pytest.fixture(scope="module")
def predicted(client, whole, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "v"
    predict(client, prepare_prediction("linear", str(whole), str(out)))
    return out


def test_a_velocity_store(predicted, tmp_path, verify):
    assert verify(predicted) == []
    assert verify(predicted, inputs=False) == []
    url = Path(shutil.copytree(predicted, tmp_path / "v"))
    change(url, "velocity", lambda v: v.__setitem__((6, 0, 1, 1, 1), np.nan))
    change(url, "observer", lambda v: v + 1)
    attribute(url, "velocity", units="m/s")
    lines = verify(url)
    assert matches(lines, "^values that are not finite: variable=velocity, box=6, found=1 cells")
    assert matches(lines, "^a coordinate is off: variable=observer, values=24 of 24")
    assert matches(lines, "^metadata differ: object=velocity/zarr.json, attributes.units, found=m/s, expected=km/s")


def test_a_velocity_store_of_another_input(predicted, tmp_path, verify):
    url = Path(shutil.copytree(predicted, tmp_path / "v"))
    attribute(url, "", input_fingerprint="f00d")
    assert matches(
        verify(url), "^metadata differ: object=zarr.json, attributes.input_fingerprint, found=f00d, expected="
    )
    attribute(url, "", input=str(tmp_path / "gone"))
    assert matches(verify(url), "^note: an input cannot be reached: store=input, url=")


def test_damage_to_a_velocity_store(predicted, tmp_path, verify):
    url = Path(shutil.copytree(predicted, tmp_path / "v"))
    file = url / "velocity" / "c" / "1" / "0" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert matches(verify(url, inputs=False), "^an object has other bytes: object=velocity/c/1/0/0/0/0, found=sha256")


# catalogues


def test_catalogues(verify, tmp_path, client, capsys):
    assert verify(HALOS) == []
    copies = [shutil.copy(f, tmp_path) for f in MOCK.glob("m000.mpicosmo.499*")]
    url = tmp_path / "m000.mpicosmo.499"
    assert len(copies) == 4
    part = tmp_path / "m000.mpicosmo.499#1"
    data = bytearray(part.read_bytes())
    data[-1000] ^= 16
    part.write_bytes(data)
    lines = verify(url)
    assert len(lines) == 1
    assert re.match(r"a column cannot be read: file=.*499#1, block=\d+, column=\w+, found=.*CRC", lines[0])
    assert main(["verify", str(url), "--scheduler", client.scheduler.address]) == 1
    assert "damaged, 1 finding: catalogue=" in capsys.readouterr().out
    (tmp_path / "m000.mpicosmo.499#2").unlink()
    assert verify(url)[0].startswith(f"a catalogue cannot be opened: file={url}, found=")


def test_a_simulation_is_its_catalogues(verify, tmp_path):
    for file in MOCK.glob("m000*"):
        shutil.copy(file, tmp_path)
    snapshot = {"halos": "m000-499.fofproperties", "particles": "m000.mpicosmo.499", "redshift": 0.0, "nhalos": 1,
                "nparticles": 167772}  # fmt: skip
    (tmp_path / "simulation.json").write_text(json.dumps({"snapshots": [snapshot]}))
    (line,) = verify(tmp_path)
    assert re.match(r"rows are not those of the record: file=.*fofproperties, found=\d+, expected=1$", line)
    (tmp_path / "simulation.json").write_text(json.dumps({"snapshots": [{}]}))
    assert verify(tmp_path)[0].startswith("the record makes no sense: file=")


def test_a_store_says_how_its_inputs_were_read(client, tmp_path, verify):
    url = painted(client, tmp_path / "f", halos=None, particle_column=("vx=vy",))
    known = json.loads(store.attributes(str(url))["inputs"])["particles"]
    assert known["read_as"] == {"columns": ["vx=vy"]}
    assert known["columns"]["vx"] == "vy [km/s]"
    assert verify(url) == []
