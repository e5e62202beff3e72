# SPDX-License-Identifier: Apache-2.0
"""The Inferentia's benchmark runs and compares; how fast is never tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_figure_is_there() -> None:
    command = [sys.executable, "-m", "benchmarks.neuron", "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, float] = json.loads(done.stdout)
    assert len(figures) == 2 * 4 + 1 + 2 * min(2, len(os.sched_getaffinity(0))) + 1
    assert all(figure > 0 for figure in figures.values())
