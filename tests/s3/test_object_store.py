"""Files on object storage, from a server that fails in every way that the proxy knows."""

import os

import numpy as np
import pytest

from velfield.catalogues import genericio
from velfield.errors import CatalogueError, StorageError
from velfield.files import shards, storage
from velfield.files.object_store import RETRIES, ObjectStore

ROWS = range(0, 60_000, 15_000)
DATA = np.random.default_rng(1).bytes(200_000)


@pytest.fixture
def fast(monkeypatch):
    """Waits a tenth as long."""
    monkeypatch.setattr("velfield.files.object_store.FIRST_WAIT", 0.02)


def test_one_request_a_file(place, proxy):
    url = storage.join(place, "a", "b#3")
    assert storage.find_bytes(url) is None
    assert (proxy.count("GET"), proxy.count("HEAD")) == (1, 0)
    storage.write_bytes(url, DATA)
    assert storage.read_bytes(url) == DATA
    assert (proxy.count("PUT"), proxy.count("GET"), proxy.count("HEAD")) == (1, 2, 0)
    assert storage.read_ranges(url, [storage.filesystem(url)[1]] * 2, [0, 199_990], [10, 300_000]) == [
        DATA[:10],
        DATA[-10:],
    ]
    storage.write_bytes(url, b"")
    assert storage.read_bytes(url) == b""


def test_what_another_process_wrote_or_removed_is_seen(place, server):
    other = ObjectStore(endpoint_url=server.endpoint)
    path = storage.filesystem(place)[1]
    storage.write_bytes(storage.join(place, "a"), b"1")
    assert storage.names(place) == ["a"]
    other.pipe_file(f"{path}/b", b"2")
    assert storage.names(place) == ["a", "b"]
    assert storage.exists(storage.join(place, "b"))
    other.rm_file(f"{path}/b")
    assert storage.names(place) == ["a"]
    assert not storage.exists(storage.join(place, "b"))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("fault", ["500", "503", "dropped", "lost", "slow", "cut", "truncated", "flipped"])
def test_faults_that_pass_are_not_noticed(fault, place, proxy):
    proxy.faults, proxy.most, proxy.delay = {fault: 1.0}, 3, 0.05
    url = storage.join(place, "f")
    storage.write_bytes(url, DATA)
    assert storage.read_bytes(url) == DATA
    if fault != "flipped":  # of a range there is no second witness; GenericIO and Zarr have their own
        assert storage.read_ranges(url, [storage.filesystem(url)[1]], [10], [100_000]) == [DATA[10:100_000]]
    assert storage.names(place) == ["f"]
    storage.remove(place)
    assert storage.names(place) == []
    assert proxy.hits[fault] >= 2


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("fault", ["500", "503", "dropped", "cut", "truncated"])
def test_faults_that_stay_are_one_line(fault, place, proxy):
    url = storage.join(place, "f")
    storage.write_bytes(url, DATA)
    storage.use_options({"retries": 3})
    assert storage.exists(url)
    proxy.faults, proxy.most = {fault: 1.0}, 10**6
    with pytest.raises(
        StorageError, match=f"again and again: url={url}, endpoint=.*, attempts=4, reason=.*; check"
    ) as e:
        storage.read_bytes(url)
    assert e.value.status == 1  # not what was asked is wrong


@pytest.mark.usefixtures("fast")
def test_an_object_whose_tag_is_no_md5_is_read(place, proxy):
    url = storage.join(place, "f")
    storage.write_bytes(url, DATA)
    ObjectStore.clear_instance_cache()
    fs, path = storage.filesystem(url)
    fs.tries = 3
    real = fs._once

    async def once(method, *args, **kwargs):
        answer = await real(method, *args, **kwargs)
        return answer | {"ETag": '"00000000000000000000000000000000"'} if method == "get_object" else answer

    fs._once = once
    assert fs.cat_file(path) == DATA
    assert proxy.count("GET") == 2
    assert fs.cat_file(path) == DATA
    assert proxy.count("GET") == 3
    ObjectStore.clear_instance_cache()


@pytest.mark.usefixtures("fast")
def test_a_large_file_in_parts(place, proxy):
    proxy.faults, proxy.most = {"503": 0.2, "lost": 0.1}, 2
    fs, path = storage.filesystem(storage.join(place, "f"))
    data = np.random.default_rng(2).bytes(11 * 2**20)
    fs.pipe_file(path, data, chunksize=5 * 2**20)
    assert proxy.count("PUT", "partNumber") >= 3
    assert fs.cat_file(path) == data


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"endpoint_url": "http://127.0.0.1:1"}, "cannot be reached: .*endpoint=http://127.0.0.1:1, attempts=3"),
        ({"endpoint_url": "127.0.0.1:1"}, "refuses: .*reason=Invalid endpoint: 127.0.0.1:1"),
        ({"config_kwargs.nonsense": 1}, "refuses: .*'nonsense'"),
        ({"endpoint_url": "http://me:pa55@127.0.0.1:1"}, "endpoint=http://127.0.0.1:1,"),
    ],
)
def test_mistakes_with_options(options, expected, place):
    storage.use_options(options)
    with pytest.raises(StorageError, match=expected) as error:
        storage.exists(place)
    assert "pa55" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("denied", "access denied: url=s3://.*reason=.*; check the credentials"),
        ("region", "another region: url=s3://.*; give --storage-option client_kwargs.region_name"),
        ("no bucket", "no such bucket: url=s3://.*, endpoint=http.*; check its name"),
    ],
)
def test_answers_that_will_not_change_are_one_line(fault, expected, place, proxy):
    proxy.faults = {fault: 1.0}
    with pytest.raises(StorageError, match=expected):
        storage.read_bytes(storage.join(place, "f"))
    assert len(proxy.requests) <= 10  # botocore looks for the region itself


@pytest.mark.usefixtures("bucket")
def test_no_such_bucket():
    with pytest.raises(StorageError, match="no such bucket: url=s3://velfield-nowhere-at-all/f, endpoint="):
        storage.exists("s3://velfield-nowhere-at-all/f")


def test_no_credentials(place, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ObjectStore.clear_instance_cache()
    with pytest.raises(StorageError, match=r"no credentials .*AWS_ACCESS_KEY_ID.*anon=true"):
        storage.exists(place)
    ObjectStore.clear_instance_cache()


@pytest.mark.skipif("VELFIELD_TEST_S3_ENDPOINT" not in os.environ, reason="moto takes any secret")
@pytest.mark.parametrize("options", [{"secret": "wr0ng"}, {"key": "NOBODY"}, {"anon": True}])
def test_who_has_no_right_is_told_at_once(options, place, proxy, server):
    storage.write_bytes(storage.join(place, "f"), DATA)
    proxy.clear()
    storage.use_options({"key": server.key, "secret": server.secret} | options)
    with pytest.raises(StorageError, match=r"access denied: url=s3://.*; check the credentials") as error:
        storage.read_bytes(storage.join(place, "f"))
    assert "wr0ng" not in str(error.value)
    assert len(proxy.requests) == 1


def test_how_often_it_is_tried(monkeypatch):
    assert ObjectStore(skip_instance_cache=True).tries == RETRIES + 1
    assert ObjectStore(skip_instance_cache=True, config_kwargs={"retries": {"max_attempts": 2}}).tries == 3
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
    assert ObjectStore(skip_instance_cache=True).tries == 4


def test_versions_follow_the_content(place):
    urls = [storage.join(place, name) for name in ("a#0", "a#1")]
    for url in urls:
        storage.write_bytes(url, b"12")
    before = storage.version(urls)
    storage.write_bytes(urls[1], b"12")
    assert storage.version(urls) == before
    storage.write_bytes(urls[1], b"13")
    assert storage.version(urls) != before


@pytest.fixture
def catalogue(place):
    """Columns a to h of 60,000 float32 in four ranks."""
    columns = {name: np.arange(60_000, dtype=np.float32) + i for i, name in enumerate("abcdefgh")}
    url = storage.join(place, "cat.gio")
    ranks = [{name: values[start : start + 15_000] for name, values in columns.items()} for start in ROWS]
    genericio.write(url, ranks, dims=(4, 1, 1), boxsize=1.0)
    return url, columns


def test_only_the_wanted_bytes_are_fetched(catalogue, proxy):
    url, columns = catalogue
    proxy.clear()
    gio = genericio.open(url)
    opened = proxy.received
    assert (proxy.count("GET"), proxy.count("HEAD"), len(proxy.requests)) == (1, 1, 2)
    proxy.clear()
    wanted = ["b", "c", "d", "g"]
    got = gio.read(wanted)
    for name in wanted:
        np.testing.assert_array_equal(got[name], columns[name])
    assert opened <= 32 * 1024
    assert proxy.received <= 1.02 * sum(columns[name].nbytes for name in wanted)
    assert len(proxy.requests) == 2 * 4  # b to d of a block are neighbours


def test_a_small_gap_is_cheaper_than_a_request(place, proxy):
    rows = 50_000
    columns = {
        "wide": np.zeros((rows, 12)),
        "gap": np.zeros(rows, dtype=np.uint8),
        "next": np.arange(rows, dtype=np.float64),
    }
    url = storage.join(place, "cat.gio")
    genericio.write(url, [columns], dims=(1, 1, 1), boxsize=1.0)
    gio = genericio.open(url)
    proxy.clear()
    got = gio.read(["wide", "next"])
    np.testing.assert_array_equal(got["next"], columns["next"])
    assert len(proxy.requests) == 1
    assert proxy.received <= 1.02 * (columns["wide"].nbytes + columns["next"].nbytes)


def test_a_column_that_is_damaged_on_the_way_is_fetched_again(catalogue, proxy):
    url, columns = catalogue
    proxy.clear()
    proxy.faults, proxy.most = {"flipped": 0.5}, 2
    gio = genericio.open(url)  # the header has a CRC, too
    proxy.clear()
    proxy.faults, proxy.most = {"flipped": 1.0}, 1
    np.testing.assert_array_equal(gio.read(["c"])["c"], columns["c"])
    assert proxy.hits["flipped"] == 4


def test_a_column_that_stays_damaged_is_named(catalogue, proxy):
    url, _ = catalogue
    gio = genericio.open(url)
    proxy.clear()
    proxy.faults, proxy.most = {"flipped": 1.0}, 10**6
    with pytest.raises(CatalogueError, match=f"CRC does not match: file={url}, rank=0, column=c; copy the file again"):
        gio.read(["c"])
    assert proxy.count("GET") == 4 + 2  # a block each, then twice more for the first that is wrong
    proxy.faults = {}
    data = bytearray(storage.read_bytes(url))
    data[-100] ^= 1
    storage.write_bytes(url, bytes(data))
    with pytest.raises(CatalogueError, match=f"CRC does not match: file={url}, rank=3, column=h"):
        genericio.open(url).read(["h"])


def test_a_file_that_became_shorter_is_named(catalogue):
    url, _ = catalogue
    gio = genericio.open(url)
    data = storage.read_bytes(url)
    storage.write_bytes(url, data[: len(data) // 2])
    with pytest.raises(CatalogueError, match=f"file.*{url}"):
        gio.read(["h"])


@pytest.mark.usefixtures("fast")
def test_zarr_goes_the_same_way(place, proxy):
    import zarr

    proxy.faults, proxy.most = {"503": 0.3, "cut": 0.3, "dropped": 0.1}, 3
    values = np.random.default_rng(3).normal(size=(8, 30, 30))
    array = zarr.create_array(shards.zarr_store(place), shape=values.shape, chunks=(1, 30, 30), dtype="f8")
    array[:] = values
    np.testing.assert_array_equal(zarr.open_array(shards.zarr_store(place), mode="r")[:], values)
    assert sum(proxy.hits.values()) > 3


def test_a_wrong_endpoint_is_given_up_soon(place):
    storage.use_options({"endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(StorageError, match=r"cannot be reached: .*attempts=3"):
        storage.exists(place)


def test_the_environment_is_heard(place, server):
    # AWS_ENDPOINT_URL and the keys are how all of these tests reach the server; fsspec's own variables are read
    # when it is imported, so in a process of its own
    import subprocess
    import sys

    storage.write_bytes(storage.join(place, "f"), b"12")
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {
        "FSSPEC_S3_ENDPOINT_URL": server.endpoint, "FSSPEC_S3_KEY": server.key, "FSSPEC_S3_SECRET": server.secret,
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    code = "import sys; from velfield.files import storage; sys.stdout.buffer.write(storage.read_bytes(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, f"{place}/f"], env=env, capture_output=True, timeout=60)
    assert done.stdout == b"12", done.stderr
