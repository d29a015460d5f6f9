"""Which universe a catalogue is of, and cosmologies by name and by file."""

import json

import pytest

from velfield.catalogues.universe import read_cosmology, universe_of
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
