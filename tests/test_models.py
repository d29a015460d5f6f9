"""`load_model`: every name of linear theory, and networks; what each says of itself."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from gaussian import write_fields

import velfield as vf
from velfield.errors import VelfieldError
from velfield.theory import analytic


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    return vf.open_fields(
        write_fields(str(tmp_path_factory.mktemp("m") / "fields"), boxes=2, cells=8, margin=1, seed=3)
    )


@pytest.mark.parametrize("name", analytic.NAMES)
def test_linear_theory_by_its_name_is_that_of_the_rows(ds, name):
    made = vf.load_model(name).predict(ds, boxes=[5, 2])
    expected = np.stack([analytic.reconstruct(name, ds, box) for box in (5, 2)])
    assert made.velocity.dims == ("box", "component", "x", "y", "z")
    np.testing.assert_array_equal(made.velocity, expected)
    xr.testing.assert_equal(made.origin, ds.origin.isel(box=[5, 2]))
    assert (made.attrs["velfield_kind"], made.attrs["margin"]) == ("velocity", 0)
    assert made.x.equals(ds.velfield.core(ds).x)


def test_its_predictions_go_where_those_of_a_store_go(ds):
    velocity = vf.load_model("linear_whole").predict(ds).velocity
    assert float(vf.metrics(velocity, ds.velfield.core(ds).velocity)["r"]["mean"]) > 0.5
    assert not np.isnan((ds.velfield.core(ds).velocity - velocity).values).any()


def test_what_it_takes_beside_the_name(ds):
    mass = vf.load_model("linear_halo", tracer="mass", smoothing=2.0).predict(ds, boxes=[0])
    expected = analytic.reconstruct("linear_halo", ds, 0, tracer="mass", smoothing=2.0)
    np.testing.assert_array_equal(mass.velocity[0], expected)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("linear_whole", {"device": "cuda"}, r"linear theory runs on the CPU: model=linear_whole, device=cuda; leave"),
        ("linear", {"tracer": "mass"}, r"only halos have a tracer: model=linear, tracer=mass; leave it out"),
        ("pretrained", {"smoothing": 3.0}, r"tracer and smoothing are for linear theory: model=pretrained, .*; leave"),
        ("wienr", {}, r"no model here, or an unfinished one: model=wienr; did you mean wiener\? make one with"),
    ],
)
def test_what_does_not_go_together_is_refused(model, options, said):
    with pytest.raises(VelfieldError, match=said):
        vf.load_model(model, **options)


def test_linear_theory_loads_no_torch():
    code = "import sys, velfield; velfield.load_model('wiener'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_box_is_refused(ds):
    with pytest.raises(VelfieldError, match="no box to predict: box=0; select at least one"):
        vf.load_model("linear").predict(ds, boxes=[])


def test_what_is_printed_of_models_catalogues_and_clients(tmp_path):
    text = repr(vf.load_model("pretrained", device="cpu"))
    assert text.startswith("<velfield.Model: mass_overdensity, number_overdensity → velocity, velocity_std")
    assert "boxes of 60³ cells of 5 h⁻¹Mpc from" in text
    assert repr(vf.load_model("wiener")) == "AnalyticModel(name='wiener', tracer='number', smoothing=None)"
    table = tmp_path / "halos.csv"
    table.write_text("x,y,z,mass\n1,2,3,1e12\n4,5,6,1e13\n")
    catalogue = repr(vf.open_catalogue(str(table)))
    assert catalogue == f"<velfield.Catalogue: 2 halos, boxsize not stated, redshift not stated; CSV, {table}>"
    with vf.Client("http://127.0.0.1:9", token="a secret") as client:
        assert repr(client) == "<velfield.Client: http://127.0.0.1:9, with a token>"
