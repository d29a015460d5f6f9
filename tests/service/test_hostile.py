"""Hostile inputs, each with its answer: the table of docs/service.md."""

import io
import json
import pickle
import socket
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import astropy.io.fits
import held
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served import ABOUT, cube, serving, until

from velfield.client.client import NPZ
from velfield.errors import VelfieldError
from velfield.service import problems, queries
from velfield.service.allowed import Allowed, normalised
from velfield.service.auth import check_bind, tokens_of
from velfield.service.limits import Rate

HEAD = "{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
TOKEN = "correct-horse-battery"


def npy(descr="<f4", shape=(8, 8, 8), data=b"", *, head=None, version=b"\x01\x00", length=None):
    head = (head or HEAD.format(descr=descr, shape=shape)).encode() + b"\n"
    size = len(head) if length is None else length
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", size) + head + data


def packed(members, compression=zipfile.ZIP_DEFLATED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def one(content, name="halo_number.npy", **more):
    return packed([(name, content)], **more)


def changed(**arrays):
    data = io.BytesIO()
    np.savez(data, **(cube() | arrays))
    return data.getvalue()


def with_cell(value):
    number = cube()["halo_number"].copy()
    number[0, 0, 0] = value
    return changed(halo_number=number)


def many_entries():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for n in range(5000):
            archive.writestr(f"{n}", b"")
    return data.getvalue()


def twice():
    with pytest.warns(UserWarning, match="Duplicate name"):
        return packed([("halo_number.npy", npy(data=bytes(2048)))] * 2)


GOOD = changed()
BODIES = {  # what, the body, status, what the answer says
    "zip bomb: 64 MiB of zeros behind a small shape": (
        lambda: one(npy(data=bytes(2**26))), 422, "not as long as its head says"),
    "a shape of 10^12 cells": (lambda: one(npy(shape=(10000, 10000, 10000))), 413, "too many cells"),
    "a shape that overflows": (lambda: one(npy(shape=(2**62,) * 3)), 413, "too many cells"),
    "a negative shape": (lambda: one(npy(shape=(-8,) * 3)), 422, "not a cube"),
    "a head of 4 GiB": (
        lambda: one(npy(version=b"\x02\x00", length=2**32 - 1, data=bytes(2**22))), 422, "not an array of NumPy"),
    "a head of nested brackets": (lambda: one(npy(head="(" * 3000)), 422, "a head that cannot be read"),
    "a head that is code": (lambda: one(npy(head="__import__('os').system('true')")), 422, "head that cannot be read"),
    "pickle: an array of objects": (lambda: one(npy(descr="|O", data=pickle.dumps([1]))), 422, "not plain numbers"),
    "pickle instead of an array": (lambda: one(pickle.dumps({"a": 1})), 422, "not an array of NumPy"),
    "pickle instead of an npz": (lambda: pickle.dumps(cube()), 422, "not an npz"),
    "records": (lambda: one(npy(descr=[("a", "<f4")])), 422, "not plain numbers"),
    "text": (lambda: one(npy(descr="<U8")), 422, "not plain numbers"),
    "complex numbers": (lambda: changed(halo_number=np.ones((8, 8, 8), "c8")), 422, "not plain numbers"),
    "a bomb in bzip2": (lambda: one(npy(), compression=zipfile.ZIP_BZIP2), 422, "packed in a way that is not taken"),
    "5000 entries": (many_entries, 422, "an npz of too many arrays"),
    "the same array twice": (twice, 422, "not the arrays that are taken"),
    "a path as a name": (lambda: one(npy(), name="../../etc/passwd.npy"), 422, "not the arrays that are taken"),
    "an array that nobody knows": (lambda: changed(secret=np.zeros(3)), 422, "not the arrays that are taken"),
    "not a zip": (lambda: b"no npz at all", 422, "not an npz"),
    "cut off": (lambda: GOOD[: len(GOOD) // 2], 422, "not an npz"),
    "a byte that was flipped": (
        lambda: GOOD[:300] + bytes([GOOD[300] ^ 255]) + GOOD[301:], 422, "not an npz, or a damaged one"),
    "NaN": (lambda: with_cell(np.nan), 422, "negative or not finite: array=halo_number, cells=1"),
    "infinity": (lambda: with_cell(np.inf), 422, "negative or not finite"),
    "too large for float32": (
        lambda: changed(halo_mass=np.full((8, 8, 8), 1e300)), 422, "negative or not finite"),
    "negative counts": (lambda: with_cell(-1), 422, "negative or not finite"),
    "nothing in it": (lambda: changed(halo_number=np.zeros((8, 8, 8))), 422, "a cube without tracers"),
    "an over-density without its mean": (
        lambda: one(npy(), name="halo_number_overdensity.npy"), 422,
        "an over-density without its mean: array=halo_number_overdensity"),
    "counts and their over-density": (
        lambda: changed(halo_mass_overdensity=np.ones((8, 8, 8))), 422, "the same in two forms: arrays=halo_mass, "),
    "two dimensions": (lambda: one(npy(shape=(8, 64), data=bytes(2048))), 422, "not a cube"),
    "not a cube": (lambda: changed(halo_number=np.ones((8, 8, 4))), 422, "not a cube"),
    "two shapes": (lambda: changed(halo_number=np.ones((4, 4, 4))), 422, "arrays of several shapes"),
    "an input lacks": (lambda: one(npy(data=np.ones(512, "<f4").tobytes())), 422, "no such field"),
    "more cells than the limit": (lambda: changed(halo_number=np.ones((33,) * 3, "u1")), 413, "too many cells"),
    "an empty body": (lambda: b"", 422, "the body is empty"),
    "a body beyond the limit": (lambda: bytes(2**22 + 1), 413, "the body is too large"),
}  # fmt: skip
CSV, PARQUET, FITS = FORMS = ("text/csv", "application/vnd.apache.parquet", "application/fits")
ARROW = "application/vnd.apache.arrow.stream"


def parquet(columns, **how):
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data, **how)
    return data.getvalue()


def arrow(columns, *, made="new_stream", compression=None, change=lambda data: data):
    table, data = pa.table(columns), io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with getattr(pa.ipc, made)(data, table.schema, options=options) as out:
        out.write_table(table, max_chunksize=20_000)
    return change(data.getvalue())


def extended():
    """An extension type that no library of ours knows, as positions."""
    about = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(print)}
    fields = [pa.field(name, pa.binary(), metadata=about) for name in "xyz"]
    return arrow(pa.Table.from_arrays([pa.array([b"1"])] * 3, schema=pa.schema(fields)))


def texts_of_a_mebibyte():
    """One text of 1 MiB in 9000 rows: 9 GB as they are read, some kilobytes as they are sent."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(9000, "i4")), pa.array(["a" * 2**20]))
    return parquet({**dict.fromkeys("xyz", np.zeros(9000)), "name": text}, store_schema=False, compression="zstd")


def fits(*, change=lambda data: data, **cards):
    columns = [astropy.io.fits.Column(name, "D", array=np.ones(4)) for name in "xyz"]
    table, data = astropy.io.fits.BinTableHDU.from_columns(columns), io.BytesIO()
    table.header.update(cards)
    astropy.io.fits.HDUList([astropy.io.fits.PrimaryHDU(), table]).writeto(data)
    return change(data.getvalue())


def positions(**arrays):
    data = io.BytesIO()
    np.savez(data, **(dict.fromkeys("xyz", np.ones(3)) | arrays))
    return data.getvalue()


TABLES = {  # what, the body, its type, status, what the answer says
    "Parquet: a text of 1 MiB in 9000 rows": (texts_of_a_mebibyte, PARQUET, 413, "more memory than it may"),
    "Parquet: 10^7 rows in a few kilobytes": (
        lambda: parquet(dict.fromkeys("xyz", np.zeros(10**7, "f4"))), PARQUET, 413, "too many rows: rows=10000000"),
    "Parquet: its end is missing": (
        lambda: parquet(dict.fromkeys("xyz", np.ones(3)))[:-9], PARQUET, 422, "cannot be read as Parquet"),
    "Parquet: an end of 4 GiB": (lambda: b"PAR1" + b"\xff" * 4 + b"PAR1", PARQUET, 422, "cannot be read as Parquet"),
    "Parquet: positions as texts": (
        lambda: parquet({name: ["1"] for name in "xyz"}), PARQUET, 422, "not a single number"),
    "Arrow: 2·10^6 rows in a few kilobytes": (
        lambda: arrow(dict.fromkeys("xyz", np.zeros(2000000, "f4")), compression="zstd"), ARROW, 413, "too many rows"),
    "Arrow: a packed column of 8 GiB": (
        lambda: arrow(dict.fromkeys("xyz", np.ones(777)), compression="zstd", change=lambda d: d.replace(
            (777 * 8).to_bytes(8, "little"), (2**33).to_bytes(8, "little"))), ARROW, 413, "more memory than it may"),
    "Arrow: more rows than it has bytes": (
        lambda: arrow(dict.fromkeys("xyz", np.ones(777)), change=lambda d: d.replace(
            (777).to_bytes(8, "little"), (777777).to_bytes(8, "little"))), ARROW, 422, "cannot be read as Arrow"),
    "Arrow: cut off": (
        lambda: arrow(dict.fromkeys("xyz", np.ones(999)))[:-999], ARROW, 422, "cannot be read as Arrow"),
    "Arrow: a head of 2 GiB": (
        lambda: b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(99), ARROW, 413, "more memory than it may"),
    "Arrow: positions out of a dictionary": (
        lambda: arrow(dict.fromkeys("xyz", pa.array([1.0]).dictionary_encode())),
        ARROW, 422, "not a single number"),
    "Arrow: a type that is code": (extended, ARROW, 422, "not a single number"),
    "Arrow: a file with an end (Feather)": (
        lambda: arrow(dict.fromkeys("xyz", np.ones(3)), made="new_file"), ARROW, 415, "not what its head says"),
    "FITS: more rows than it has bytes": (
        lambda: fits(change=lambda d: d.replace(b"=                    4", b"=                 4000")), FITS, 422,
        "file is truncated or inconsistent"),
    "FITS: a header without an end": (lambda: fits()[:4000], FITS, 422, "which table is not clear"),
    "FITS: a header of 2 MiB of comments": (
        lambda: b"SIMPLE  =                    T".ljust(80) + b"COMMENT ".ljust(80) * 26000, FITS, 422,
        "cannot be read as FITS"),
    "FITS: columns of variable length": (lambda: fits(PCOUNT=8), FITS, 422, "columns of variable length"),
    "CSV: a line of a million fields": (lambda: b"x,y,z\n" + b"," * 10**6, CSV, 422, "wrong number of fields"),
    "CSV: a quote that does not end": (lambda: b'x,y,z\n"' + b"1" * 2**20, CSV, 422, "field larger than field limit"),
    "CSV: not UTF-8": (lambda: b"x,y,z\n\xff,1,2\n", CSV, 422, "cannot be read as CSV"),
    "CSV: too many rows": (lambda: b"x,y,z\n" + b"1,2,3\n" * 10001, CSV, 413, "too many rows: rows=10001"),
    "CSV: no positions": (lambda: b"a,b\n1,2\n", CSV, 422, "no such column"),
    "CSV: names twice": (lambda: b"x,x,y,z\n1,2,3,4\n", CSV, 422, "no line of names"),
    "a table of another type than its head says": (
        lambda: b"x,y,z\n1,2,3\n", PARQUET, 415, "the body is not what its head says"),
    "HDF5 as a table": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), CSV, 415, "the body is not what its head says"),
    "positions that are pickled": (
        lambda: one(npy(descr="|O", data=pickle.dumps([1])), name="x.npy"), NPZ, 422, "not plain numbers"),
    "10^12 positions": (lambda: one(npy(shape=(10**12,)), name="x.npy"), NPZ, 413, "too many rows"),
    "positions of a negative number": (lambda: one(npy(shape=(-5,)), name="x.npy"), NPZ, 422, "not a list of numbers"),
    "positions in two dimensions": (lambda: positions(x=np.ones((3, 3))), NPZ, 422, "not a list of numbers"),
    "positions of two lengths": (lambda: positions(x=np.ones(4)), NPZ, 422, "arrays of several lengths"),
    "positions without z": (
        lambda: packed([(f"{n}.npy", npy(shape=(0,))) for n in "xy"]), NPZ, 422, "arrays of several lengths"),
    "an empty table": (lambda: b"", CSV, 422, "the body is empty"),
    "a table beyond the limit": (lambda: bytes(2**22 + 1), CSV, 413, "the body is too large"),
}  # fmt: skip
QUESTIONS = {  # what, the query, what the answer says
    "a shift without end": ({"max_shift": "inf"}, "max_shift: input should be"),
    "a column that is no pair": ({"column": "x"}, "not a name and a column"),
    "a place as an extension": ({"extension": "/etc/passwd"}, "the file holds one table only"),
    "options that npz has not": ({"prefix": "a"}, "only of tables: prefix=a"),
}
QUERIES = {  # what, the query, what the answer says
    "a cell size of another model": ({"cellsize": 7.5}, "the store does not fit the model: cellsize=7.5"),
    "a cell size of 0": ({"cellsize": 0}, "cellsize: input should be greater than 0"),
    "no number": ({"cellsize": "five"}, "cellsize: input should be a valid number"),
    "NaN as a redshift": ({"redshift": "nan"}, "redshift: input should be a finite number"),
    "a redshift below 0": ({"redshift": -1}, "redshift: input should be greater than or equal to 0"),
    "an unknown pattern": ({"rsd": "sideways"}, "rsd: input should be 'none', 'plane_parallel'"),
    "another unit": ({"mass_unit": "kg"}, "mass_unit: input should be 'msun/h' or 'msun'"),
    "a margin that leaves nothing": ({"margin": 4}, "nothing is left within the margin: cells=8, margin=4"),
    "a margin below 0": ({"margin": -1}, "margin: input should be greater than or equal to 0"),
    "an observer that is not asked for": ({"observer": [1, 2, 3]}, "no place for an observer: rsd=none"),
    "nobody to see": ({"rsd": "random_radial"}, "nobody to see the cube: rsd=random_radial"),
    "a line of sight without one": ({"line_of_sight": "x"}, "no single line of sight: rsd=none, line_of_sight=x"),
    "an observer out of this world": (
        {"rsd": "random_radial", "observer": [1e300, 2, 3]}, "an observer out of this world"),
    "half a cosmology": ({"omega_m": 0.3}, "half a cosmology"),
    "a cosmology that cannot be": (
        {"omega_m": 0.1, "omega_b": 0.2, "h": 0.7, "sigma8": 0.8, "n_s": 1}, "matter densities out of order"),
    "halos lighter than any": ({"min_mass": 1e-300}, "no halo is so light"),
    "a universe without baryons": (
        {"omega_m": 0.3, "omega_b": 1e-30, "h": 0.7, "sigma8": 0.8, "n_s": 1}, "omega_b: input should be greater"),
    "a question that nobody asked": ({"path": "/etc/passwd"}, "path: extra inputs are not permitted"),
}  # fmt: skip
PLACES = [  # none of them is read
    "/etc/passwd", "{root}/../secret", "{root}/%2e%2e/secret", "{root}/..%2fsecret", "{root}/./x", "{root}//x",
    "{root}/.work", "{root}-else", "file:///etc", "file://localhost{root}", "http://127.0.0.1:8000/health",
    "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://10.0.0.1/x", "https://example.org/f.zarr",
    "s3://other/bucket", "s3://user:secret@bucket/x", "memory://x", "simplecache::{root}", "ftp://h/x",
    "{root}?a=b",
    "{root}#x", "{root}\\..\\x", "{root}/\x00", "relative", "", " ", "upload:../../etc", "upload:" + "0" * 32,
]  # fmt: skip


def problem(answer, status, said):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert said.lower() in document["error"].lower(), document
    assert document["what_to_do"]
    assert "Traceback" not in answer.text
    assert "\n" not in document["error"]


def send(service, body, query=ABOUT, path="/predict/plain", **headers):
    return httpx.post(
        service.url + path, params=query, content=body, headers={"Content-Type": NPZ} | headers, timeout=60
    )


@pytest.mark.parametrize("what", list(BODIES))
def test_hostile_bodies(service, what):
    make, status, said = BODIES[what]
    body = make()
    with held.watched() as peak:
        problem(send(service, body), status, said)
        assert peak() < 2**27  # none is unpacked beyond its limits


@pytest.mark.parametrize("value", [-1.01, np.nan])
def test_hostile_over_densities(service, value):
    contrast = np.zeros((8, 8, 8))
    contrast[1, 2, 3] = value
    body = packed([("halo_number_overdensity.npy", npy(descr="<f8", data=contrast.tobytes()))])
    answer = send(service, body, ABOUT | {"mean_halo_number": 0.5})
    problem(answer, 422, "below -1 or not a number: array=halo_number_overdensity, cells=1")


def ask(service, body, form, **query):
    name = service.allowed.stores()[0]["id"]
    return httpx.post(
        f"{service.url}/stores/{name}/query", params=query, content=body, headers={"Content-Type": form}, timeout=120
    )


@pytest.fixture(scope="module")
def asked_before(service):
    """The first question starts the server of processes."""
    assert ask(service, b"x,y,z\n1,2,3\n", CSV).status_code == 200


@pytest.mark.parametrize("what", list(TABLES))
@pytest.mark.usefixtures("asked_before")
def test_hostile_tables(service, what, monkeypatch):
    make, form, status, said = TABLES[what]
    body = make()
    assert len(body) < 2**22 + 2
    monkeypatch.setattr(queries, "MEMORY", 2**28)
    with held.watched() as peak:
        answer = ask(service, body, form)
        assert peak() < 2**27
    problem(answer, status, said)
    assert service.folder not in answer.text


@pytest.mark.parametrize("what", list(QUESTIONS))
def test_hostile_questions(service, what):
    query, said = QUESTIONS[what]
    form, body = (NPZ, positions()) if "npz" in what else (CSV, b"x,y,z\n1,2,3\n")
    problem(ask(service, body, form, **query), 422, said)


@pytest.mark.parametrize("what", ["pickle: an array of objects", "a shape of 10^12 cells", "cut off", "NaN"])
def test_uploads_are_read_as_carefully(service, what):
    make, status, said = BODIES[what]
    problem(send(service, make(), path="/uploads"), status, said)


@pytest.mark.parametrize("what", list(QUERIES))
def test_hostile_queries(service, what):
    query, said = QUERIES[what]
    problem(send(service, GOOD, ABOUT | query), 422, said)


@pytest.mark.parametrize("lacking", ["cellsize", "redshift", "min_mass", "rsd"])
def test_no_physical_number_has_a_default(service, lacking):
    query = {name: value for name, value in ABOUT.items() if name != lacking}
    problem(send(service, GOOD, query), 422, f"{lacking}: field required")


@pytest.mark.parametrize("url", PLACES)
def test_no_place_outside_the_allow_list(service, fields, url):
    place = url.replace("{root}", fields)
    answer = httpx.post(f"{service.url}/jobs", json={"model": "plain", "input": place}, timeout=60)
    problem(answer, 422, "no such upload" if url.startswith("upload") else "not a place that this service may read")
    assert "/etc" not in answer.text


def test_a_link_that_leads_out_is_not_followed(tmp_path, fields):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(fields)
    allowed = Allowed([str(tmp_path / "in")])
    with pytest.raises(Exception, match="not a place"):
        allowed.resolve(str(tmp_path / "in" / "link"))
    assert Allowed([fields]).resolve(fields + "/") == fields
    assert Allowed([fields, str(tmp_path / "mistyped"), "s3://bucket/a"]).missing() == [str(tmp_path / "mistyped")]


def test_what_may_be_allowed():
    assert normalised("s3://bucket/a/b/") == "s3://bucket/a/b"
    for url in ("https://example.org/stores", "s3://key:secret@bucket", "memory://x"):
        with pytest.raises(VelfieldError, match="not a place that can be allowed"):
            Allowed([url])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/../../etc/passwd", 404),
        ("/jobs/%2e%2e%2f%2e%2e/store/x", 404),
        ("/jobs/" + "0" * 32 + "/store/%2e%2e/%2e%2e/x", 404),
        ("/jobs/" + "0" * 31 + "G", 422),
        ("/jobs/" + "0" * 32, 404),
        ("/models/..%2f..", 404),
        ("/predict", 404),
        ("/docs", 404),
        ("//health", 404),
    ],
)
def test_paths_that_lead_nowhere(service, path, status):
    answer = httpx.get(service.url + path)
    problem(answer, status, "")


def test_heads_that_are_wrong(service):
    problem(send(service, GOOD, **{"Content-Type": "application/json"}), 415, "not a body that is taken here")
    problem(send(service, GOOD, **{"Content-Encoding": "gzip"}), 415, "content-encoding")
    chunked = httpx.post(
        f"{service.url}/predict/plain", params=ABOUT, content=iter([GOOD]), headers={"Content-Type": NPZ}
    )
    problem(chunked, 411, "a body without a length")
    problem(httpx.put(f"{service.url}/health"), 405, "method not allowed")
    assert httpx.put(f"{service.url}/jobs").headers["Allow"] == "GET, POST"
    assert httpx.put(f"{service.url}/jobs/{'0' * 32}").headers["Allow"] == "DELETE, GET"
    text = httpx.post(f"{service.url}/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    problem(text, 415, "not a body")  # what a form of another site could send
    with suppress(httpx.ReadError):  # the connection is closed while the head is still on its way
        assert httpx.get(f"{service.url}/health", headers={"X": "y" * 2**17}).status_code == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "invalid json"),
        (b"[" * 10000, "invalid json"),
        (b'{"model": "plain"}', "input: field required"),
        (b'{"model": "plain", "input": 7}', "input: input should be a valid string"),
        (b'{"model": "plain", "input": "x", "average": 3}', "average: input should be 1, 8, 16 or 48"),
        (b'{"model": "plain", "input": "x", "command": "rm"}', "command: extra inputs are not permitted"),
        (b'{"model": "' + b"x" * 65 + b'", "input": "x"}', "model: string should have at most 64"),
        (b"\xff\xfe", "invalid json"),
    ],
)
def test_requests_for_jobs_that_are_wrong(service, body, said):
    answer = httpx.post(f"{service.url}/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, said)


def test_names_of_other_machines_are_not_answered(service):
    port = service.url.rpartition(":")[2]
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "169.254.169.254", ""):
        problem(httpx.get(f"{service.url}/health", headers={"Host": name}), 421, "its own machine only")
    assert httpx.get(f"{service.url}/health", headers={"Host": f"localhost:{port}"}).status_code == 200
    problem(httpx.get(f"{service.url}/models", headers={"Origin": "http://evil.example"}), 403, "another site")
    own = httpx.get(f"{service.url}/models", headers={"Origin": service.url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers
    assert own.headers["X-Content-Type-Options"] == "nosniff"


def test_a_body_that_does_not_come_is_given_up(service):
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        query = "&".join(f"{name}={value}" for name, value in ABOUT.items())
        head = [
            f"POST /predict/plain?{query} HTTP/1.1",
            "Host: localhost",
            f"Content-Type: {NPZ}",
            "Content-Length: 99",
        ]
        connection.sendall("\r\n".join([*head, "", "PK"]).encode())
        connection.settimeout(30)
        assert b"408" in connection.recv(2**16)
    until(lambda: service.room.taken == 0, 10)


def test_a_head_that_does_not_come_is_given_up(service, monkeypatch):
    monkeypatch.setattr("velfield.service.server.HEAD_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        connection.settimeout(60)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        assert connection.recv(2**16) == b""


def test_errors_of_ours_show_nothing(service, monkeypatch):
    logged = []
    monkeypatch.setattr(problems.LOG, "error", lambda _text, number, *, exc_info: logged.append((number, exc_info)))
    monkeypatch.setattr(service.allowed, "stores", lambda: 1 / 0)
    answer = httpx.get(f"{service.url}/stores")
    problem(answer, 500, "the service failed: number=")
    assert "ZeroDivision" not in answer.text
    ((number, error),) = logged
    assert isinstance(error, ZeroDivisionError)
    assert number in answer.json()["error"]


def test_tokens(models, cluster, tmp_path):
    with serving(tmp_path, models[:1], cluster, tokens=[TOKEN, "another-token-16-long"], rate=20) as service:
        for path in ("/health", "/ready", "/openapi.json"):
            assert httpx.get(service.url + path).status_code == 200
        for header in (
            None,
            "",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            f"Basic {TOKEN}",
            TOKEN,
            "Bearer",
            "Bearer é",
        ):
            headers = {} if header is None else {"Authorization": header.encode("latin-1")}
            answer = httpx.get(f"{service.url}/models", headers=headers)
            problem(answer, 401, "no token, or one that is not known")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        problem(send(service, GOOD), 401, "no token")
        for token in (TOKEN, "another-token-16-long"):
            assert httpx.get(f"{service.url}/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            answers = [client.get(f"{service.url}/models") for _ in range(80)]
        assert answers[0].status_code == 200
        problem(answers[-1], 429, "too many requests of one client")
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert httpx.get(f"{service.url}/health").status_code == 200
        schema = httpx.get(f"{service.url}/openapi.json").json()
        assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_a_rate_comes_back_with_time():
    rate = Rate(60)
    assert all(rate.take("a", 0.0) == 0 for _ in range(60))
    assert rate.take("a", 0.0) == pytest.approx(1.0)
    assert rate.take("b", 0.0) == 0
    assert rate.take("a", 1.01) == 0
    assert rate.take("a", 1.01) > 0


def test_without_a_token_on_loopback_only(tmp_path):
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_bind(host, [])
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(VelfieldError, match="without a token the service listens on loopback only: host="):
            check_bind(host, [])
        check_bind(host, [TOKEN])
    (tmp_path / "tokens").write_text(f"{TOKEN}\n\n")
    environment = {"VELFIELD_TOKEN": " a-token-of-16-letters,", "VELFIELD_TOKEN_FILE": str(tmp_path / "tokens")}
    assert tokens_of(environment) == ("a-token-of-16-letters", TOKEN)
    with pytest.raises(VelfieldError, match="not a token: characters=5"):
        tokens_of({"VELFIELD_TOKEN": "short"})
    with pytest.raises(VelfieldError, match="the file of tokens cannot be read"):
        tokens_of({"VELFIELD_TOKEN_FILE": str(tmp_path / "none")})


def test_every_row_of_the_docs_table_is_tested():
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.split("## Hostile inputs")[1].splitlines() if line[:2] == "| "]
    tested = {*BODIES, *QUERIES, *TABLES, *QUESTIONS}
    assert tested <= set(rows), json.dumps(sorted(tested - set(rows)))
