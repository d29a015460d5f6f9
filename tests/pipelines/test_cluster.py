"""The cluster on this machine: as many workers as there are cores for this process."""

import gc
import resource
import socket
import sys

import numpy as np
import pytest

from velfield.errors import VelfieldError
from velfield.pipelines import cluster


def test_a_worker_for_each_core_that_this_process_may_use(monkeypatch):
    """On a shared node a job is given some of the cores: os.cpu_count() counts all."""
    asked = {}

    def local(**settings):
        asked.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "LocalCluster", local)
    monkeypatch.setattr(cluster, "CPU_COUNT", 3)
    for workers, expected in ((None, 3), (5, 5)):
        with pytest.raises(KeyboardInterrupt), cluster.connect(workers=workers, quiet=True):
            pass
        assert asked["n_workers"] == expected


@pytest.mark.parametrize("address", ["nonsense", "tcp://host", "tcp://host:port", "what://host:1"])
def test_what_is_no_address_is_refused_before_a_client_tries_it(monkeypatch, address):
    """A client that fails at it prints a traceback when it is thrown away."""
    monkeypatch.setattr(cluster, "Client", lambda *_, **__: pytest.fail("tried"))
    said = f"no Dask scheduler answers: scheduler={address}; start one"
    with pytest.raises(VelfieldError, match=said), cluster.connect(address):
        pass


def pages_of_the_second():
    """Pages that the system clears for an array of 32 MB when another of its size was freed just before."""
    np.ones(2**22)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    np.ones(2**22)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another")
def test_workers_keep_memory_that_they_free():
    with cluster.connect(workers=1, quiet=True) as client:
        assert client.submit(pages_of_the_second, pure=False).result() < 500  # of 8192


def test_a_port_that_is_taken_since_we_looked_is_no_warning(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(cluster, "_dashboard_address", lambda: f"127.0.0.1:{taken.getsockname()[1]}")
        with cluster.connect(workers=1, quiet=True) as client:
            assert client.submit(int, pure=False).result() == 0
    gc.collect()  # a socket that is left open would be an error here
