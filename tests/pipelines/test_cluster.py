"""The cluster on this machine: as many workers as there are cores for this process."""

import pytest

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
