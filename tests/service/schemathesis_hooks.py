"""Bodies for schemathesis, which does not know what an npz or a table is: some that are, some that are not."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import schemathesis
from astropy.io import fits
from hypothesis import strategies as st


def packed(seed: int) -> bytes:
    rng, data = np.random.default_rng(seed), io.BytesIO()
    np.savez(data, halo_number=rng.poisson(2, (4, 4, 4)), halo_mass=rng.uniform(1e12, 1e13, (4, 4, 4)))
    return data.getvalue()


def parquet() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table({name: [20.0, 30.0] for name in "xyz"}), data)
    return data.getvalue()


def arrow() -> bytes:
    data, table = io.BytesIO(), pa.table({name: [20.0, 30.0] for name in "xyz"})
    with pa.ipc.new_stream(data, table.schema) as stream:
        stream.write_table(table)
    return data.getvalue()


def fits_table() -> bytes:
    data = io.BytesIO()
    columns = [fits.Column(name, "D", array=np.array([20.0, 30.0])) for name in "xyz"]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(data)
    return data.getvalue()


def positions() -> bytes:
    data = io.BytesIO()
    np.savez(data, **{name: np.array([20.0, 30.0]) for name in "xyz"})
    return data.getvalue()


def one_of(*good: bytes) -> st.SearchStrategy:
    return st.sampled_from(good) | st.binary(min_size=1, max_size=64)


@schemathesis.serializer("text/csv")  # as the description has it: an example, or any text
def text(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


schemathesis.openapi.media_type("application/x-npz", one_of(*map(packed, range(6)), positions()))
schemathesis.openapi.media_type("application/vnd.apache.parquet", one_of(parquet()))
schemathesis.openapi.media_type("application/vnd.apache.arrow.stream", one_of(arrow()))
schemathesis.openapi.media_type("application/fits", one_of(fits_table()))
schemathesis.openapi.media_type("application/x-hdf5", one_of(b"\x89HDF\r\n\x1a\n"))
schemathesis.openapi.media_type("application/x-netcdf", st.binary(min_size=1, max_size=64))
