"""schemathesis against a live service: no server error, no answer that the description does not have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from served import serving

from velfield.service.apart import apart

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_schemathesis_finds_nothing(models, cluster, fields, tmp_path):
    with serving(tmp_path / "state", models, cluster, allow=[fields], queue=1000) as service:
        assert apart(len, "abc", memory=2**30, seconds=600, names={}) == 3  # what the first waits for
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"{service.url}/openapi.json"),
            *("--max-examples", "50", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
        ]
        done = subprocess.run(
            command,
            env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout[-2000:]
    assert counted[1] == counted[2]
    assert int(counted[1]) > 500
