"""The same halos in every format, painted by the real job: the same fields, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from table_files import WRITERS, library_of

from velfield import store
from velfield.catalogue import open_catalogue
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare

HALOS = str(Path(__file__).parent.parent / "data" / "mock-outer-rim" / "m000-499.fofproperties")


def painted(client, out, url):
    config = PaintConfig(halos=url, particles=None, boxes=2, cells=8, rsd="random_radial", boxsize=512.0, redshift=0.0)
    assert paint(client, prepare(str(out), config))
    return store.open_fields(str(out)).load()


@pytest.fixture(scope="module")
def expected(client, tmp_path_factory):
    return painted(client, tmp_path_factory.mktemp("genericio") / "f", HALOS)


@pytest.mark.parametrize("form", list(WRITERS))
def test_the_same_fields_from_every_format(client, tmp_path, expected, form):
    pytest.importorskip(library_of(form))
    cat = open_catalogue(HALOS)
    url = WRITERS[form](tmp_path / "c", cat.read(cat.tracer_columns()))
    found = painted(client, tmp_path / "f", url)
    np.testing.assert_array_equal(found.halo_number.values, expected.halo_number.values)
    # other blocks are added in another order: float64 sums of float32 masses, rounded to float32 once
    np.testing.assert_allclose(found.halo_mass.values, expected.halo_mass.values, rtol=2.0**-23)
