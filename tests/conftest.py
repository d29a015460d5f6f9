"""What tests of several modules need."""

import contextlib
import functools

import pytest


@pytest.fixture(scope="session")
def shared_cluster():
    """Called, it gives one small cluster for all tests; who does not call it does not wait for it."""
    from velfield.pipelines.cluster import connect  # not for tests that need none

    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda: stack.enter_context(connect(workers=2, quiet=True)))


@pytest.fixture(scope="session")
def client(shared_cluster):
    """Two workers that all tests share: a cluster of one's own takes some ten seconds of the processor."""
    return shared_cluster()


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
