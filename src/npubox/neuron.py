# SPDX-License-Identifier: Apache-2.0
"""AWS Neuron devices: `npubox.neuron.open("inf1.xlarge")` is where to start.

with npubox.neuron.open("inf1.xlarge") as devices:
    memory = devices[0].allocate(1 << 20)
    memory.view()[:] = 7
"""

from __future__ import annotations

import os

from npubox.client.neuron.device import Device, DeviceInfo, Devices, Semaphore
from npubox.client.neuron.memory import Memory
from npubox.client.neuron.notifications import Notification, NotificationQueue
from npubox.client.neuron.rings import DmaRing
from npubox.hw.neuron.notification import ErrorCode
from npubox.hw.neuron.putils import NotificationType

__all__ = [
    "Device",
    "DeviceInfo",
    "Devices",
    "DmaRing",
    "ErrorCode",
    "Memory",
    "Notification",
    "NotificationQueue",
    "NotificationType",
    "Semaphore",
    "open",
]


def open(name: str | os.PathLike[str] = "inf1.xlarge") -> Devices:
    """The NeuronDevices of a virtual machine (a preset or a machine file), or of this host: `/dev/neuron` is
    all of them, `/dev/neuron0` the first. Raises DeviceError."""
    return Devices(os.fspath(name))
