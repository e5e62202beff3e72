# SPDX-License-Identifier: Apache-2.0
"""An unmodified Ray counts NeuronCores, hands them out, and its workers reach the nodes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import run

PROGRAM = """
import os, ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
print(int(ray.cluster_resources()["neuron_cores"]))

@ray.remote(resources={"neuron_cores": 2})
def work(chip):
    os.close(os.open(f"/dev/neuron{chip}", os.O_RDWR))
    return os.environ["NEURON_RT_VISIBLE_CORES"]

print(*sorted(ray.get([work.remote(0), work.remote(0)])))
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_counts_and_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/opt").is_dir():
        pytest.skip("needs a directory /opt to show the tool in")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token to the home directory
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    done = run(sys.executable, "-c", PROGRAM, options=["-m", "inf1.xlarge"])
    assert done.stdout == "4\n0,1 2,3\n"
