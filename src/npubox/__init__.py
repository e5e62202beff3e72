# SPDX-License-Identifier: Apache-2.0
"""Linux's compute-accelerator (NPU) stack in user space: `npubox.open(...)` is where to start.

Importing the package loads nothing heavy: numpy and the rest wait for the first `open`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from npubox.errors import (
    CancelUnsupported,
    DeviceError,
    InputError,
    JobFailed,
    ModelError,
    NpuboxError,
    WaitTimeout,
)

if TYPE_CHECKING:
    from npubox.client import Buffer, CompileOptions, Device, Inference, Network, Session, TensorInfo

__version__ = "0.1.0"

__all__ = [
    "Buffer",
    "CancelUnsupported",
    "CompileOptions",
    "Device",
    "DeviceError",
    "Inference",
    "InputError",
    "JobFailed",
    "ModelError",
    "Network",
    "NpuboxError",
    "Session",
    "TensorInfo",
    "WaitTimeout",
    "open",
]

_CLIENT = ("Buffer", "CompileOptions", "Device", "Inference", "Network", "Session", "TensorInfo")


def open(name: str | os.PathLike[str], *, policy: str | None = None) -> Device:
    """Open an NPU: a preset (`imx93`), a device's short name (`ethos-u65-256`), or a node of the host's
    kernel (`/dev/accel/accel0`).

    `policy` replaces the virtual machine's own: with "mainline" its driver refuses what Linux's driver
    refuses, with "hardware" only what no NPU could start. Raises DeviceError where there is no such device
    or policy, or its driver is none we know.
    """
    from npubox import client

    return client.Device(os.fspath(name), policy)


def __getattr__(name: str) -> Any:
    if name not in _CLIENT:
        raise AttributeError(f"module 'npubox' has no attribute {name!r}")
    from npubox import client

    return getattr(client, name)
