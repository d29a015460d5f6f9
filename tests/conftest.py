"""What tests of several modules need."""

import contextlib

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Sums in one order: the same weights to the last bit."""
    import torch  # not for tests that need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def little_room():
    """Files of at most so many bytes, beyond which writing fails as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
