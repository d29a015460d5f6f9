"""The manifest: every object of a store by size and hash, written without reading anything back."""

import hashlib
import json
from pathlib import Path

import pytest
from small_store import BOXES, arrays_of, spec_of

from velfield.errors import StoreError
from velfield.files import manifest, shards, storage
from velfield.stores import store, store_layout


@pytest.fixture
def url(tmp_path):
    return store.write_fields(str(tmp_path / "f"), spec_of(BOXES), arrays_of(BOXES)) or str(tmp_path / "f")


def test_every_object_is_listed(url):
    found = {p.relative_to(url).as_posix(): p.read_bytes() for p in Path(url).rglob("*") if p.is_file()}
    del found[manifest.KEY]
    listed = manifest.read(url)
    assert listed == {k: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for k, b in found.items()}
    assert {"zarr.json", "origin/zarr.json", "velocity/c/6/0/0/0/0"} <= set(listed)


def test_nothing_is_read_back(tmp_path, monkeypatch):
    url, layout = str(tmp_path / "f"), store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    written = shards.write_boxes(url, layout, range(27), arrays_of(BOXES))
    for path in Path(url).glob("*/c/**/*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))  # who reads it now finds other bytes
    with monkeypatch.context() as patched:
        patched.setattr(storage, "read_bytes", None)
        shards.publish(url, layout, written)
    assert sum(key.startswith("velocity/c/") for key in written) == layout.nshard
    listed = manifest.read(url)
    assert {key: dict(listed[key]) for key in written} == written


def test_it_comes_before_the_root(tmp_path, monkeypatch):
    order = []
    write = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda url, data: (order.append(url), write(url, data)))
    store.write_fields(str(tmp_path / "f"), spec_of(BOXES), arrays_of(BOXES))
    assert [name.removeprefix(f"{tmp_path}/f/") for name in order[-2:]] == [manifest.KEY, "zarr.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-9], "the manifest cannot be read: file=.*, reason="),
        (lambda text: text.replace("  ", " ", 1), "the manifest is damaged, its checksum does not match"),
        (lambda text: text.replace('"bytes": 1', '"bytes": 2', 1), "the manifest is damaged"),
        (lambda text: text.replace('"velfield_schema": 1', '"velfield_schema": 9'), "another schema: .* schema=9"),
        (lambda _: json.dumps([1]), "the manifest cannot be read"),
    ],
)
def test_a_damaged_manifest_is_refused(url, change, message):
    file = Path(url) / manifest.KEY
    file.write_text(change(file.read_text()))
    with pytest.raises(StoreError, match=message):
        manifest.read(url)


def test_none_is_refused(url):
    (Path(url) / manifest.KEY).unlink()
    with pytest.raises(StoreError, match=r"no manifest: file=.*; the store was made without one"):
        manifest.read(url)
    assert store.open_fields(url).sizes["box"] == 27  # and opens all the same
