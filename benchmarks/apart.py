# SPDX-License-Identifier: Apache-2.0
"""What takes a fresh process to measure: `python -m benchmarks.apart DEVICE [MODEL]` prints JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import npubox


def peak_memory(device: str, model: Path) -> float:
    """MB of resident memory that a process takes at most to run a network: once, with compiled kernels."""
    return float(_measured(device, str(model))["peak_mb"])


def cold_power_up(device: str) -> float:
    """Seconds to the first open of a device after an installation: its kernels are compiled."""
    with tempfile.TemporaryDirectory(prefix="npubox-benchmark-") as cache:
        return float(_measured(device, environment={"XDG_CACHE_HOME": cache})["open_s"])


def _measured(*arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.apart", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, **(environment or {})},
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _main(name: str, model: str | None = None) -> None:
    started = time.perf_counter()
    with npubox.open(name) as device:
        opened = time.perf_counter() - started
        if model is not None:
            with device.load(model) as network:
                network(*(np.zeros(info.shape, info.dtype) for info in network.inputs))
    print(json.dumps({"open_s": opened, "peak_mb": _peak()}))


def _peak() -> float:
    """getrusage would give the parent's peak where that is higher: Linux keeps it across exec."""
    (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) * 1024 / 1e6


if __name__ == "__main__":
    _main(*sys.argv[1:])
