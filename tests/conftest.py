"""What tests of several modules need."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Sums in one order: the same weights to the last bit."""
    import torch  # not for tests that need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
