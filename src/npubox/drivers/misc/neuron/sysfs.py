# SPDX-License-Identifier: Apache-2.0
"""The files of a device below /sys/class/neuron_device/neuron<N> (facts, neuron.md §2).

Names and texts only: what carries them to a program is not this module's business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from npubox.drivers.misc.neuron.metrics import (
    DEVICE_CATEGORIES,
    HOST_CATEGORIES,
    UNCATEGORIZED,
    Metrics,
    Usage,
)
from npubox.hw.neuron.address import CORES

if TYPE_CHECKING:
    from npubox.drivers.misc.neuron.device import NeuronDevice

LONGEST_LIST = 20  # bytes of `connected_devices`
STATUSES = (
    "success",
    "failure",
    "timeout",
    "exec_bad_input",
    "hw_error",
    "execute_completed_with_error",
    "execute_completed_with_num_error",
    "generic_error",
    "resource_error",
    "resource_nc_error",
    "execute_failed_to_queue",
    "invalid_error",
    "unsupported_neff_version",
    "oob_error",
    "hw_collectives_error",
    "hw_hbm_ue_error",
    "hw_nc_ue_error",
    "hw_dma_abort_error",
    "execute_sw_nq_overflow",
    "execute_sw_semaphore_error",
    "execute_sw_event_error",
    "execute_sw_psum_collision",
    "execute_sw_sequencer_fatal",
    "hw_repairable_hbm_ue_error",
)
OTHER = (
    "model_load_count",
    "reset_req_count",
    "reset_fail_count",
    "inference_count",
    "flop_count",
    "nc_time_in_use",
)
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
    metrics = metrics or Metrics()
    found = {
        "reset": f"{state:d}\n",
        "core_count": f"{CORES}",
        "connected_devices": _connected(neighbours),
        "info/notify_delay": "-1\n",
        "info/architecture/arch_type": "NDv1\n",
        "info/architecture/instance_type": "Inf1\n",
        "info/architecture/device_name": "Inferentia\n",
        # No minute of samples is ever over: samples are not taken.
        "stats/power/utilization": f"POWER_STATUS_NO_DATA,{int(time.time())},0.00,0.00,0.00\n",
    }
    for category in (*HOST_CATEGORIES, UNCATEGORIZED):
        usage = metrics.host.get(category, Usage())
        found |= usage.files(f"stats/memory_usage/host_mem/{category}")
    for core in range(CORES):
        found |= {f"neuron_core{core}/{name}": text for name, text in _core_files(core, metrics).items()}
    return found


def _core_files(core: int, metrics: Metrics) -> dict[str, str]:
    found = {"info/architecture/arch_type": "NCv1\n"}
    for status in STATUSES:
        found |= _counter(f"stats/status/{status}", 0)
    for name, host in (("host_mem", True), ("device_mem", False)):
        usage = metrics.cores.get((core, host, ""), Usage())
        found |= usage.files(f"stats/memory_usage/{name}")
    for category in (*DEVICE_CATEGORIES, UNCATEGORIZED):
        usage = metrics.cores.get((core, False, category), Usage())
        found |= usage.files(f"stats/memory_usage/device_mem/{category}")
    counts = {"reset_req_count": metrics.resets, "reset_fail_count": metrics.failed_resets}
    for name in OTHER:
        found |= _counter(f"stats/other_info/{name}", counts.get(name, {}).get(core, 0))
    return found


def _counter(directory: str, value: int) -> dict[str, str]:
    return {f"{directory}/total": f"{value}\n", f"{directory}/present": f"{min(value, 1)}\n"}


def _connected(neighbours: Sequence[int]) -> str:
    return (", ".join(map(str, neighbours)) + "\n")[:LONGEST_LIST]


def live_files(device: NeuronDevice, neighbours: Sequence[int]) -> dict[str, str]:
    """Those of a device that is powered up."""
    with device.lock:
        return files(device.state, neighbours, device.metrics)
