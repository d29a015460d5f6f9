"""Files by URL: whole or not at all."""

import pytest

from velfield import storage


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
