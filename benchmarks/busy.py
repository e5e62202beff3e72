# SPDX-License-Identifier: Apache-2.0
"""Keeps the NPU of a launch busy: python busy.py MODEL READY makes the file READY when it has begun."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import npubox


def main(model: str, ready: str) -> None:
    with npubox.open("/dev/accel/accel0") as device, device.load(model) as network:
        inputs = [np.zeros(info.shape, info.dtype) for info in network.inputs]
        network(*inputs)
        Path(ready).touch()
        while True:
            network(*inputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
