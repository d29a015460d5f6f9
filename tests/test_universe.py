"""Which universe a catalogue is of, and cosmologies by name and by file."""

import json
import re

import pytest

from velfield.catalogues.universe import read_cosmology, settled_cosmology, universe_of
from velfield.errors import StorageError, VelfieldError
from velfield.files import storage
from velfield.physics.cosmology import OUTER_RIM, Cosmology

NAMES = {"halos": "m000-499.fofproperties", "particles": "m000.mpicosmo.499"}


def record(folder, names=NAMES, **changes):
    asked = {"cosmology": OUTER_RIM.to_dict(), "boxsize": 64.0, "particles": 32, "seed": 1, "min_halo_mass": 1e12}
    storage.write_json(f"{folder}/simulation.json", {"parameters": asked | changes, "snapshots": [names]})
    return f"{folder}/{names['halos']}"


def test_snapshots_and_thresholds_share_the_universe_and_seeds_do_not(tmp_path):
    one = universe_of(record(tmp_path / "a"))
    late = {"halos": "m000-421.fofproperties", "particles": "m000.mpicosmo.421"}
    other = universe_of(record(tmp_path / "b", late, min_halo_mass=1e13, steps=20))
    assert one == other
    assert one.cosmology == OUTER_RIM
    changed = [{"seed": 2}, {"boxsize": 65.0}, {"particles": 34}, {"cosmology": OUTER_RIM.to_dict() | {"h": 0.7}}]
    found = [universe_of(record(tmp_path / f"c{i}", **change)).identity for i, change in enumerate(changed)]
    assert len({one.identity, *found}) == 5
    assert universe_of(record(tmp_path / "d", cosmology=OUTER_RIM.to_dict() | {"name": "x"})).identity == one.identity


def test_only_catalogues_that_the_record_names_are_of_it(tmp_path, monkeypatch):
    url = record(tmp_path / "a")
    assert universe_of(url.replace("499", "421")) is None
    assert universe_of(f"{tmp_path}/a/halos.parquet") is None
    assert universe_of(f"{tmp_path}/nowhere/{NAMES['halos']}") is None
    (tmp_path / "a" / "simulation.json").write_text("{}")
    with pytest.raises(VelfieldError, match=r"record cannot be read: file=.*simulation.json, because=KeyError"):
        universe_of(url)

    def denied(_):
        raise StorageError("access denied")

    monkeypatch.setattr(storage, "find_bytes", denied)
    assert universe_of(url) is None


def test_cosmology_by_name_and_by_file(tmp_path):
    values = {"omega_m": 0.31, "omega_b": 0.049, "h": 0.6766, "sigma8": 0.81, "n_s": 0.9665}
    assert read_cosmology("outer-rim") is OUTER_RIM
    (tmp_path / "planck.json").write_text(json.dumps(values))
    assert read_cosmology(str(tmp_path / "planck.json")) == Cosmology(name="planck", **values)
    (tmp_path / "p.toml").write_text("\n".join(f"{n} = {v}" for n, v in values.items()) + '\nname = "mine"')
    assert read_cosmology(str(tmp_path / "p.toml")) == Cosmology(name="mine", **values)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"omega_m": 0.3}', "not a cosmology: .*no number=omega_b, h, sigma8, n_s; give omega_m"),
        ("a.toml", "omega_m = ", "not a file of this format: cosmology=.*a.toml"),
        ("a.json", "", "not a file of this format"),
        ("a.toml", "omega_m=0.3\nomega_b=0.04\nh=nan\nsigma8=0.8\nn_s=1", "no such cosmology: h=nan, sigma8=0.8"),
        ("a.toml", "omega_m=0.3\nomega_b=0.04\nh=0.7\nsigma8=0.8\nn_s=1\nw=-1", "no number=w; give"),
        ("a.json", "[1]", "not a cosmology: cosmology=.*a.json holds no names"),
        ("a.txt", "", r"no such cosmology: cosmology=.*a.txt; choose outer-rim, or name a .json or .toml file"),
    ],
)
def test_what_is_no_cosmology_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(VelfieldError, match=message):
        read_cosmology(str(tmp_path / name))
    with pytest.raises(VelfieldError, match=r"no such file: cosmology=nowhere\.toml"):
        read_cosmology("nowhere.toml")


# ------------------------------------------------------------------------------------------ what files state

STATED = {"omega_m": 0.31, "omega_b": 0.049, "h": 0.6766, "sigma8": 0.81, "n_s": 0.9665}


def test_what_is_given_recorded_stated_or_none_of_it():
    planck = Cosmology(name="header", **STATED)
    mine, other = Cosmology(name="mine", **STATED), Cosmology(name="other", **STATED | {"h": 0.7})
    named, nameless = {"a/m000-499.fofproperties": {}}, {"halos.csv": {}, "b/m000.mpicosmo.499": {}}
    assert settled_cosmology(None, None, named) == (OUTER_RIM, [])
    found, (note,) = settled_cosmology(None, None, nameless)
    assert found is OUTER_RIM
    assert note.startswith("the catalogue states no cosmology: outer-rim's is taken (omega_m=0.2648, h=0.71); --cosm")
    assert settled_cosmology(mine, None, nameless) == (mine, [])
    assert settled_cosmology(None, mine, nameless) == (mine, [])
    assert settled_cosmology(mine, other, nameless) == (mine, [])
    assert settled_cosmology(None, None, {"f": STATED}) == (planck, [])
    assert settled_cosmology(mine, None, {"f": STATED | {"h": 0.67661}}) == (mine, [])  # rounded
    found, (note,) = settled_cosmology(None, None, {"f": {"h": 0.6766}, "g": {"omega_m": 0.31}})
    assert (found.h, found.omega_m, found.sigma8) == (0.6766, 0.31, OUTER_RIM.sigma8)
    assert note.startswith(
        "the catalogue's cosmology has no omega_b, sigma8, n_s: outer-rim's is taken (omega_b=0.0448"
    )


@pytest.mark.parametrize(
    ("given", "recorded", "stated", "said"),
    [
        (OUTER_RIM, None, {"f": STATED}, "file=f states omega_m=0.31, given=outer-rim has omega_m=0.2648; leave"),
        (None, OUTER_RIM, {"f": {"h": 0.7}}, "file=f states h=0.7, in simulation.json=outer-rim has h=0.71"),
        (None, None, {"f": {"h": 0.7}, "g": {"h": 0.71}}, "file=g states h=0.71, file=f has h=0.7"),
        (None, None, {"f": {"w_0": -0.9}}, "dark energy that is no cosmological constant: file=f, w_0=-0.9, w_a=0"),
        (OUTER_RIM, None, {"f": {"w_a": 0.1}}, "dark energy that is no cosmological constant: file=f, w_0=-1, w_a=0.1"),
        (None, None, {"f": {"omega_m": 0.3, "omega_l": 0.6}}, "that is not flat: file=f, omega_m=0.3, omega_l=0.6"),
    ],
)
def test_cosmologies_that_contradict_each_other_or_ours(given, recorded, stated, said):
    with pytest.raises(VelfieldError, match=re.escape(said)):
        settled_cosmology(given, recorded, stated)
