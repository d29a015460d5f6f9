"""Files by URL: whole or not at all."""

import errno
import shutil

import pytest

from velfield.files import storage


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path}"


def test_round_trip_and_names(place):
    url = storage.join(place, "a", "b#3")
    assert not storage.exists(url)
    storage.write_bytes(url, b"12")
    assert storage.read_bytes(url) == b"12"
    storage.write_json(storage.join(place, "a", "c.json"), {"x": [1, 2.5]})
    assert storage.read_json(storage.join(place, "a", "c.json")) == {"x": [1, 2.5]}
    assert storage.names(storage.join(place, "a")) == ["b#3", "c.json"]
    assert storage.is_folder(storage.join(place, "a"))
    storage.remove(storage.join(place, "a"))
    assert storage.names(storage.join(place, "a")) == []
    storage.remove(storage.join(place, "a"))  # nothing there: nothing happens


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    url = str(tmp_path / "f")
    storage.write_bytes(url, b"old")
    with pytest.raises(TypeError):
        storage.write_bytes(url, "not bytes")  # type: ignore[arg-type]
    assert storage.read_bytes(url) == b"old"
    assert storage.names(str(tmp_path)) == ["f"]


def test_local_and_remote():
    assert storage.is_local("/tmp/x")
    assert storage.is_local("file:///tmp/x")
    assert not storage.is_local("memory://x")


def test_a_folder_in_which_a_late_task_still_writes_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    really, late = shutil.rmtree, ["patch-1", "patch-2"]

    def busy(path, *_args, **_kwargs):
        really(path)
        if late:  # written between the listing and the folder's own removal
            folder.mkdir()
            (folder / late.pop()).write_bytes(b"late")
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    monkeypatch.setattr("fsspec.implementations.local.shutil.rmtree", busy)
    storage.remove(str(folder))
    assert not folder.exists()
    assert not late


def test_what_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    tries = []

    def refuse(_self, path, **_):
        tries.append(path)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.rm", refuse)
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)
    with pytest.raises(OSError, match="not empty"):
        storage.remove(str(tmp_path / "file"))
    assert len(tries) == storage.REMOVALS


def test_what_was_perhaps_meant(tmp_path):
    (tmp_path / "data" / "fields-1.zarr").mkdir(parents=True)
    assert storage.did_you_mean(f"{tmp_path}/data/field-1.zarr") == "did you mean fields-1.zarr? "
    assert storage.did_you_mean(f"{tmp_path}/dta/fields-1.zarr") == "did you mean data? "
    assert storage.did_you_mean(f"{tmp_path}/data/velocity") == ""
    assert storage.did_you_mean(f"{tmp_path}/data/fields-1.zarr") == ""  # it is there
    assert storage.did_you_mean("memory://nowhere") == ""


def test_paths_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/b.zarr") == str(tmp_path / "a" / "b.zarr")
    for url in ("/a/b", "s3://bucket/a", "memory://a", f"file://{tmp_path}/a"):
        assert storage.absolute(url) == url
