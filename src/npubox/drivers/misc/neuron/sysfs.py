# SPDX-License-Identifier: Apache-2.0
"""The files of a device below /sys/class/neuron_device/neuron<N> (facts, neuron.md §2).

Names and texts only: what carries them to a program is not this module's business.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from npubox.drivers.misc.neuron.metrics import (
    DEVICE_CATEGORIES,
    HOST_CATEGORIES,
    OTHER,
    STATUSES,
    UNCATEGORIZED,
    Metrics,
    Usage,
)
from npubox.hw.neuron.address import CORES

if TYPE_CHECKING:
    from npubox.drivers.misc.neuron.device import NeuronDevice

LONGEST_LIST = 20  # bytes of `connected_devices`
NOTIFY_DELAYS = ("-1", "0")
CLASS_ATTRIBUTES = {
    "node_id_2": "-1\n",
    "node_id_4": "-1\n",
    "server_id_2": "0000000000000000\n",
    "server_id_4": "0000000000000000\n",
    "ultraserver_mode": "\n",
}
"""Of the class itself, /sys/class/neuron_device."""


def files(state: int, neighbours: Sequence[int], metrics: Metrics | None = None) -> dict[str, str]:
    """Every file of a device, by its path from there. `state`: 0 reset, 1 ready, 2 invalid."""
    usages = {} if metrics is None else metrics.usages
    found = {
        "reset": f"{state:d}\n",
        "core_count": f"{CORES}",
        "connected_devices": (", ".join(map(str, neighbours)) + "\n")[:LONGEST_LIST],
        "info/notify_delay": f"{'-1' if metrics is None else metrics.notify_delay}\n",
        "info/architecture/arch_type": "NDv1\n",
        "info/architecture/instance_type": "Inf1\n",
        "info/architecture/device_name": "Inferentia\n",
        # No minute of samples is ever over: samples are not taken.
        "stats/power/utilization": f"POWER_STATUS_NO_DATA,{int(time.time())},0.00,0.00,0.00\n",
    }
    for core in range(CORES):
        found[f"neuron_core{core}/info/architecture/arch_type"] = "NCv1\n"
    for directory in _directories():
        usage = usages.get(directory, Usage())
        names = ("total", "present", "peak") if "memory_usage" in directory else ("total", "present")
        found |= {f"{directory}/{name}": f"{getattr(usage, name)}\n" for name in names}
    return found


def store(device: NeuronDevice, name: str, text: str) -> None:
    """Write to a file: `reset` resets the device, a counter becomes 0. OSError EBUSY while the device is
    open, EINVAL for a text that means nothing, EACCES for a file that is only read. Without the lock."""
    directory, _, field = name.rpartition("/")
    if name == "reset":
        device.full_reset()
    elif name == "info/notify_delay":
        if text.strip() not in NOTIFY_DELAYS:
            raise OSError(errno.EINVAL, f"notify_delay is {' or '.join(NOTIFY_DELAYS)}")
        device.metrics.notify_delay = text.strip()
    elif directory in set(_directories()):
        with device.lock:
            setattr(device.metrics.usages.setdefault(directory, Usage()), field, 0)
    else:
        raise OSError(errno.EACCES, f"{name} is only read")
    device.metrics.changed = True


def _directories() -> Iterator[str]:
    """Those with counters."""
    for category in (*HOST_CATEGORIES, UNCATEGORIZED):
        yield f"stats/memory_usage/host_mem/{category}"
    for core in range(CORES):
        stats = f"neuron_core{core}/stats"
        yield from (f"{stats}/status/{name}" for name in STATUSES)
        yield from (f"{stats}/other_info/{name}" for name in OTHER)
        yield f"{stats}/memory_usage/host_mem"
        yield f"{stats}/memory_usage/device_mem"
        for category in (*DEVICE_CATEGORIES, UNCATEGORIZED):
            yield f"{stats}/memory_usage/device_mem/{category}"
