# SPDX-License-Identifier: Apache-2.0
"""A few rounds of the fuzzer; `make test-bounds` runs many more, with array bounds checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORKS = (
    "conv_3x3_int8",
    "depthwise_3x3_int8",
    "add_different_scales_int8",
    "dense_int16",
    "attention_int8",
)


def test_damaged_streams_are_executed_exactly_or_refused() -> None:
    """In a process of its own: a stray access of a kernel hits a guard page and ends it."""
    command = [sys.executable, "-m", "tests.devices.fuzz", "--runs", "15", "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [*command, "--networks", *NETWORKS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {kind: int(count) for kind, count in re.findall(r"(\w+)=(\d+)", done.stdout)}
    assert counts["executed"] > 0
    assert counts["faulted"] > 0
    assert sum(counts.values()) == 15 * len(NETWORKS) * 3  # accelerators
