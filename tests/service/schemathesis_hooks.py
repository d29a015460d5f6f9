"""Bodies for schemathesis, which does not know what an npz is: some that are cubes, some that are not."""

import io

import numpy as np
import schemathesis
from hypothesis import strategies as st


def packed(seed: int) -> bytes:
    rng, data = np.random.default_rng(seed), io.BytesIO()
    np.savez(data, halo_number=rng.poisson(2, (4, 4, 4)), halo_mass=rng.uniform(1e12, 1e13, (4, 4, 4)))
    return data.getvalue()


schemathesis.openapi.media_type("application/x-npz", st.integers(0, 5).map(packed) | st.binary(max_size=64))
schemathesis.openapi.media_type("application/x-netcdf", st.binary(max_size=64))
