"""Cubes that are answered at once: the very numbers that `velfield predict` writes for a store of that box."""

import io
import json

import httpx
import numpy as np
import pytest
import xarray as xr
from served import ABOUT, cube, serving, write_model

from velfield.client.client import Client, ServiceError
from velfield.pipelines.predict import predict, prepare
from velfield.service.cubes import Cube, boxed, spec_of
from velfield.stores import store

OBSERVERS = {
    "none": {},
    "plane_parallel": {},
    "center_radial": {},
    "random_radial": {"observer": [100.0, -20.0, 3.0]},
    "observed": {"line_of_sight": "x"},
}


def store_of(url, arrays, **about):
    asked = Cube(**(ABOUT | about))
    store.write_fields(url, spec_of(asked, arrays, "f"), boxed(asked, arrays))
    return url


@pytest.mark.parametrize("rsd", list(OBSERVERS))
def test_a_box_in_memory_is_the_store_of_that_box(tmp_path, rsd):
    asked = Cube(**ABOUT | {"rsd": rsd} | OBSERVERS[rsd])
    arrays = cube()
    spec = spec_of(asked, arrays, "f")
    url = store_of(str(tmp_path / "f"), arrays, rsd=rsd, **OBSERVERS[rsd])
    xr.testing.assert_identical(
        store.fields_in_memory(spec, boxed(asked, arrays)), store.open_fields(url, chunks=None).load()
    )


@pytest.mark.parametrize(("name", "rsd"), [("plain", "none"), ("guided", "random_radial")])
def test_the_answer_is_that_of_velfield_predict_to_the_last_bit(client, cluster, models, tmp_path, name, rsd):
    arrays = cube(cells=9)
    fields = store_of(str(tmp_path / "f"), arrays, rsd=rsd, **OBSERVERS[rsd])
    out = str(tmp_path / "v")
    assert predict(cluster(), prepare(next(url for url in models if url.endswith(name)), fields, out, isolated=True))
    expected = store.open_velocity(out, chunks=None)
    found = client.predict(name, arrays, **ABOUT | {"rsd": rsd} | OBSERVERS[rsd])
    assert set(found) == set(map(str, expected.data_vars)) - {"velocity_flag"}
    for variable, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected[variable].values[0])
    assert np.abs(found["velocity"]).max() > 1


def test_over_densities_with_their_means_are_counts(client):
    """Means and counts here are such that (1 + δ) · mean is exact."""
    rng, means = np.random.default_rng(5), {"mean_halo_number": 0.5, "mean_halo_mass": 2.0**40}
    number = rng.poisson(0.5, (8, 8, 8)).astype("f4")
    counts = {"halo_number": number, "halo_mass": (number * 2.0**41).astype("f4")}
    contrasts = {f"{name}_overdensity": values / means[f"mean_{name}"] - 1 for name, values in counts.items()}
    assert contrasts["halo_number_overdensity"].min() == -1
    expected = client.predict("plain", counts, **ABOUT, **means)
    for sent in (
        contrasts,
        {"halo_number": counts["halo_number"], "halo_mass_overdensity": contrasts["halo_mass_overdensity"]},
    ):
        found = client.predict("plain", sent, **ABOUT, **means)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
    in_msun = {"mass_unit": "Msun", "min_mass": 1e12 / 0.71, "mean_halo_number": 0.5, "mean_halo_mass": 2.0**40 / 0.71}
    found = client.predict("plain", contrasts, **ABOUT | in_msun)["velocity"]
    np.testing.assert_allclose(found, expected["velocity"], rtol=1e-4, atol=1e-2)  # float32 of masses
    assert client.upload(contrasts, **ABOUT, **means).startswith("upload:")
    with pytest.raises(ServiceError, match="without its mean: array=halo_mass_overdensity; give mean_halo_mass"):
        client.upload(contrasts, **ABOUT, mean_halo_number=0.5)


@pytest.fixture(scope="module")
def with_context(fields, cluster, tmp_path_factory):
    """A service of two models that need two cells of surroundings, and where they lie."""
    root = tmp_path_factory.mktemp("context")
    for name in ("near", "guided"):
        write_model(str(root / name), fields, guided=name == "guided", context=2)
    with serving(root / "state", [str(root / "near"), str(root / "guided")], cluster) as service:
        yield service, root


@pytest.mark.parametrize(("name", "margin"), [("near", 2), ("near", 3), ("guided", 3)])
def test_surroundings_are_seen_and_not_answered(with_context, cluster, tmp_path, name, margin):
    service, root = with_context
    arrays, how = cube(cells=8 + 2 * margin), {"rsd": "random_radial", **OBSERVERS["random_radial"], "margin": margin}
    fields, out = store_of(str(tmp_path / "f"), arrays, **how), str(tmp_path / "v")
    assert store.open_fields(fields, chunks=None).attrs["margin"] == margin
    assert predict(cluster(), prepare(str(root / name), fields, out, isolated=True))
    expected = store.open_velocity(out, chunks=None)
    with Client(service.url) as client:
        found = client.predict(name, arrays, **ABOUT | how)
        assert found["velocity"].shape == (3, 8, 8, 8)
        for variable, values in found.items():
            np.testing.assert_array_equal(values, expected[variable].values[0])
        other = {n: values.copy() for n, values in arrays.items()}
        other["halo_number"][:margin] += 5  # the surroundings count
        assert np.abs(client.predict(name, other, **ABOUT | how)["velocity"] - found["velocity"]).max() > 1e-3
        job = client.submit(name, client.upload(arrays, **ABOUT | how))
        client.wait(job, timeout=240, every=0.05)
        np.testing.assert_allclose(client.open(job)["velocity"][0], found["velocity"], rtol=0, atol=1e-3)  # threads


def test_too_few_surroundings_are_refused(with_context):
    service, _ = with_context
    with Client(service.url) as client:
        with pytest.raises(ServiceError, match="fewer surroundings than the model needs: margin=1, context=2"):
            client.predict("near", cube(), **ABOUT, margin=1)
        with pytest.raises(ServiceError, match="nothing is left within the margin: cells=8, margin=4"):
            client.predict("near", cube(), **ABOUT, margin=4)
        with pytest.raises(ServiceError, match="narrower than the model's context: margin=1, context=2"):
            client.submit("near", client.upload(cube(), **ABOUT, margin=1))


def test_units_of_other_people(client):
    h = 0.71
    arrays = cube()
    expected = client.predict("plain", arrays, **ABOUT)["velocity"]
    same = client.predict(
        "plain",
        {"halo_number": arrays["halo_number"], "halo_mass": arrays["halo_mass"].astype("f8") / h},
        **ABOUT | {"cellsize": 5.0 / h, "min_mass": 1e12 / h},
        length_unit="Mpc",
        mass_unit="Msun",
    )["velocity"]
    np.testing.assert_allclose(same, expected, rtol=1e-4, atol=1e-2)  # masses were rounded to float32 twice


def test_the_universes_mean_changes_what_a_box_means(client):
    arrays = cube()
    own = client.predict("plain", arrays, **ABOUT)["velocity"]
    mean = float(arrays["halo_number"].mean(dtype="f8"))
    given = client.predict("plain", arrays, **ABOUT, mean_halo_number=mean)["velocity"]
    np.testing.assert_array_equal(own, given)
    other = client.predict("plain", arrays, **ABOUT, mean_halo_number=2 * mean)["velocity"]
    assert np.abs(other - own).max() > 1e-3


@pytest.mark.parametrize(
    ("pack", "dtype"),
    [(np.savez, ">f4"), (np.savez_compressed, "f8"), (np.savez, "i4"), (np.savez_compressed, "u1"), (np.savez, "f2")],
)
def test_numbers_of_every_kind_and_order(client, service, pack, dtype):
    whole = {"halo_number": cube()["halo_number"], "halo_mass": cube()["halo_number"]}
    data = io.BytesIO()
    pack(data, **{name: np.asfortranarray(values.astype(dtype)) for name, values in whole.items()})
    answer = httpx.post(
        f"{service.url}/predict/plain",
        params=ABOUT,
        content=data.getvalue(),
        headers={"Content-Type": "application/x-npz"},
    )
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["velocity"], client.predict("plain", whole, **ABOUT)["velocity"])


def test_what_differs_from_the_training_is_said(service):
    data = io.BytesIO()
    np.savez(data, **cube())
    answer = httpx.post(
        f"{service.url}/predict/plain",
        params=ABOUT | {"redshift": 1.0},
        content=data.getvalue(),
        headers={"Content-Type": "application/x-npz"},
    )
    notes = json.loads(answer.headers["Velfield-Notes"])
    assert "the model was trained at redshift=0.212, the cube has redshift=1" in notes


def test_models_say_what_they_are(client):
    plain, guided = client.models()
    assert plain["inputs"] == {"mass_overdensity": "1", "number_overdensity": "1"}
    assert (plain["cellsize"], plain["has_std"], plain["redshift"], plain["guide"]) == (5.0, True, 0.212, None)
    assert (guided["conditioned"], guided["guide"], guided["min_mass"]) == (True, "wiener", [1e11, 1e13])


def half(cells: int = 24) -> dict[str, np.ndarray]:
    """Halos in one half of a cube, as of a survey that ends there."""
    number = np.random.default_rng(8).poisson(3.0, (cells,) * 3).astype("f4")
    number[: cells // 2] = 0
    return {"halo_number": number, "halo_mass": (number * 2e12).astype("f4")}


def test_a_cube_that_is_no_complete_catalogue_is_refused_and_accepted(client, service):
    sent = io.BytesIO()
    np.savez(sent, **half())
    url, asked = (
        f"{service.url}/predict/plain",
        {"content": sent.getvalue(), "headers": {"Content-Type": "application/x-npz"}},
    )
    answer = httpx.post(url, params=ABOUT, **asked)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("the halos do not fill the volume as a complete catalogue does: ")
    assert 'with accept=["implausible"]' in answer.json()["what_to_do"]
    answer = httpx.post(url, params=ABOUT | {"accept": "implausible"}, **asked)
    assert answer.status_code == 200
    assert json.loads(answer.headers["Velfield-Implausible"]).startswith("the halos do not fill the volume")
    found = client.predict("plain", half(), **ABOUT, accept="implausible")
    flag = found["velocity_flag"]
    assert (flag & 4 > 0).all()
    empty = np.zeros(flag.shape, dtype=bool)
    empty[4:8, 4:20, 4:20] = True  # a cube of 9 cells around; beyond the edge of a box there may be halos
    np.testing.assert_array_equal(flag & 8 > 0, empty)
    assert httpx.post(url, params=ABOUT | {"accept": "all"}, **asked).status_code == 422


def test_a_job_that_is_no_complete_catalogue_fails_and_goes_on_where_it_is_accepted(client):
    name = client.upload(half(), **ABOUT)
    job = client.submit("plain", name)
    with pytest.raises(ServiceError, match="the halos do not fill the volume"):
        client.wait(job, timeout=600, every=0.2)
    assert 'with accept=["implausible"]' in client.status(job)["what_to_do"]
    assert client.submit("plain", name, accept=["implausible"]) == job
    done = client.wait(job, timeout=600, every=0.2)
    assert done["accept"] == ["implausible"]
    assert any("accepted as implausible, every cell is flagged" in note for note in done["notes"])
    assert (client.open(job)["velocity_flag"].values & 4 > 0).all()
