"""Stores in a bucket, asked from afar: only what positions touch is fetched, and answers go into the bucket whole."""

import numpy as np
from numpy.testing import assert_allclose
from test_queries import linear
from velocity_stores import written

import velfield as vf
from velfield.answers.export import bulk_flows, export
from velfield.answers.queries import GOOD
from velfield.answers.query_table import query_table
from velfield.files import storage


def test_a_query_fetches_the_boxes_that_it_touches(place, proxy):
    url = written(f"{place}/v.zarr", linear, boxes=3, cells=4)
    proxy.requests.clear()
    found = vf.query(url, [[20.0, 20, 20], [22.0, 20, 20], [20.0, 21, 20]])
    assert_allclose(found["velocity"][0], linear(np.array([20.0, 20, 20])), rtol=1e-6)
    fetched = [r for r in proxy.requests if "/v.zarr/velocity/c/" in r.path and r.status in (200, 206)]
    # the index of the shard and the one chunk
    assert len(fetched) <= 2
    assert sum(r.received for r in fetched) < 3 * 4 * 4**3 * 3


def test_tables_and_cubes_in_a_bucket(place):
    url = written(f"{place}/v.zarr", linear)
    storage.write_bytes(f"{place}/in.csv", b"x,y,z\n20,30,40\n")
    assert query_table(url, f"{place}/in.csv", f"{place}/out.csv")[GOOD] == 1
    head, row = storage.read_bytes(f"{place}/out.csv").decode().splitlines()
    assert head == "x,y,z,vx,vy,vz,flag"
    assert_allclose([float(v) for v in row.split(",")[3:6]], linear(np.array([20.0, 30, 40])), rtol=1e-6)
    bulk_flows(url, [[60, 60, 60, 30]], f"{place}/flow.csv")
    assert storage.read_bytes(f"{place}/flow.csv").startswith(b"x,y,z,radius,vx")
    export(url, f"{place}/v.fits")
    assert storage.sizes(place)["v.fits"] % 2880 == 0
