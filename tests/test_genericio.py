"""The GenericIO reader against files of the reference writer, and against files made here field by field."""

import json
import pickle
import shutil
import struct
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from velfield.catalogues import genericio
from velfield.catalogues.genericio_layout import crc64
from velfield.errors import CatalogueError, DamagedError, VelfieldError

DATA = Path(__file__).parent / "data"
SAMPLES = sorted(p.name for p in (DATA / "genericio").glob("*.gio"))


def reference(name):
    """Values of a sample file in its row order."""
    kind = name.split(".")[0]
    values = dict(np.load(DATA / "genericio" / f"{kind}.npz"))
    if "1rank" in name:
        return values
    order = np.load(DATA / "genericio" / f"{kind}.{'rank4empty' if 'empty' in name else 'rank4'}_order.npy")
    return {k: v[order] for k, v in values.items()}


def same(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        assert found[name].tobytes() == values.tobytes(), name


def naive_crc(data):
    """CRC-64/XZ bit by bit."""
    crc = 2**64 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return crc ^ (2**64 - 1)


def sealed(data):
    return data + struct.pack("<Q", crc64(data) ^ (2**64 - 1))


def craft(  # a writer of its own: no code of the package but the CRC, which naive_crc holds
    ranks,
    columns,
    *,
    order="<",
    varsize=280,
    ranksize=48,
    globalsize=168,
    filters=None,
    codec="lz4",
    dims=(1, 1, 1),
    scale=256.0,
    numbers=None,
):
    """Bytes of a file. ``columns``: (name, flags, row bytes, element bytes); ``ranks``: raw bytes by column."""
    nvars, nranks = len(columns), len(ranks)
    rows = [len(r[0]) // columns[0][2] for r in ranks]
    varstart = globalsize
    rankstart = varstart + nvars * varsize
    blockstart = rankstart + nranks * ranksize
    octree = b"octree" * 5 if globalsize >= 184 else b""
    octstart = blockstart + (nvars * nranks * 48 if filters else 0)
    size = octstart + len(octree)
    at, starts, blocks, body = size + 8, [], b"", b""
    for raw in ranks:
        starts.append(at)
        for data, (_, _, _, element) in zip(raw, columns, strict=True):
            stored, name = data, b""
            if filters and data:
                name = filters
                buffer = blosc.compress(data, codec.encode(), 5, blosc.SHUFFLE, typesize=element)
                stored = struct.pack(order + "Q", crc64(data)) + buffer
            blocks += struct.pack(order + "32s2Q", name, at, len(stored))
            body += sealed(stored)
            at += len(stored) + 8
    magic = b"HACC01L\0" if order == "<" else b"HACC01B\0"
    head = magic + struct.pack(order + "5Q", size, sum(rows), *dims)
    head += struct.pack(order + "7Q", nvars, varsize, varstart, nranks, ranksize, rankstart, globalsize)
    head += struct.pack(order + "6d", 0, 0, 0, scale, scale, scale)
    head += struct.pack(order + "2Q", *((48, blockstart) if filters else (0, 0)))
    head += struct.pack(order + "2Q", len(octree), octstart)
    head = head[:globalsize]
    for name, flags, width, element in columns:
        head += struct.pack(order + "256s3Q", name, flags, width, element)[:varsize].ljust(varsize, b"?")
    for r in range(nranks):
        coords = np.unravel_index(r, dims)
        number = numbers[r] if numbers else r
        head += struct.pack(order + "6Q", *coords, rows[r], starts[r], number)[:ranksize]
    head += blocks if filters else b""
    return sealed(head + octree) + body


COLUMNS = [(b"m", 3, 4, 4), (b"p", 3, 12, 4), (b"n", 0, 2, 2)]


def table(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "m": rng.random(rows, dtype=np.float32),
        "p": rng.random((rows, 3), dtype=np.float32),
        "n": np.sort(rng.integers(0, 9, rows).astype(np.uint16)),
    }


def raw(values, order="<"):
    return [v.astype(v.dtype.newbyteorder(order)).tobytes() for v in values.values()]


def written(tmp_path, data, name="file.gio"):
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


# ------------------------------------------------------------------------------------------ files of the reference


def test_samples_are_there():
    assert len(SAMPLES) == 12


@pytest.mark.parametrize("name", SAMPLES)
def test_reference_files_read_bit_for_bit(name):
    gio = genericio.open(str(DATA / "genericio" / name))
    expected = reference(name)
    same(gio.read(), expected)
    assert gio.nrows == len(next(iter(expected.values())))
    assert gio.boxsize == 256.0
    assert [b.rank for b in gio.blocks] == list(range(len(gio.blocks)))


@pytest.mark.parametrize("name", ["halos.split.gio", "particles.split.blosc.gio", "halos.1rank.bigendian.gio"])
def test_reads_the_same_through_memory(name):
    fs = fsspec.filesystem("memory")
    for path in (DATA / "genericio").glob(name + "*"):
        fs.pipe_file(f"/samples/{path.name}", path.read_bytes())
    try:
        gio = genericio.open(f"memory://samples/{name}")
        same(gio.read(), reference(name))
        assert all(url.startswith("memory://samples/") for url in gio.files)
    finally:
        fs.rm("/samples", recursive=True)


@pytest.mark.parametrize("name", ["halos.4rank.gio", "halos.split.gio", "particles.4rank.blosc.gio"])
def test_columns_and_blocks_are_parts_of_the_whole(name):
    gio = genericio.open(str(DATA / "genericio" / name))
    everything = gio.read()
    wanted = list(gio.columns)[-2:]
    found = gio.read(wanted[::-1], blocks=[3, 1])
    assert list(found) == wanted[::-1]
    edges = np.cumsum([0] + [b.nrows for b in gio.blocks])
    for column in wanted:
        expected = np.concatenate([everything[column][edges[b] : edges[b + 1]] for b in (3, 1)])
        assert found[column].tobytes() == expected.tobytes()
    assert gio.read([], blocks=[0]) == {}
    assert gio.read(wanted, blocks=[])[wanted[0]].shape == (0,)


def test_extents_hold_the_rows_and_z_runs_fastest():
    gio = genericio.open(str(DATA / "hacc" / "m000.full.mpicosmo.50"))
    assert (gio.dims, len(gio.blocks), gio.nrows) == ((4, 4, 2), 32, 32**3)
    assert gio.blocks[1].lower == (0.0, 0.0, 128.0)
    assert gio.blocks[2].upper == (64.0, 128.0, 128.0)
    for block in gio.blocks:
        rows = gio.read(["x", "y", "z"], blocks=[block.index])
        pos = np.stack(list(rows.values()), axis=1)
        assert len(pos) == block.nrows > 0
        assert (pos >= block.lower).all()
        assert (pos <= block.upper).all()  # equal where float32 rounds up to the edge


def test_real_hacc_file_holds_each_particle_once():
    table = genericio.open(str(DATA / "hacc" / "m000.full.mpicosmo.50")).read()
    np.testing.assert_array_equal(np.sort(table["id"]), np.arange(32**3))
    assert {k: v.dtype.str for k, v in table.items()}["mask"] == "<u2"


def test_partitioned_file_is_one_object():
    gio = genericio.open(str(DATA / "mock-outer-rim" / "m000-499.fofproperties"))
    assert [Path(url).name[-2:] for url in gio.files] == ["es", "#0", "#1", "#2"]
    assert gio.nbytes == sum(Path(url).stat().st_size for url in gio.files)
    assert [Path(b.url).name[-1] for b in gio.blocks] == ["0", "1", "2", "0", "1", "2", "0", "1"]
    assert (gio.nrows, gio.boxsize, gio.dims) == (31446, 512.0, (2, 2, 2))
    one = genericio.open(gio.files[1])
    assert [b.rank for b in one.blocks] == [0, 3, 6]
    assert [b.lower for b in one.blocks] == [gio.blocks[i].lower for i in (0, 3, 6)]


def test_open_file_pickles():
    gio = genericio.open(str(DATA / "genericio" / "halos.split.gio"))
    same(pickle.loads(pickle.dumps(gio)).read(), gio.read())


# ------------------------------------------------------------------------------------------ layouts made here


def test_crc_is_crc64_xz():
    assert naive_crc(b"123456789") == crc64(b"123456789") == 0x995DC9BBDF1939FA
    block = bytes(range(256)) * 3
    assert naive_crc(sealed(block)) == crc64(sealed(block)) == 2**64 - 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("filters", [None, b"BLOSC"])
@pytest.mark.parametrize("sizes", [{}, {"varsize": 304}, {"ranksize": 40}, {"globalsize": 184}, {"globalsize": 200}])
def test_layouts(tmp_path, order, filters, sizes):
    """Both orders, raw and packed, an empty rank, a vector column, longer and shorter records, an octree."""
    if sizes == {"globalsize": 200}:
        sizes = {"globalsize": 184, "varsize": 288}
    tables = [table(50, 1), table(0, 2), table(300, 3)]
    url = written(
        tmp_path, craft([raw(t, order) for t in tables], COLUMNS, order=order, filters=filters, dims=(1, 1, 3), **sizes)
    )
    gio = genericio.open(url)
    assert gio.columns["p"].components == 3
    assert [b.nrows for b in gio.blocks] == [50, 0, 300]
    same(gio.read(), {k: np.concatenate([t[k] for t in tables]) for k in tables[0]})
    same(gio.read(blocks=[1]), tables[1])


def test_blocks_come_in_global_rank_order(tmp_path):
    tables = [table(5, seed) for seed in range(3)]
    gio = genericio.open(written(tmp_path, craft([raw(t) for t in tables], COLUMNS, dims=(1, 3, 1), numbers=[2, 0, 1])))
    assert [b.rank for b in gio.blocks] == [0, 1, 2]
    same(gio.read(), {k: np.concatenate([tables[i][k] for i in (1, 2, 0)]) for k in tables[0]})


def test_old_vector_column_reads_as_bytes(tmp_path):
    """Records of 272 bytes do not say how wide an element is: 12 bytes are no number, and stay bytes."""
    values = table(7)
    gio = genericio.open(written(tmp_path, craft([raw(values)], COLUMNS, varsize=272)))
    found = gio.read()["p"]
    assert found.dtype == np.dtype("V12")
    assert found.tobytes() == values["p"].tobytes()


def test_no_extents_without_topology_or_scale(tmp_path):
    ranks = [raw(table(3, s)) for s in range(4)]
    for name, options in {"line": {"dims": (4, 1, 1)}, "unset": {"dims": (2, 2, 1), "scale": 0.0}}.items():
        gio = genericio.open(written(tmp_path, craft(ranks, COLUMNS, **options), name))
        assert [(b.lower, b.upper) for b in gio.blocks] == [(None, None)] * 4
    assert gio.boxsize is None
    gio = genericio.open(written(tmp_path, craft(ranks, COLUMNS, dims=(2, 2, 1))))
    assert gio.blocks[2].lower == (128.0, 0.0, 0.0)


@pytest.mark.parametrize("filters", [None, b"BLOSC"])
def test_row_ranges(tmp_path, filters):
    tables = [table(40, 1), table(90, 2)]
    gio = genericio.open(written(tmp_path, craft([raw(t) for t in tables], COLUMNS, filters=filters, dims=(1, 1, 2))))
    for start, stop in [(0, 90), (10, 30), (89, 90), (5, 5)]:
        same(gio.read(blocks=[1], rows=(start, stop)), {k: v[start:stop] for k, v in tables[1].items()})
    with pytest.raises(CatalogueError, match=r"no such rows: file=.*, rank=1, rows=\(80, 91\); the block has 90 rows"):
        gio.read(blocks=[1], rows=(80, 91))
    with pytest.raises(CatalogueError, match=r"within one block: rows=\(0, 1\), blocks=2; give one block"):
        gio.read(rows=(0, 1))


def test_only_the_wanted_bytes_are_fetched(monkeypatch):
    gio = genericio.open(str(DATA / "genericio" / "halos.4rank.gio"))
    asked = []
    fs = fsspec.filesystem("file")
    plain = type(fs).cat_ranges

    def spy(self, paths, starts, ends, **options):
        asked.extend(zip(starts, ends, strict=True))
        return plain(self, paths, starts, ends, **options)

    monkeypatch.setattr(type(fs), "cat_ranges", spy)
    names = ["fof_halo_center_x", "fof_halo_center_y", "fof_halo_mean_vz"]
    gio.read(names, blocks=[0, 2])
    assert len(asked) == 4  # x and y of a block lie side by side
    assert sum(b - a for a, b in asked) == gio.stored_bytes(names, [0, 2]) == 3 * (4 * (3018 + 2449) + 16)
    asked.clear()
    gio.read(["fof_halo_mass"], blocks=[1], rows=(100, 200))
    assert sum(b - a for a, b in asked) == 400
    asked.clear()
    gio.read()
    assert len(asked) == 1  # the whole file, header apart, is one run of bytes
    assert asked[0][1] - asked[0][0] == gio.stored_bytes() == gio.nbytes - 2888


def test_large_reads_come_in_batches(monkeypatch):
    for limits in ((30_000, 30_000), (100, 100), (500_000, 30_000)):
        monkeypatch.setattr("velfield.catalogues.genericio_read.BATCH", limits[0])
        monkeypatch.setattr("velfield.catalogues.genericio_read.RANGE", limits[1])
        same(genericio.open(str(DATA / "genericio" / "halos.split.gio")).read(), reference("halos.split.gio"))


# ------------------------------------------------------------------------------------------ damage

FILES = {
    "raw": craft([raw(table(20, 1)), raw(table(9, 2))], COLUMNS, dims=(1, 1, 2)),
    "packed": craft([raw(table(80, 1)), raw(table(9, 2))], COLUMNS, dims=(1, 1, 2), filters=b"BLOSC"),
}


def memory_file(data):
    fsspec.filesystem("memory").pipe_file("/damage.gio", data)
    return "memory://damage.gio"


@pytest.mark.parametrize("kind", FILES)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_is_noticed(kind, where, bit):
    """Each byte of a file is under some CRC, the CRCs too."""
    data = bytearray(FILES[kind])
    data[int(where * len(data))] ^= 1 << bit
    with pytest.raises(CatalogueError, match=r"file=memory://damage\.gio"):
        genericio.open(memory_file(bytes(data))).read()


@pytest.mark.parametrize("kind", FILES)
@given(where=st.floats(0, 1, exclude_max=True))
@settings(max_examples=150, deadline=None)
def test_any_truncation_is_noticed_on_opening(kind, where):
    data = FILES[kind]
    with pytest.raises(CatalogueError, match=r"truncated|not a GenericIO file"):
        genericio.open(memory_file(data[: int(where * len(data))]))


@pytest.mark.parametrize("kind", FILES)
@given(
    field=st.floats(0, 1, exclude_max=True),
    value=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 64).map(lambda n: 2**n), st.integers(0, 400)),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_absurd_headers_cost_nothing(kind, field, value):
    """Any field of the header, with a CRC that fits: either it reads or it is refused, in little memory."""
    data = FILES[kind]
    size = struct.unpack_from("<Q", data, 8)[0]
    at = 8 * int(field * (size // 8))
    head = bytearray(data[:size])
    head[at : at + 8] = struct.pack("<Q", value & (2**64 - 1))
    size = min(struct.unpack_from("<Q", head, 8)[0], size)  # the CRC goes where the header says it ends
    url = memory_file(sealed(bytes(head[:size])) + data[size + 8 :])
    tracemalloc.start()
    try:
        gio = genericio.open(url)
        gio.read()
    except CatalogueError as error:
        assert "memory://damage.gio" in str(error)  # noqa: PT017 - reading well is an answer too
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 2**20  # bytes; the file has some 4,000


def test_wide_column_is_refused_before_memory_is_asked_for(tmp_path):
    data = bytearray(craft([raw(table(80))], COLUMNS, filters=b"BLOSC"))
    struct.pack_into("<2Q", data, 168 + 264, 2**24, 2**24)  # 16 MiB a row of the first column
    size = struct.unpack_from("<Q", data, 8)[0]
    gio = genericio.open(written(tmp_path, sealed(bytes(data[:size])) + data[size + 8 :]))
    tracemalloc.start()
    with pytest.raises(
        CatalogueError, match=r"does not fit its rows: .*rank=0, column=m, bytes=320, expected=13421772"
    ):
        gio.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23  # bytes
    gio.read(["n"])


@pytest.mark.parametrize(("at", "size"), [(56, 275), (80, 41)])
def test_field_that_does_not_fit_its_record_is_not_there(tmp_path, at, size):
    data = bytearray(craft([], COLUMNS))
    struct.pack_into("<Q", data, at, size)
    end = struct.unpack_from("<Q", data, 8)[0]
    if at == 80:
        assert genericio.open(written(tmp_path, sealed(bytes(data[:end])))).nrows == 0
    else:  # the names are cut in the wrong places
        with pytest.raises(CatalogueError, match=r"impossible size|same name"):
            genericio.open(written(tmp_path, sealed(bytes(data[:end]))))


def test_very_compressible_column_reads(tmp_path):
    """A thousandfold smaller, as flags that are all 0 are: asked about, and read."""
    values = {"mask": np.zeros(200_000, "u2")}
    columns = [(b"mask", 0, 2, 2)]
    gio = genericio.open(written(tmp_path, craft([raw(values)], columns, filters=b"BLOSC", codec="zstd")))
    assert gio.stored_bytes() < 400_000 / 256
    same(gio.read(), values)


def test_record_of_impossible_size(tmp_path):
    """No ranks, so no bytes are wanted, but each would have 2⁶³."""
    data = bytearray(craft([], COLUMNS))
    struct.pack_into("<Q", data, 80, 2**63)
    size = struct.unpack_from("<Q", data, 8)[0]
    with pytest.raises(
        CatalogueError, match=r"header is inconsistent: file=.*, table=ranks, start=.*, record_bytes=9223"
    ):
        genericio.open(written(tmp_path, sealed(bytes(data[:size]))))


def test_flipped_bit_names_file_rank_and_column(tmp_path):
    data = bytearray((DATA / "genericio" / "halos.4rank.gio").read_bytes())
    data[135752 + 8 * 2771 + 8 + 100] ^= 1  # second column of rank 1
    url = written(tmp_path, bytes(data), "halos.gio")
    gio = genericio.open(url)
    gio.read(["fof_halo_tag"])
    gio.read(["fof_halo_count"], blocks=[0, 2, 3])
    message = (
        r"data are damaged, their CRC does not match: file=.*halos\.gio, rank=1, column=fof_halo_count; "
        r"copy the file again"
    )
    with pytest.raises(CatalogueError, match=message):
        gio.read()
    gio.read(check=False)


def test_flipped_bit_in_the_header(tmp_path):
    data = bytearray((DATA / "genericio" / "halos.4rank.gio").read_bytes())
    data[1000] ^= 4
    with pytest.raises(CatalogueError, match=r"header is damaged, its CRC does not match: file=.*halos\.gio; copy"):
        genericio.open(written(tmp_path, bytes(data), "halos.gio"))


def test_truncated_file_names_rank_and_column(tmp_path):
    data = (DATA / "genericio" / "halos.4rank.gio").read_bytes()
    with pytest.raises(
        CatalogueError,
        match=r"file is truncated: file=.*h\.gio, rank=3, column=fof_halo_mean_vz, needs_bytes=443484, file_bytes=4434",
    ):
        genericio.open(written(tmp_path, data[:-1], "h.gio"))
    with pytest.raises(CatalogueError, match=r"header is truncated or damaged: .*header_bytes=2888, file_bytes=2000"):
        genericio.open(written(tmp_path, data[:2000], "h.gio"))


def test_file_that_shrinks_after_opening(tmp_path):
    url = written(tmp_path, FILES["raw"])
    gio = genericio.open(url)
    Path(url).write_bytes(FILES["raw"][:-20])
    with pytest.raises(CatalogueError, match=r"file has become shorter: file=.*, rank=1, column=n; copy"):
        gio.read()


def test_missing_sub_file(tmp_path):
    for name in ("halos.split.gio", "halos.split.gio#7"):
        shutil.copy(DATA / "genericio" / name, tmp_path)
    with pytest.raises(CatalogueError, match=r"no such file: file=.*halos\.split\.gio#130; check the path, and copy"):
        genericio.open(str(tmp_path / "halos.split.gio"))


def test_sub_file_of_another_run(tmp_path):
    shutil.copy(DATA / "genericio" / "halos.split.gio", tmp_path)
    shutil.copy(DATA / "genericio" / "halos.split.gio#7", tmp_path)
    shutil.copy(DATA / "genericio" / "halos.split.gio#7", tmp_path / "halos.split.gio#130")
    with pytest.raises(CatalogueError, match=r"do not belong together: map=.*, file=.*#130, ranks_in_map=2, ranks_in_"):
        genericio.open(str(tmp_path / "halos.split.gio"))
    shutil.copy(DATA / "genericio" / "particles.split.blosc.gio#130", tmp_path / "halos.split.gio#130")
    with pytest.raises(
        CatalogueError, match=r"sub-files differ in columns, ranks or box: file=.*#130, other=.*#7; copy"
    ):
        genericio.open(str(tmp_path / "halos.split.gio"))


def test_rank_twice(tmp_path):
    data = craft([raw(table(3)), raw(table(3))], COLUMNS, dims=(1, 1, 2), numbers=[1, 1])
    with pytest.raises(CatalogueError, match=r"a rank occurs twice: file=.*, rank=1; copy"):
        genericio.open(written(tmp_path, data))


def test_unknown_filter(tmp_path):
    data = craft([raw(table(30))], COLUMNS, filters=b"ZFP")
    with pytest.raises(
        CatalogueError, match=r"unknown filter: file=.*, rank=0 of the file, column=m, filter=ZFP; only"
    ):
        genericio.open(written(tmp_path, data))


def test_names_of_the_files_own_are_spelled_out(tmp_path):
    """A new line or an escape sequence in a damaged name would tear the message apart, or the terminal."""
    data = craft([raw(table(30))], COLUMNS, filters=b"Z\nP\x1b")
    with pytest.raises(CatalogueError, match=r"column=m, filter=Z\\nP\\x1b; only"):
        genericio.open(written(tmp_path, data))
    data = craft([raw(table(30))], [(b"m\n\x1b[2J", *COLUMNS[0][1:]), *COLUMNS[1:]])
    gio = genericio.open(written(tmp_path, data))
    assert list(gio.columns) == ["m\\n\\x1b[2J", "p", "n"]
    np.testing.assert_array_equal(gio.read(["m\\n\\x1b[2J"])["m\\n\\x1b[2J"], table(30)["m"])


@pytest.mark.parametrize(
    ("column", "said"),
    [((b"$partition", 2, 4, 2), "type=int16, components=2"), ((b"$partition", 1, 4, 4), "type=float32")],
)
def test_rank_map_without_whole_numbers(tmp_path, column, said):
    data = craft([[np.arange(3, dtype="i4").tobytes(), bytes(12)]], [(b"$rank", 2, 4, 4), column])
    with pytest.raises(CatalogueError, match=rf"rank map with other .*column=\$partition, {said}"):
        genericio.open(written(tmp_path, data))


def test_not_genericio(tmp_path):
    for data in (b"", b"short", b"PAR1" * 50):
        with pytest.raises(CatalogueError, match=r"not a GenericIO file: file=.*, first_bytes=b'.*'; a GenericIO file"):
            genericio.open(written(tmp_path, data))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CatalogueError, match=r"no such file: file=.*nothing; check the path"):
        genericio.open(str(tmp_path / "nothing"))
    with pytest.raises(CatalogueError, match=r"file cannot be read: file=.*, reason=.*; check path and permissions"):
        genericio.open(str(tmp_path))


def test_unknown_column_and_block():
    gio = genericio.open(str(DATA / "genericio" / "particles.1rank.gio"))
    with pytest.raises(CatalogueError, match=r"no such column: file=.*, column=mass; the file has x, y, z, vx, vy, vz"):
        gio.read(["x", "mass"])
    with pytest.raises(CatalogueError, match=r"no such block: file=.*, block=1; the file has blocks 0 to 0"):
        gio.read(blocks=[1])


def test_packed_block_that_does_not_fit(tmp_path):
    """A sound CRC over a buffer of the wrong length: refused before anything is unpacked."""
    url = written(tmp_path, craft([raw(table(30))], COLUMNS, filters=b"BLOSC"))
    gio = genericio.open(url)
    data = bytearray(Path(url).read_bytes())
    start, size = int(gio.headers[0].starts[0, 0]), int(gio.headers[0].sizes[0, 0])
    struct.pack_into("<I", data, start + 8 + 4, 2**31 - 1)
    data[start : start + size + 8] = sealed(bytes(data[start : start + size]))
    Path(url).write_bytes(data)
    with pytest.raises(
        CatalogueError, match=r"does not fit its rows: .*column=m, bytes=2147483647, expected=120; make"
    ):
        gio.read()


# ------------------------------------------------------------------------------------------ opening again


def test_open_again_reads_unchanged_headers_once(tmp_path):
    import os
    import time

    url = written(tmp_path, FILES["raw"])
    old = time.time() - 3600
    os.utime(url, (old, old))
    first = genericio.open_again(url)
    assert genericio.open_again(url) is first
    Path(url).write_bytes(craft([raw(table(4, 5))], COLUMNS))
    assert genericio.open_again(url).nrows == 4
    Path(url).write_bytes(craft([raw(table(4, 6))], COLUMNS))  # the same size, in the same tick of the clock
    same(genericio.open_again(url).read(), table(4, 6))


def test_open_again_notices_a_changed_sub_file(tmp_path):
    import os

    for path in (DATA / "genericio").glob("halos.split.gio*"):
        shutil.copy(path, tmp_path)
        os.utime(tmp_path / path.name, (1e9, 1e9))
    url = str(tmp_path / "halos.split.gio")
    first = genericio.open_again(url)
    assert genericio.open_again(url) is first
    (tmp_path / "halos.split.gio#7").unlink()
    with pytest.raises(CatalogueError, match=r"no such file: file=.*#7"):
        genericio.open_again(url)


# ------------------------------------------------------------------------------------------ writing


def mock_ranks(name):
    gio = genericio.open(str(DATA / "mock-outer-rim" / name))
    return gio, [gio.read(blocks=[b.index]) for b in gio.blocks]


def test_writes_the_bytes_of_the_reference_writer(tmp_path):
    gio, ranks = mock_ranks("m000-499.fofproperties")
    made = genericio.write(
        str(tmp_path / "sub" / "m000-499.fofproperties"), iter(ranks), dims=(2, 2, 2), boxsize=512.0, partitions=3
    )
    for url, original in zip(made, [*gio.files[1:], gio.files[0]], strict=True):
        assert Path(url).read_bytes() == Path(original).read_bytes()
    assert len(list((tmp_path / "sub").iterdir())) == 4


def test_writes_one_plain_file_as_the_reference_writer(tmp_path):
    sample = DATA / "genericio" / "halos.4rank.empty.gio"
    gio = genericio.open(str(sample))
    ranks = [gio.read(blocks=[b.index]) for b in gio.blocks]
    assert genericio.write(str(tmp_path / "h"), ranks, dims=(2, 2, 1), boxsize=256.0) == (str(tmp_path / "h"),)
    assert (tmp_path / "h").read_bytes() == sample.read_bytes()


def test_packs_what_gets_smaller(tmp_path):
    gio, ranks = mock_ranks("m000.mpicosmo.499")
    genericio.write(str(tmp_path / "p"), ranks, dims=(2, 2, 2), boxsize=512.0, partitions=3, compress=True)
    found = genericio.open(str(tmp_path / "p"))
    same(found.read(), gio.read())
    assert found.columns == gio.columns
    # the reference packs the same columns with an older blosc: the sizes agree to a few percent
    assert found.nbytes == pytest.approx(gio.nbytes, rel=0.05)
    noise = {"x": np.random.default_rng(1).bytes(4000)}
    genericio.write(
        str(tmp_path / "n"), [{"x": np.frombuffer(noise["x"], "<u4")}], dims=(1, 1, 1), boxsize=1.0, compress=True
    )
    assert not genericio.open(str(tmp_path / "n")).headers[0].compressed.any()


DTYPES = st.sampled_from([np.dtype(t) for t in ("i1", "u2", "<i4", ">i8", "u8", "<f4", ">f4", "f8")])


@given(
    dims=st.tuples(*[st.integers(1, 2)] * 3),
    dtypes=st.lists(st.tuples(DTYPES, st.integers(1, 3)), min_size=1, max_size=4),
    partitions=st.integers(0, 3),
    compress=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(dims, dtypes, partitions, compress, seed):
    rng = np.random.default_rng(seed)
    ranks = []
    for _ in range(int(np.prod(dims))):
        rows = int(rng.integers(0, 40))
        shapes = [(rows, n) if n > 1 else rows for _, n in dtypes]
        ranks.append(
            {
                f"c{i}": rng.integers(0, 99, shape).astype(d)
                for i, ((d, _), shape) in enumerate(zip(dtypes, shapes, strict=True))
            }
        )
    partitions = min(partitions, len(ranks))
    url = "memory://written.gio"
    genericio.write(url, iter(ranks), dims=dims, boxsize=10.0, partitions=partitions, compress=compress)
    gio = genericio.open(url)
    expected = {k: np.concatenate([r[k] for r in ranks]) for k in ranks[0]}
    same(gio.read(), {k: v.astype(v.dtype.newbyteorder("=")) for k, v in expected.items()})
    assert len(gio.files) == partitions + 1
    assert (gio.dims, gio.boxsize) == (dims, 10.0)
    for block, coords in zip(gio.blocks, np.ndindex(*dims), strict=True):
        if partitions or dims[0] == 1 or dims[1:] != (1, 1):
            np.testing.assert_allclose(block.lower, np.array(coords) * 10.0 / dims, rtol=1e-15)  # one rounding


def test_origin_and_position_flags(tmp_path):
    values = {"x": np.zeros(3, "f4"), "fof_halo_center_z": np.zeros(3, "f4"), "q": np.zeros(3, "f4")}
    url = str(tmp_path / "f")
    genericio.write(url, [values], dims=(1, 1, 1), boxsize=5.0, origin=(1.0, 2.0, 3.0))
    gio = genericio.open(url)
    assert (gio.origin, gio.blocks[0].upper) == ((1.0, 2.0, 3.0), (6.0, 7.0, 8.0))
    assert {k: c.flags for k, c in gio.columns.items()} == {"x": 7, "fof_halo_center_z": 19, "q": 3}
    genericio.write(url, [values], dims=(1, 1, 1), boxsize=5.0, positions={"q": 1})
    assert {k: c.flags for k, c in genericio.open(url).columns.items()} == {"x": 3, "fof_halo_center_z": 3, "q": 11}


def test_one_rank_in_memory(tmp_path):
    rows = 200_000

    def ranks():
        for i in range(8):
            yield {"x": np.full(rows, i, "f8")}

    tracemalloc.start()
    genericio.write(str(tmp_path / "f"), ranks(), dims=(2, 2, 2), boxsize=1.0, partitions=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * rows * 8  # bytes: the rank at hand, the one before it until it is dropped, and small change


def test_interrupted_writing_leaves_what_was_there(tmp_path):
    url = str(tmp_path / "c")
    genericio.write(url, [table(5)], dims=(1, 1, 1), boxsize=1.0, partitions=1)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken():
        yield table(9)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        genericio.write(url, broken(), dims=(1, 1, 2), boxsize=1.0, partitions=2)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert set(before) == {"c", "c#0"}


@pytest.mark.parametrize(
    ("ranks", "options", "message"),
    [
        ([table(3)], {"dims": (1, 1, 2)}, r"wrong number of ranks: file=.*, ranks=1, expected=2; dims"),
        ([table(3)] * 3, {"dims": (1, 1, 2)}, r"wrong number of ranks: file=.*, ranks=3, expected=2; dims"),
        ([], {}, r"wrong number of ranks: file=.*, ranks=0, expected=1"),
        (
            [table(3), {"m": np.zeros(3)}],
            {"dims": (1, 1, 2)},
            r"does not fit the ranks before it: file=.*, rank=1, rows=\[3\]",
        ),
        ([{"a": np.zeros(3), "b": np.zeros(4)}], {}, r"does not fit .* rank=0, rows=\[3, 4\], columns=a, b; all ranks"),
        (
            [{"a": np.array(["s"])}],
            {},
            r"column cannot be written: file=.*, column=a, dtype=<U1, shape=\(1,\); columns are",
        ),
        ([{"a": np.zeros(3, "f2")}], {}, r"column cannot be written: .*dtype=float16"),
        ([{"a" * 256: np.zeros(3)}], {}, r"column cannot be written"),
        ([table(3)], {"partitions": 2}, r"no such layout: dims=\(1, 1, 1\), partitions=2, boxsize=1.0; dims"),
        ([table(3)], {"boxsize": 0.0}, r"no such layout: .*boxsize=0.0"),
    ],
)
def test_what_cannot_be_written(tmp_path, ranks, options, message):
    with pytest.raises(VelfieldError, match=message):
        genericio.write(str(tmp_path / "f"), ranks, **{"dims": (1, 1, 1), "boxsize": 1.0, **options})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_replaced(tmp_path):
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(CatalogueError, match=r"a folder stands where the file should be: file=.*; choose another name"):
        genericio.write(str(tmp_path), [table(3)], dims=(1, 1, 1), boxsize=1.0, partitions=1)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


# ------------------------------------------------------------------------------------------ fingerprint, web


def test_fingerprint_follows_the_values_not_the_place(tmp_path):
    gio, ranks = mock_ranks("m000-499.fofproperties")
    url = str(tmp_path / "moved")
    genericio.write(url, ranks, dims=(2, 2, 2), boxsize=512.0, partitions=3)
    assert genericio.open(url).fingerprint() == gio.fingerprint()
    assert len(gio.fingerprint()) == 64
    ranks[7]["fof_halo_mean_vx"] = ranks[7]["fof_halo_mean_vx"] + np.float32(1)
    genericio.write(url, ranks, dims=(2, 2, 2), boxsize=512.0, partitions=3)
    assert genericio.open(url).fingerprint() != gio.fingerprint()
    json.dumps(gio.fingerprint())


def test_reads_over_http():
    """A bare # would end the address: sub-files are asked for as %23n."""
    import re
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.parse import unquote

    class Ranges(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.reply(body=False)

        def do_GET(self):
            self.reply(body=True)

        def reply(self, *, body):
            path = DATA / "genericio" / unquote(self.path).lstrip("/")
            data = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = (
                (int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)) if wanted else (0, len(data) - 1)
            )
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.end_headers()
            if body:
                self.wfile.write(data[first : last + 1])

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            gio = genericio.open(f"http://127.0.0.1:{server.server_port}/halos.split.gio")
            same(gio.read(), reference("halos.split.gio"))
            assert gio.files[1].endswith("%237")
        finally:
            server.shutdown()


# ------------------------------------------------------------------------------------------------ ranges of rows


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("rows", [997, 4999, 10**6])
def test_a_block_in_ranges_is_the_block(name, rows):
    gio = genericio.open(str(DATA / "genericio" / name))
    block = max(gio.blocks, key=lambda b: b.nrows).index
    parts = list(gio.chunks(None, block, rows))
    assert [len(next(iter(p.values()))) for p in parts] == [
        min(rows, gio.blocks[block].nrows - start) for start in range(0, gio.blocks[block].nrows, rows)
    ]
    same({n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, gio.read(blocks=[block]))


def test_ranges_of_an_empty_block():
    gio = genericio.open(str(next(p for p in (DATA / "genericio").glob("*empty*.gio"))))
    empty = next(b.index for b in gio.blocks if b.nrows == 0)
    assert sum(len(next(iter(p.values()))) for p in gio.chunks(None, empty, 100)) == 0


def test_damage_in_ranges_comes_with_the_last(tmp_path):
    gio = genericio.open(str(DATA / "genericio" / "halos.1rank.gio"))
    data = bytearray((DATA / "genericio" / "halos.1rank.gio").read_bytes())
    v, column = 2, list(gio.columns)[2]
    data[int(gio.headers[0].starts[0, v]) + 8] ^= 4
    (tmp_path / "f").write_bytes(data)
    gio = genericio.open(str(tmp_path / "f"))
    parts = gio.chunks([column], 0, 1000)
    for _ in range(-(-gio.blocks[0].nrows // 1000) - 1):
        next(parts)
    with pytest.raises(DamagedError, match=f"file={tmp_path}/f, rank=0, column={column}"):
        next(parts)


@pytest.mark.parametrize("compress", [False, True])
def test_ranges_hold_what_they_say(tmp_path, compress):
    rng = np.random.default_rng(0)
    table = {n: np.round(rng.normal(size=300_000), 2).astype("f4") for n in "abcdef"}
    url = str(tmp_path / "f")
    genericio.write(url, [table], dims=(1, 1, 1), boxsize=1.0, compress=compress)
    gio = genericio.open(url)
    names = list("abcde")
    list(gio.chunks(names, 0, 10_000))  # compiled, imported
    tracemalloc.start()
    for part in gio.chunks(names, 0, 10_000):
        assert len(part["a"]) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= gio.chunk_bytes(names, 10_000) + 2**20
    if not compress:
        assert gio.chunk_bytes(names, 10_000) < 0.1 * gio.chunk_bytes(names, 300_000)
