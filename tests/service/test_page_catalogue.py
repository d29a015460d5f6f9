"""A catalogue of halos on the page, in a headless Chromium: dropped, asked about, refused, predicted and shown."""

import json

import chrome
import numpy as np
import pytest
from page_steps import READY, text
from served import LIMITS, serving
from table_files import write_csv, write_parquet

from velfield.client.client import Client
from velfield.service.paint import Paint

NAMES = ["x", "y", "z", "vx", "vy", "vz", "mass"]
WRITERS = {".csv": write_csv, ".parquet": write_parquet}
PAINT = {"boxsize": 120.0, "redshift": 0.212, "rsd": "random_radial", "min_mass": 1e12, "velocity": "proper"}
HOW = {name: str(value) for name, value in PAINT.items()}
ABOUT = "document.getElementById('catalogue-about').textContent"
REFUSED = "!document.getElementById('refusal').hidden"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), chrome.needed]


def halos(count=4000):
    rng = np.random.default_rng(1)
    columns = [*rng.uniform(0, 120, (3, count)), *rng.normal(0, 200, (3, count)), 10 ** rng.uniform(11.8, 14, count)]
    return dict(zip(NAMES, columns, strict=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("dropped")
    for end in (".csv", ".parquet"):
        WRITERS[end](root / f"halos{end}", halos())
    return root


@pytest.fixture(scope="module")
def opened(models, cluster, tmp_path_factory):
    with (
        serving(tmp_path_factory.mktemp("state"), models[:1], cluster) as service,
        chrome.browser(service.url) as page,
    ):
        yield service, page


@pytest.fixture
def page(opened):
    page = opened[1]
    page.width(1200, 900)
    page.asked.clear()
    page.call("Page.navigate", url="about:blank")
    page.open()
    page.until("document.getElementById('catalogue-rsd').options.length")
    yield page
    assert page.wrong == []


def fill(page, **values):
    for name, value in values.items():
        page.run(
            f"(() => {{ const one = document.querySelector('[data-paint={name}]'); one.value = {json.dumps(value)};"
            " one.dispatchEvent(new Event('input')); })()"
        )


def predict(page):
    page.run("document.getElementById('submit').click()")


def refused(page, where):
    """What the page says is wrong, which it says at this field."""
    page.until(REFUSED)
    marked = "document.querySelector('[aria-describedby=refusal]')"
    assert page.run(f"{marked}?.{where} ?? null") is not None, (where, text(page, "refusal"))
    assert page.run(f"{marked}.getAttribute('aria-invalid')") == "true"
    assert page.run("document.getElementById('refusal').checkVisibility()")
    return text(page, "refusal")


@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_a_catalogue_that_is_dropped(opened, page, root, end):
    given = root / f"halos{end}"
    page.drag("#look", given, drop=False)
    assert page.run("document.getElementById('drop').checkVisibility()")
    page.drag("#look", given)
    page.until(f"{ABOUT}.startsWith('halos{end}: ')")
    assert not page.run("document.getElementById('drop').checkVisibility()")
    assert page.run("document.activeElement.id") == "catalogue-rsd"  # what is to be said first
    offered = page.run("[...document.getElementById('catalogue-rsd').options].map((one) => one.value)")
    assert offered == ["", *Paint.model_json_schema()["properties"]["rsd"]["enum"]]
    if end == ".csv":
        assert "Its columns are known by their names." in page.run(ABOUT)
        predict(page)
        assert refused(page, "dataset.paint").startswith("redshift space is not chosen; ")
        fill(page, **HOW | {"boxsize": "a lot"})
        predict(page)
        assert refused(page, "dataset.paint") == "not a number: boxsize=a lot; write it as 0.5 or 1e12"
        assert not [url for url in page.asked if url.endswith("/catalogues")]  # nothing was sent for that
        fill(page, boxsize="121")
        predict(page)
        page.until("document.getElementById('refusal').textContent.startsWith('the parent is not cut')")
        said = refused(page, "dataset.paint")
        assert "boxsize=121, cellsize=5; " in said
        assert page.run("document.activeElement.dataset.paint") == "boxsize"
        assert page.wrong
        assert all("422" in one for one in page.wrong)  # the browser logs what it was refused
        page.wrong.clear()
    fill(page, **HOW)
    predict(page)
    page.until("document.getElementById('state').textContent === 'done'", 600)
    page.until(f"document.getElementById('look-title').textContent === 'plain on halos{end}'")
    page.until(READY)
    page.until("document.getElementById('measures-list').children.length")
    job = page.run("location.hash").removeprefix("#job=")
    with Client(opened[0].url) as client:
        about = client.status(job)
        assert {name: about["paint"][name] for name in PAINT} == PAINT
        velocity = client.open(job)["velocity"].values
    rms = np.sqrt((velocity.astype("f8") ** 2).mean(axis=(1, 2, 3, 4))).mean()
    assert float(page.run("document.querySelector('#measures-list dd').textContent").split()[0]) == pytest.approx(
        rms, rel=0.006
    )
    assert "no r and no rms error" in text(page, "measures-about")
    assert page.run(REFUSED) is False


def test_what_is_wrong_with_its_rows_is_said_at_the_form(page, tmp_path):
    columns = halos()
    columns["vx"][17] = np.nan
    WRITERS[".csv"](tmp_path / "nan.csv", columns)
    page.file("#catalogue-file", tmp_path / "nan.csv")  # by the button, as by keyboard
    page.until(f"{ABOUT}.startsWith('nan.csv: CSV')")
    fill(page, **HOW)
    predict(page)
    page.until("document.getElementById('state').textContent.startsWith('failed')", 300)
    page.until(REFUSED)
    assert "1 not finite" in text(page, "refusal")
    assert "column=vx" in text(page, "refusal")


def test_what_is_dropped_is_taken_for_what_it_is(page, tmp_path):
    np.savez(tmp_path / "cube.npz", halo_number=np.ones((4, 4, 4), "f4"))
    page.drag("#look", tmp_path / "cube.npz")
    page.until("document.querySelector('input[name=source]:checked').value === 'upload'")
    assert page.run("document.getElementById('file').files[0].name") == "cube.npz"
    (tmp_path / "fields.zarr").mkdir()
    (tmp_path / "m000-499.fofproperties").write_bytes(b"HACC01L\0" + bytes(100))
    (tmp_path / "notes.txt").write_text("what we did on Monday\n")
    (tmp_path / "large.csv").write_text("x,y,z,vx,vy,vz,mass\n" + "1,1,1,1,1,1,1e12\n" * (LIMITS["upload"] // 17 + 1))
    for name, said in (
        ("fields.zarr", "not a file that can be read: name=fields.zarr; a folder, as a Zarr store is, cannot be sent"),
        ("m000-499.fofproperties", "GenericIO is not sent from the page: name=m000-499.fofproperties; "),
        ("notes.txt", "not a catalogue of halos that is taken: name=notes.txt; choose CSV, Parquet, FITS or HDF5"),
        (
            "large.csv",
            f"the file is too large: bytes={(tmp_path / 'large.csv').stat().st_size}, limit={LIMITS['upload']}; ",
        ),
    ):
        page.drag("#look", tmp_path / name)
        page.until(f"document.getElementById('refusal').textContent.startsWith({json.dumps(said)})", 30)
    page.drag("#look", tmp_path / "notes.txt", tmp_path / "cube.npz")
    page.until("document.getElementById('refusal').textContent === 'several files: files=2; drop one'", 30)
    assert "4 MiB" in page.run("document.querySelector('#from-upload .upload-limit').textContent")
    assert not [url for url in page.asked if "/catalogues" in url or "/uploads" in url]


def test_what_was_said_of_a_catalogue_is_not_taken_for_another(page, root):
    page.drag("#look", root / "halos.csv")
    page.until(f"{ABOUT}.startsWith('halos.csv: ')")
    fill(page, **HOW)
    page.drag("#look", root / "halos.csv")  # the same, mended
    page.until("document.activeElement.id === 'submit'")
    page.drag("#look", root / "halos.parquet")
    page.until(f"{ABOUT}.startsWith('halos.parquet: ')")
    said = "[...document.querySelectorAll('[data-paint]')].map((one) => one.value).filter(Boolean)"
    assert page.run(said) == ["refuse"]  # positions outside the box


def test_hostile_names_are_text(page, tmp_path):
    evil = "<img src=x onerror=window.hit=1>"
    columns = dict(zip([*NAMES[:6], f"{evil} [Msun/h]"], halos(count=50).values(), strict=True))
    path = tmp_path / f"{evil}.csv"
    rows = np.stack(list(columns.values()), axis=1)
    np.savetxt(path, rows, fmt="%.9g", delimiter=",", header=",".join(columns), comments="")
    page.drag("#look", path)
    page.until(f"{ABOUT}.startsWith({json.dumps(path.name)})")
    assert "No column has a known name for mass: " in page.run(ABOUT)
    assert page.run("document.getElementById('catalogue-more').open")  # its columns are to be named
    assert page.run("[...document.getElementById('catalogue-columns').options].at(-1).value") == evil
    fill(page, **HOW)
    predict(page)
    page.until(f"{REFUSED} && /no masses to cut by/.test(document.getElementById('refusal').textContent)")
    assert refused(page, "dataset.haloColumn") is not None
    assert evil in text(page, "refusal")
    page.wrong.clear()  # what was refused
    assert page.run("window.hit === undefined && document.querySelectorAll('main img').length") == 0
