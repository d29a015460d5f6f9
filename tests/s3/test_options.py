"""Storage options: parsed, used in this process and in a job's workers, never told to anybody."""

import json

import fsspec
import pytest

from velfield.commands.cli import main
from velfield.errors import StorageError
from velfield.files import storage
from velfield.pipelines.cluster import connect


@pytest.fixture(autouse=True)
def forget():
    yield
    storage.forget_options()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("endpoint_url=http://h:1/?a=b", ("s3", "endpoint_url", "http://h:1/?a=b")),
        ("anon=true", ("s3", "anon", True)),
        ("retries=3", ("s3", "retries", 3)),
        ("secret=123", ("s3", "secret", "123")),
        ("client_kwargs.aws_access_key_id=12", ("s3", "client_kwargs.aws_access_key_id", "12")),
        ('s3_additional_kwargs={"ACL": "private"}', ("s3", "s3_additional_kwargs", {"ACL": "private"})),
        ("gs:token=anon", ("gs", "token", "anon")),
    ],
)
def test_parse(text, expected):
    assert storage.parse_option(text) == expected


@pytest.mark.parametrize("text", ["hush", "=hush", ":x=hush", "s3:=hush"])
def test_what_is_no_option_is_not_repeated(text):
    with pytest.raises(StorageError, match="not a storage option") as error:
        storage.parse_option(text)
    assert "hush" not in str(error.value)


def test_options_are_fsspecs_defaults_until_they_are_forgotten(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": False, "client_kwargs": {"verify": True}})
    storage.use_options({"key": "k", "retries": 2, "connect_timeout": 1, "client_kwargs.region_name": "x"})
    assert fsspec.config.conf["s3"] == {
        "anon": False,
        "key": "k",
        "config_kwargs": {"retries": {"max_attempts": 2}, "connect_timeout": 1},
        "client_kwargs": {"verify": True, "region_name": "x"},
    }
    fs, _ = storage.filesystem("s3://b/k")
    assert (fs.key, fs.tries, fs.config_kwargs["connect_timeout"]) == ("k", 3, 1)
    storage.forget_options()
    assert fsspec.config.conf["s3"] == {"anon": False, "client_kwargs": {"verify": True}}
    assert storage.options_in_use() == {}


def test_unknown_options_and_protocols():
    with pytest.raises(StorageError, match=r"unknown storage option: option=endpiont_url; s3 has anon, .*retries"):
        storage.use_options({"endpiont_url": "x"})
    with pytest.raises(StorageError, match="no file system for this URL: url=foo://x, reason=Protocol not known"):
        storage.exists("foo://x")


@pytest.mark.slow
def test_workers_have_them_also_those_that_join_later_and_forget_them():
    storage.use_options({"endpoint_url": "http://127.0.0.1:9", "secret": "hush-hush"})
    with connect(workers=1, quiet=True) as client:
        client.cluster.scale(2)
        client.wait_for_workers(2)
        assert list(client.run(storage.options_in_use).values()) == 2 * [storage.options_in_use()]
        told = client.run_on_scheduler(lambda dask_scheduler: repr([dask_scheduler.tasks, dask_scheduler.get_events()]))
        logs = repr((client.get_worker_logs(), client.get_scheduler_logs()))
        assert "hush-hush" not in told + logs


@pytest.mark.slow
def test_the_secret_is_nowhere(place, proxy, server, capfd, monkeypatch, caplog):
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    data = "tests/data/mock-outer-rim/m000.mpicosmo.499"
    options = [f"endpoint_url={proxy.endpoint}", f"key={server.key}", f"secret={server.secret}", "retries=4"]
    options = [word for option in options for word in ("--storage-option", option)]
    command = ["paint", f"{place}/out.zarr", "--particles", data, "--boxes", "1", "--cells", "8", "--workers", "1"]
    assert main([*command, *options]) == 0
    assert main([*command, *options]) == 0  # already painted
    assert main(["info", f"{place}/out.zarr", "--json", *options]) == 0
    assert main(["info", f"{place}/nothing", *options]) == 2
    assert main(["info", "s3://velfield-nowhere-at-all/x", *options]) == 2
    said = capfd.readouterr()
    told = said.out + said.err + caplog.text
    assert "already painted" in told
    assert storage.options_in_use() == {}
    storage.use_options({"endpoint_url": server.endpoint, "key": server.key, "secret": server.secret})
    fs, path = storage.filesystem(place)
    stored = fs.find(path)
    assert len(stored) > 10
    for secret in (server.secret, server.key):
        assert secret not in told
        for name in stored:
            assert secret.encode() not in fs.cat_file(name), name
    assert json.loads(fs.cat_file(f"{path}/out.zarr/zarr.json"))["attributes"]["velfield_kind"] == "fields"


def test_every_verb_has_the_option(capsys):
    from velfield.commands.cli import cli

    for verb in cli.commands:
        assert main([verb, "--help"]) == 0
        assert "--storage-option" in capsys.readouterr().out
