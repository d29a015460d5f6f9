"""Tables of positions answered: every column stays, in every format, and what cannot be done is said in a line."""

import csv
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from test_queries import OBSERVER, linear, observed
from velocity_stores import in_memory, written

from velfield.answers import query_table as module
from velfield.answers.queries import GOOD, query
from velfield.answers.query_table import query_table
from velfield.catalogues import table_text
from velfield.commands.cli import main
from velfield.errors import CatalogueError, StorageError, StoreError, VelfieldError

POS = np.array([[20.0, 30, 40], [np.nan, 30, 40], [60.0, 61, 62], [-5.0, 30, 40]])
NAMES = ["name", "ID", "x", "note, free", "y", "z", "w"]


def text_table(path, delimiter=",", end=".csv"):
    file = path / f"in{end}"
    with open(file, "w", newline="") as out:
        out.write("# made by hand\n")
        rows = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        rows.writerow(NAMES)
        for i, (x, y, z) in enumerate(POS):
            rows.writerow([f'NGC "{i}"', 2**60 + i, "" if np.isnan(x) else str(x), "a;b", y, z, 0.1 * i])
    return str(file)


def rows_in_arrow(**columns):
    made = pa.table(
        {
            "name": ["a", None, "c", "d"],
            "ID": pa.array([2**60, 1, None, 3], pa.int64()),
            "x": pa.array([20.0, None, 60, -5]),
            "y": POS[:, 1].astype("f4"),
            "z": pa.array(POS[:, 2].astype("i4")),
            "tags": [[1], [], [2, 3], [4]],
            **columns,
        }
    )
    return made.replace_schema_metadata({"survey": "mine"})


def parquet_table(path, **columns):
    pq.write_table(rows_in_arrow(**columns), path / "in.parquet", row_group_size=3)
    return str(path / "in.parquet")


def arrow_table(path, compression=None, **columns):
    made = rows_in_arrow(**columns)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path / "in.arrow"), "wb") as file, pa.ipc.new_stream(file, made.schema, options=options) as out:
        out.write_table(made, max_chunksize=3)
    return str(path / "in.arrow")


def stream_of(file):
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return stream.read_all()


def fits_table(path, units=("", "", "")):
    columns = [
        fits.Column("name", "6A", array=["a", "b", "c", "d"]),
        fits.Column("ok", "L", array=[True, False, True, True]),
        fits.Column("ID", "J", bzero=2**31, array=np.array([1, 2**32 - 1, 3, 4], "u4")),
        *(
            fits.Column(n, "D", unit=u or None, array=POS[:, i])
            for i, (n, u) in enumerate(zip("xyz", units, strict=True))
        ),
        fits.Column("v3", "3E", array=np.arange(12.0).reshape(4, 3)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="GALS")
    table.header["SURVEY"] = "mine"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path / "in.fits", checksum=True)
    return str(path / "in.fits")


def hdf5_table(path, records=False, end=".h5"):
    columns = {
        "name": np.array([b"a", b"bb", "ç".encode(), b"d"]),
        "ID": 2**60 + np.arange(4),
        **{n: POS[:, i].astype(kind) for i, (n, kind) in enumerate(zip("xyz", (">f8", "f8", "f2"), strict=True))},
        "v3": np.arange(12.0).reshape(4, 3),
        "ok": np.array([True, False, True, True]),
    }
    with h5py.File(path / f"in{end}", "w") as root:
        root.attrs["survey"] = "mine"
        root["deep/other"] = np.arange(3)
        root["deep"].attrs["note"] = "kept"
        if records:
            made = np.zeros(4, [(name, v.dtype, v.shape[1:]) for name, v in columns.items()])
            for name, values in columns.items():
                made[name] = values
            root["deep"].create_dataset("gals", data=made, chunks=(3,), compression="gzip")
        else:
            for name, values in columns.items():
                root[f"deep/gals/{name}"] = values
            root["deep/gals/x"].attrs["unit"] = "Mpc/h"
            root["deep/gals/label"] = [f"ä{i}" for i in range(4)]
        root["deep/gals"].attrs["made"] = "by hand"
    return str(path / f"in{end}")


def rows_of(file):
    with open(file, newline="") as lines:
        return list(csv.reader(line for line in lines if not line.startswith("#")))


def check_numbers(vx, vy, flag):
    expected = linear(POS.T)
    assert_allclose(vx[[0, 2]], expected[0, [0, 2]], rtol=1e-5)
    assert_allclose(vy[[0, 2]], expected[1, [0, 2]], rtol=1e-5)
    assert np.isnan(vx[[1, 3]]).all()
    assert_array_equal(flag, [0, 16, 0, 1])


@pytest.fixture(scope="module")
def ds():
    return in_memory(linear, periodic=False)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_text_stays_as_it_is(ds, tmp_path, delimiter):
    table, out = text_table(tmp_path, delimiter), str(tmp_path / "out.csv")
    assert query_table(ds, table, out)[GOOD] == 2
    before, after = (Path(file).read_text().splitlines() for file in (table, out))
    assert [line[: len(first)] for line, first in zip(after, before, strict=True)] == before
    assert after[1] == delimiter.join([*before[1:2], "vx", "vy", "vz", "flag"])
    made = [line[len(first) + 1 :].split(delimiter) for line, first in zip(after[2:], before[2:], strict=True)]
    check_numbers(*(np.array([float(row[i]) for row in made]) for i in (0, 1, 3)))


def test_parquet_keeps_types_nulls_and_metadata(ds, tmp_path):
    table, out = parquet_table(tmp_path), str(tmp_path / "out.parquet")
    import pyarrow.parquet as pq

    assert query_table(ds, table, out, rows=2)[GOOD] == 2
    before, after = pq.read_table(table), pq.read_table(out)
    assert after.schema.names == [*before.schema.names, "vx", "vy", "vz", "flag"]
    assert after.select(before.schema.names).equals(before, check_metadata=True)
    assert after.schema.field("vx").metadata == {b"unit": b"km/s", b"description": b"proper peculiar velocity"}
    assert [str(after.schema.field(n).type) for n in ("vx", "flag")] == ["float", "uint8"]
    check_numbers(*(after[n].to_numpy() for n in ("vx", "vy", "flag")))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_stream_keeps_types_nulls_and_metadata(ds, tmp_path, compression):
    words = pa.array(["low", None, "high", "low"]).dictionary_encode()
    table, out = arrow_table(tmp_path, compression, words=words), str(tmp_path / "out.arrows")
    assert query_table(ds, table, out, rows=2)[GOOD] == 2
    before, after = stream_of(table), stream_of(out)
    assert after.schema.names == [*before.schema.names, "vx", "vy", "vz", "flag"]
    assert after.select(before.schema.names).equals(before, check_metadata=True)
    assert after.schema.field("vx").metadata == {b"unit": b"km/s", b"description": b"proper peculiar velocity"}
    assert [str(after.schema.field(n).type) for n in ("words", "vx", "flag")][1:] == ["float", "uint8"]
    check_numbers(*(after[n].to_numpy() for n in ("vx", "vy", "flag")))


def test_a_stream_becomes_another_format_and_back(ds, tmp_path):
    text_table(tmp_path)
    query_table(ds, str(tmp_path / "in.csv"), str(tmp_path / "a.arrow"))
    query_table(ds, str(tmp_path / "a.arrow"), str(tmp_path / "b.csv"), prefix="b_")
    assert [row[:2] for row in rows_of(tmp_path / "b.csv")][1:] == [row[:2] for row in rows_of(tmp_path / "in.csv")][1:]
    made = stream_of(tmp_path / "a.arrow")
    assert [str(made.schema.field(name).type) for name in ("name", "ID", "x")] == ["string", "int64", "double"]
    check_numbers(*(made[n].to_numpy() for n in ("vx", "vy", "flag")))
    with pytest.raises(CatalogueError, match=r"cannot be written in another format: .*column=ID, .*; .* with .arrow"):
        query_table(ds, arrow_table(tmp_path), str(tmp_path / "c.csv"))  # a number is missing, and there are lists


def test_mistakes_with_streams_are_said_in_a_line(ds, tmp_path):
    out = str(tmp_path / "o.arrow")
    whole = Path(arrow_table(tmp_path)).read_bytes()
    (tmp_path / "cut.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CatalogueError, match=r"file cannot be read as Arrow: file=.*cut.arrow, reason="):
        query_table(ds, str(tmp_path / "cut.arrow"), out)
    made = rows_in_arrow()
    with pa.OSFile(str(tmp_path / "f.arrow"), "wb") as file, pa.ipc.new_file(file, made.schema) as feather:
        feather.write_table(made)
    with pytest.raises(CatalogueError, match=r"Arrow's form with an end \(Feather\): file=.*f.arrow; write a stream"):
        query_table(ds, str(tmp_path / "f.arrow"), out)
    twice = pa.table([[1.0], [2.0], [3.0], [4.0]], names=["x", "y", "z", "x"])
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, twice.schema) as stream:
        stream.write_table(twice)
    with pytest.raises(CatalogueError, match=r"columns of one name: file=.*t.arrow, column=x; rename them"):
        query_table(ds, str(tmp_path / "t.arrow"), out)
    with pytest.raises(CatalogueError, match=r"not a single number a row: file=.*in.arrow, column=tags, type=list"):
        query_table(ds, str(tmp_path / "in.arrow"), out, columns=["x=tags"])
    assert not Path(out).exists()


def test_fits_keeps_types_units_and_header(ds, tmp_path):
    table, out = fits_table(tmp_path), str(tmp_path / "out.fits")
    from astropy.io import fits

    assert query_table(ds, table, out, rows=3)[GOOD] == 2
    with fits.open(table) as old, fits.open(out, checksum=True) as new:
        new.verify("exception")
        assert new[1].header["SURVEY"] == "mine"
        assert new[1].name == "GALS"
        assert new[1].columns.names == [*old[1].columns.names, "vx", "vy", "vz", "flag"]
        assert new[1].columns["vx"].unit == "km/s"
        for name in old[1].columns.names:
            assert_array_equal(new[1].data[name], old[1].data[name])
            assert new[1].columns[name].format == old[1].columns[name].format
        check_numbers(*(np.asarray(new[1].data[n], dtype=float) for n in ("vx", "vy", "flag")))


@pytest.mark.parametrize("records", [False, True])
def test_hdf5_keeps_all_that_is_in_the_file(ds, tmp_path, records):
    table, out = hdf5_table(tmp_path, records), str(tmp_path / "out.hdf5")
    assert query_table(ds, table, out, rows=3, extension="deep/gals" if records else None)[GOOD] == 2
    with h5py.File(table) as old, h5py.File(out) as new:
        assert dict(new.attrs) == {"survey": "mine"}
        assert dict(new["deep"].attrs) == {"note": "kept"}
        assert dict(new["deep/gals"].attrs) == {"made": "by hand"}
        assert_array_equal(new["deep/other"], old["deep/other"])
        before, after = old["deep/gals"], new["deep/gals"]
        names = list(before.dtype.names if records else before)
        assert set(after.dtype.names if records else after) == {*names, "vx", "vy", "vz", "flag"}
        for name in names:
            assert after[name].dtype == before[name].dtype
            assert_array_equal(after[name][:], before[name][:])
        if records:
            assert after.compression == "gzip"
        else:
            assert dict(after["x"].attrs) == {"unit": "Mpc/h"}
            assert dict(after["vx"].attrs) == {"unit": "km/s", "description": "proper peculiar velocity"}
        check_numbers(*(after[name][:] for name in ("vx", "vy", "flag")))


def test_hdf5_becomes_another_format_and_back(ds, tmp_path):
    query_table(ds, hdf5_table(tmp_path), str(tmp_path / "a.parquet"), rows=3)
    made = pq.read_table(tmp_path / "a.parquet")
    assert made["name"].to_pylist() == ["a", "bb", "ç", "d"]
    assert made["label"].to_pylist() == ["ä0", "ä1", "ä2", "ä3"]
    assert made["ID"].to_pylist() == [2**60 + i for i in range(4)]
    assert made["ok"].to_pylist() == [True, False, True, True]
    assert made.schema.field("x").metadata == {b"unit": b"Mpc/h"}
    query_table(ds, str(tmp_path / "a.parquet"), str(tmp_path / "b.h5"), prefix="b_", rows=3)
    with h5py.File(tmp_path / "b.h5") as back:
        assert list(back["label"].asstr()) == ["ä0", "ä1", "ä2", "ä3"]
        assert_array_equal(back["v3"], np.arange(12).reshape(4, 3))
        assert_array_equal(back["ok"], [True, False, True, True])
        check_numbers(*(back[name][:] for name in ("vx", "b_vy", "b_flag")))
    text_table(tmp_path)
    query_table(ds, str(tmp_path / "in.csv"), str(tmp_path / "c.h5"))
    query_table(ds, str(tmp_path / "c.h5"), str(tmp_path / "d.csv"), prefix="d_")
    assert [row[:2] for row in rows_of(tmp_path / "d.csv")][1:] == [row[:2] for row in rows_of(tmp_path / "in.csv")][1:]


def test_mistakes_with_hdf5_are_said_in_a_line(ds, tmp_path):
    table = hdf5_table(tmp_path)
    with pytest.raises(CatalogueError, match=r"not a single number a row: .*column=v3, type=.*; name another"):
        query_table(ds, table, str(tmp_path / "o.h5"), columns=["x=v3"])
    with pytest.raises(CatalogueError, match=r"which table is not clear: file=.*, table=halos, tables=deep/gals; name"):
        query_table(ds, table, str(tmp_path / "o.h5"), extension="halos")
    with h5py.File(table, "a") as root:
        root["deep/gals/complex"] = np.zeros(4, complex)
    with pytest.raises(CatalogueError, match=r"cannot be written in another format: .*column=complex, .*with .h5"):
        query_table(ds, table, str(tmp_path / "o.parquet"))
    with h5py.File(table, "a") as root:
        del root["deep/gals/complex"]
        lists = root["deep/gals"].create_dataset("lists", (4,), h5py.vlen_dtype(int))
        lists[0] = [1, 2]
    with pytest.raises(CatalogueError, match=r"cannot be written in another format: .*column=lists, .*with .h5"):
        query_table(ds, table, str(tmp_path / "o.parquet"))
    query_table(ds, table, str(tmp_path / "o.h5"))
    (tmp_path / "slash.csv").write_text("x,y,z,a/b\n1,2,3,4\n")
    with pytest.raises(CatalogueError, match=r"a name that HDF5 has not: file=.*slash.csv, column=a/b; rename it"):
        query_table(ds, str(tmp_path / "slash.csv"), str(tmp_path / "p.h5"))
    (tmp_path / "cut.h5").write_bytes(Path(table).read_bytes()[:3000])
    with pytest.raises(CatalogueError, match=r"file cannot be read as HDF5: file=.*cut.h5, reason="):
        query_table(ds, str(tmp_path / "cut.h5"), str(tmp_path / "p.h5"))
    assert {p.name for p in tmp_path.iterdir()} == {"in.h5", "o.h5", "slash.csv", "cut.h5"}


def test_one_format_becomes_another_with_its_types(ds, tmp_path):
    ways = [("in.csv", "a.parquet"), ("a.parquet", "b.fits"), ("b.fits", "c.parquet"), ("c.parquet", "d.csv")]
    text_table(tmp_path)
    for i, (table, out) in enumerate(ways):
        query_table(ds, str(tmp_path / table), str(tmp_path / out), prefix="abcd"[i] + "_", rows=3)
    first, last = pq.read_table(tmp_path / "a.parquet"), pq.read_table(tmp_path / "c.parquet")
    kinds = dict(zip(first.schema.names, map(str, first.schema.types), strict=True))
    assert [kinds[name] for name in NAMES] == ["string", "int64", "double", "string", "double", "double", "double"]
    assert [kinds[n] for n in ("a_vx", "a_flag")] == ["float", "uint8"]
    for name in first.schema.names:
        assert_array_equal(first[name].to_numpy(), last[name].to_numpy())
        assert first.schema.field(name).type == last.schema.field(name).type
    with fits.open(tmp_path / "b.fits") as hdus:
        hdus.verify("exception")
        assert_array_equal(hdus[1].data["ID"], 2**60 + np.arange(4))
    # text again, with the digits that bring the numbers back; units stay with the names
    original, rows = rows_of(tmp_path / "in.csv"), rows_of(tmp_path / "d.csv")
    assert rows[0][:8] == [*NAMES, "a_vx [km/s]"]
    for old, new in zip(original[1:], rows[1:], strict=True):
        assert old[:2] == new[:2]
        assert_array_equal([float(o or "nan") for o in (*old[2:3], *old[4:])], [float(n) for n in (new[2], *new[4:7])])
    fits_table(tmp_path)
    query_table(ds, str(tmp_path / "in.fits"), str(tmp_path / "e.parquet"))
    made = pq.read_table(tmp_path / "e.parquet")
    assert made["ID"].to_pylist() == [1, 2**32 - 1, 3, 4]
    assert made["ok"].to_pylist() == [True, False, True, True]
    query_table(ds, str(tmp_path / "e.parquet"), str(tmp_path / "e.fits"), prefix="n")
    with fits.open(tmp_path / "e.fits") as new, fits.open(tmp_path / "in.fits") as old:
        for name in old[1].columns.names:
            assert_array_equal(new[1].data[name], old[1].data[name])


def test_parts_give_the_same_table(ds, tmp_path):
    table = text_table(tmp_path)
    for rows in (1, 3, 1000):
        query_table(ds, table, str(tmp_path / f"{rows}.csv"), rows=rows)
    assert (
        (tmp_path / "1.csv").read_bytes() == (tmp_path / "3.csv").read_bytes() == (tmp_path / "1000.csv").read_bytes()
    )


def test_units_and_names_of_columns(ds, tmp_path):
    table = fits_table(tmp_path, units=("kpc", "", "Mpc/h"))
    with fits.open(table) as hdus:
        hdus[1].data["x"] *= 1000 / 0.71
        hdus[1].columns.change_name("x", "X_POS")
        hdus.writeto(tmp_path / "renamed.fits")
    counts = query_table(ds, str(tmp_path / "renamed.fits"), str(tmp_path / "o.fits"), columns=["x=X_POS"])
    assert counts[GOOD] == 2
    with fits.open(tmp_path / "o.fits") as hdus:
        check_numbers(*(np.asarray(hdus[1].data[n], dtype=float) for n in ("vx", "vy", "flag")))
    (tmp_path / "u.csv").write_text("a [kpc/h],b,c\n20000,30,40\n")
    query_table(ds, str(tmp_path / "u.csv"), str(tmp_path / "u1.csv"), columns={"x": "a", "y": "b", "z": "c [Mpc/h]"})
    assert rows_of(tmp_path / "u1.csv")[0] == ["a [kpc/h]", "b", "c", "vx", "vy", "vz", "flag"]
    assert_allclose(float(rows_of(tmp_path / "u1.csv")[1][3]), linear(POS[0])[0], rtol=1e-6)


def test_the_sky_from_the_command_line(tmp_path, capsys):
    url = written(str(tmp_path / "v.zarr"), linear, std=30.0, **observed())
    (tmp_path / "sky.csv").write_text("ra,dec,cz\n10,20,0.005\n10,95,0.005\n200,10,0.004\n0,0,0.3\n")
    command = ["query", url, str(tmp_path / "sky.csv"), str(tmp_path / "out.csv"), "--coordinates", "sky"]
    assert main([*command, "--space", "redshift", "--column", "z=cz"]) == 0
    said = capsys.readouterr()
    assert f"good velocities in 2 rows: {tmp_path / 'out.csv'}" in said.out
    assert "note: 1 rows: not a position" in said.err
    assert "note: 1 rows: outside the data" in said.err
    head, *rows = rows_of(tmp_path / "out.csv")
    added = ["vx", "vy", "vz", "std_x", "std_y", "std_z", "v_los", "x_real", "y_real", "z_real", "flag"]
    assert head == ["ra", "dec", "cz", *added]
    values = np.array([[float(v) for v in row[3:]] for row in rows])
    v, std, los, place = values[:, :3], values[:, 3:6], values[:, 6], values[:, 7:10]
    assert_allclose(std[[0, 2]], 30)
    assert_allclose(v[[0, 2]], linear(place[[0, 2]].T).T, rtol=1e-5)
    away = place - OBSERVER
    assert_allclose(los[[0, 2]], ((v * away).sum(1) / np.sqrt((away**2).sum(1)))[[0, 2]], rtol=1e-5)
    assert np.isnan(values[[1, 3], :7]).all()
    query_table(url, str(tmp_path / "sky.csv"), str(tmp_path / "real.csv"), coordinates="sky", columns={"z": "cz"})
    head, *rows = rows_of(tmp_path / "real.csv")  # from the sky the place in the parent is no column that was given
    assert head == ["ra", "dec", "cz", *added]
    place = np.array([[float(v) for v in row[10:13]] for row in rows])
    given = [[10, 20, 0.005], [10, 95, 0.005], [200, 10, 0.004], [0, 0, 0.3]]
    assert_allclose(place, query(url, given, coordinates="sky")["position"])


def test_a_unit_of_ours_in_the_letters_of_fits(ds, tmp_path):
    (tmp_path / "in.csv").write_text("x [h⁻¹Mpc],y,z,m [h⁻¹M⊙]\n20,30,40,5\n")
    query_table(ds, str(tmp_path / "in.csv"), str(tmp_path / "out.fits"))
    with fits.open(tmp_path / "out.fits") as hdus:
        units = dict(zip(hdus[1].columns.names, hdus[1].columns.units, strict=True))
    assert (units["x"], units["m"]) == ("h-1Mpc", "h-1Msun")
    # and it is read as the unit that it was
    query_table(ds, str(tmp_path / "out.fits"), str(tmp_path / "again.csv"), prefix="a")
    head, row = rows_of(tmp_path / "again.csv")
    assert row[head.index("avx")] == row[head.index("vx [km/s]")]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("x,y\n1,2\n3,4", 2),
        ("# c\r\nx,y\r\n1,2\r\n\r\n3,4\r\n", 2),
        ("x,y\n\n\n1,2\n\n", 1),
        ("\ufeffx,y", 0),
        ('x,y\n"1\n",2\n', None),
        ("x,y\r1,2\r", None),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 4096])
def test_rows_of_a_text_table_are_known_beforehand(tmp_path, monkeypatch, text, rows, piece):
    monkeypatch.setattr(table_text, "PIECE", piece)
    (tmp_path / "in.csv").write_bytes(text.encode())
    source = table_text.CSVRows(str(tmp_path / "in.csv"), typed=False)
    assert source.nrows == rows
    assert rows in (None, sum(len(part) for part in source.parts()))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i8", "u8", "?"])
def test_texts_bring_numbers_back(kind):
    rng = np.random.default_rng(3)
    wide = rng.standard_normal(500) * 10.0 ** rng.integers(*((-3, 4) if kind == "f2" else (-30, 18)), 500)
    values = np.concatenate([wide, [0, 1, np.nan, np.inf] if kind[0] == "f" else [0, 1]]).astype(kind)
    assert table_text.texts_of(values) == values.astype(str).tolist()


@pytest.mark.parametrize("end", ["csv", "parquet", "fits", "h5"])
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(ds, tmp_path, little_room, end):
    rows = np.random.default_rng(1).uniform(10, 110, (5000, 3))
    np.savetxt(tmp_path / "in.csv", rows, delimiter=",", header="x,y,z", comments="")
    out = str(tmp_path / f"out.{end}")
    with little_room(60_000), pytest.raises(OSError, match="File too large") as error:
        query_table(ds, str(tmp_path / "in.csv"), out)
    assert error.value.filename == out
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_an_interrupted_answer_leaves_nothing(ds, tmp_path, monkeypatch):
    table, out = text_table(tmp_path), tmp_path / "out.csv"
    asked = []

    def stop(*given, **how):
        asked.append(given)
        if len(asked) > 2:
            raise KeyboardInterrupt
        return original(*given, **how)

    original = module.answer
    monkeypatch.setattr(module, "answer", stop)
    with pytest.raises(KeyboardInterrupt):
        query_table(ds, table, str(out), rows=1)
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_what_is_there_is_replaced_only_on_request(ds, tmp_path):
    table, out = text_table(tmp_path), str(tmp_path / "out.csv")
    query_table(ds, table, out)
    with pytest.raises(VelfieldError, match=r"the file is there already: file=.*out.csv; name another, or .*overwrite"):
        query_table(ds, table, out)
    query_table(ds, table, out, overwrite=True, extrapolate=True)
    assert query_table(ds, table, table, overwrite=True)[GOOD] == 2
    assert rows_of(table)[0][-1] == "flag"


def test_mistakes_are_said_in_a_line(ds, tmp_path):
    table = text_table(tmp_path)
    out = str(tmp_path / "out.csv")

    def refuse(match, kind=CatalogueError, table=table, out=out, **how):
        with pytest.raises(kind, match=match) as error:
            query_table(ds, table, out, **how)
        assert "\n" not in str(error.value)

    has = "the table has name, ID, x, note, free, y, z, w"
    refuse(f"no such column: file=.*in.csv, column=RA, wanted for=x; {has}; say which it is .*x=NAME", columns=["x=RA"])
    refuse("no such name: column=ra, coordinates=box; the names to give are x y z", VelfieldError, columns=["ra=x"])
    refuse("not a name and a column: column='x'; write it as x=NAME", VelfieldError, columns=["x"])
    refuse("a name twice: columns=x=y, x=z; give each once", VelfieldError, columns=["x=y", "x=z"])
    refuse("no sky to look at", StoreError, coordinates="sky")
    refuse("no such form of a table: file=out.txt; let its name end with .csv, .parquet", VelfieldError, out="out.txt")
    refuse("the file holds one table only: .*table=GALS", VelfieldError, extension="GALS")
    refuse("no such file: file=.*none.csv", table=str(tmp_path / "none.csv"))
    (tmp_path / "sky.csv").write_text("ra,dec,z\n1,2,3\n")
    refuse("column=x, wanted for=x; .*; ra and dec need --coordinates sky", table=str(tmp_path / "sky.csv"))
    (tmp_path / "ragged.csv").write_text("x,y,z\n1,2,3\n1,2\n")
    refuse("a line with the wrong number of fields: .*line=3, fields=2, columns=3", table=str(tmp_path / "ragged.csv"))
    assert not (tmp_path / "out.csv").exists()
    (tmp_path / "twice.csv").write_text("x,x,z\n1,2,3\n")
    refuse("no line of names: file=.*twice.csv, line=1, found='x,x,z'", table=str(tmp_path / "twice.csv"))
    (tmp_path / "clash.csv").write_text("x,y,z,vx,flag\n1,2,3,4,5\n")
    refuse("the table has such columns already: .*columns=vx, flag; rename", table=str(tmp_path / "clash.csv"))
    query_table(ds, str(tmp_path / "clash.csv"), str(tmp_path / "p.csv"), prefix="new_")
    (tmp_path / "unit.csv").write_text("x [km/s],y,z\n1,2,3\n")
    refuse("not a unit of length: .*unit='km/s'", table=str(tmp_path / "unit.csv"))
    (tmp_path / "b.csv").write_bytes(b"HACC01L\0")
    refuse("header is truncated or damaged: file=.*b.csv", table=str(tmp_path / "b.csv"))
    (tmp_path / "b.csv").write_bytes(b"PK\3\4\0\0")
    refuse("not a table that is answered: file=.*b.csv; name one", table=str(tmp_path / "b.csv"))
    (tmp_path / "latin.csv").write_bytes(b"x,y,z\n1,2,\xe9\n")
    refuse("file cannot be read as CSV: file=.*latin.csv, reason=", table=str(tmp_path / "latin.csv"))
    refuse("no file system for this URL", StorageError, table="nowhere://x.csv")
    seen = in_memory(linear, **observed())
    (tmp_path / "angle.csv").write_text("ra [hours],dec,z\n1,2,0.1\n")
    with pytest.raises(CatalogueError, match=r"not a unit of angle: .*column=ra, unit='hours'; give degrees"):
        query_table(seen, str(tmp_path / "angle.csv"), out, coordinates="sky")


def test_what_a_format_does_not_have_is_said(ds, tmp_path):
    table = parquet_table(tmp_path)
    with pytest.raises(CatalogueError, match=r"cannot be written in another format: .*column=ID, .*missing=1; let"):
        query_table(ds, table, str(tmp_path / "out.csv"))
    with pytest.raises(CatalogueError, match=r"not a single number a row: .*column=name, type=string; name another"):
        query_table(ds, table, str(tmp_path / "o.parquet"), columns=["x=name"])
    with pytest.raises(CatalogueError, match=r"a column of vectors, which CSV has not: .*column=v3; let"):
        query_table(ds, fits_table(tmp_path), str(tmp_path / "out.csv"))
    (tmp_path / "greek.csv").write_text("x,y,z,name\n1,2,3,α\n")
    with pytest.raises(CatalogueError, match=r"a text with letters that FITS has not: .*column=name, text='α'; let"):
        query_table(ds, str(tmp_path / "greek.csv"), str(tmp_path / "out.fits"))
    (tmp_path / "names.csv").write_text("x [h⁻¹Mpc],y,z,α\n1,2,3,4\n")
    with pytest.raises(
        CatalogueError, match=r"a name or unit with letters that FITS has not: .*column='α', unit=''; re"
    ):
        query_table(ds, str(tmp_path / "names.csv"), str(tmp_path / "out.fits"))
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("end", [".csv", ".parquet", ".fits", ".h5", ".arrow"])
@pytest.mark.parametrize("odd", ["--5", "+-1", "1e", "9" * 400, "0x10", "", " ", "a\0b", "1_000"])
def test_a_column_that_is_not_wanted_never_stops_a_query(ds, tmp_path, odd, end):
    table = tmp_path / "in.csv"
    table.write_bytes(f"x,y,z,d\n1,2,3,{odd}\n4,5,6,7\n".encode())
    out = tmp_path / f"out{end}"
    with suppress(VelfieldError):  # what a format cannot hold is one line, and leaves nothing
        query_table(ds, str(table), str(out))
        assert out.stat().st_size
        return
    assert not out.exists()


@pytest.mark.parametrize("end", [".csv", ".fits", ".h5", ".arrow"])
def test_columns_of_one_name_are_one_line(ds, tmp_path, end):
    arrays = [pa.array(values) for values in (*POS.T, [1, 2, 3, 4], [5, 6, 7, 8])]
    pq.write_table(pa.Table.from_arrays(arrays, names=["x", "y", "z", "w", "w"]), tmp_path / "twice.parquet")
    out = tmp_path / f"out{end}"
    with pytest.raises(CatalogueError, match=r"columns of one name: file=.*twice.parquet, column=w; rename them"):
        query_table(ds, str(tmp_path / "twice.parquet"), str(out))
    assert not out.exists()
    query_table(ds, str(tmp_path / "twice.parquet"), str(tmp_path / "out.parquet"))  # which has them as they are
    assert pq.read_schema(tmp_path / "out.parquet").names[:5] == ["x", "y", "z", "w", "w"]
