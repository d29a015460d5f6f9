"""One small cluster for all pipeline tests."""

import pytest

from velfield.pipelines.cluster import connect


@pytest.fixture(scope="session")
def client():
    with connect(workers=2, quiet=True) as client:
        yield client
