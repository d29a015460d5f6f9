"""Patches on their way from block tasks to shard tasks: whole, in order, and told when they are damaged."""

import numpy as np
import pytest

from velfield.errors import DamagedError
from velfield.files import storage
from velfield.painting.patches import Patch
from velfield.pipelines import patch_files
from velfield.pipelines.stages import Stage


def patches_of(rng, boxes):
    return {
        box: Patch(cells=np.sort(rng.choice(1000, 50, replace=False)), sums=rng.normal(size=(50, 4))) for box in boxes
    }


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(3)
    made = {4: patches_of(rng, [12, 14]), 1: patches_of(rng, [3])}
    url = str(tmp_path / "patches" / "halos-000000-0")
    stretches, size = patch_files.write(url, {shard: dict(of) for shard, of in made.items()})
    return url, made, stretches, size


def test_a_shard_reads_its_stretch_alone(written):
    url, made, stretches, size = written
    assert [shard for shard, *_ in stretches] == [1, 4]
    assert [start for _, start, *_ in stretches] == [0, stretches[0][2]]
    assert stretches[-1][2] == size == storage.sizes(url.rpartition("/")[0])["halos-000000-0"]
    for shard, start, stop, checksum in stretches:
        stage = Stage()
        (found,) = patch_files.read([(url, start, stop, checksum)], stage)
        assert stage.nbytes == stop - start
        assert list(found) == list(made[shard])
        for box, patch in found.items():
            np.testing.assert_array_equal(patch.cells, made[shard][box].cells)
            np.testing.assert_array_equal(patch.sums, made[shard][box].sums)


def test_many_come_in_order(written):
    url, _, stretches, _ = written
    many = [(url, *place) for _ in range(10) for _, *place in stretches]
    assert [list(found) for found in patch_files.read(many, Stage())] == [[3], [12, 14]] * 10


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.999])
def test_a_bit_that_turns_on_the_way_is_read_again(written, monkeypatch, at):
    url, made, stretches, _ = written
    real, times = storage.read_ranges, []

    def turned(url, paths, starts, stops):
        (data,) = real(url, paths, starts, stops)
        times.append(1)
        flipped = bytearray(data)
        flipped[int(at * len(data))] ^= 4
        return [bytes(flipped) if len(times) <= most else data]

    monkeypatch.setattr(storage, "read_ranges", turned)
    _, start, stop, checksum = stretches[0]
    most = 2
    (found,) = patch_files.read([(url, start, stop, checksum)], Stage())
    np.testing.assert_array_equal(found[3].sums, made[1][3].sums)
    most = 10**6
    with pytest.raises(DamagedError, match=f"file={url}, bytes={start} to {stop}; remove"):
        list(patch_files.read([(url, start, stop, checksum)], Stage()))


def test_one_that_is_gone_is_told(written):
    url, _, stretches, _ = written
    storage.remove(url)
    with pytest.raises(FileNotFoundError):
        list(patch_files.read([(url, *stretches[0][1:])], Stage()))
