# SPDX-License-Identifier: Apache-2.0
"""A machine that is closed leaves no file and no mapping, whatever the garbage collector does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CYCLES = 50
PROGRAM = f"""
import gc, os, threading
import numpy as np
import npubox
from npubox.core import reaper
gc.disable()
image = np.full((1, 8, 8, 1), 3, np.int8)
def cycle():
    with npubox.open("imx93") as device, device.load("examples/digits/digits.tflite") as network:
        network(image)
        with device.buffer(1 << 20) as buffer:
            buffer.data[0] = 1
def state():
    reaper.drain()
    with open("/proc/self/maps") as maps:
        ours = [line for line in maps if "memfd" in line or "(deleted)" in line]
    return len(os.listdir("/proc/self/fd")), len(ours), threading.active_count()
cycle()
before = state()
for _ in range({CYCLES}):
    cycle()
assert before[1] == 0, before
assert state() == before, (before, state())
"""


def test_open_and_close_leak_nothing() -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=root,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
