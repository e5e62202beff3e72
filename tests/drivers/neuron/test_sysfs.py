# SPDX-License-Identifier: Apache-2.0
"""The files below /sys/class/neuron_device (facts, neuron.md §2)."""

from __future__ import annotations

import errno
import re

import pytest

from npubox.drivers.misc.neuron.sysfs import files, store
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from tests.core.refaccel import fails
from tests.drivers.neuron.program import Machine, Program

HOST = "stats/memory_usage/host_mem/uncategorized"
CORE = "neuron_core2/stats/memory_usage/device_mem"


def shown(machine: Machine) -> dict[str, str]:
    device = machine.driver.devices[0]
    return files(device.state, [1, 0], device.metrics)


def test_names_and_first_texts(machine: Machine) -> None:
    found = shown(machine)
    assert found["reset"] == "1\n"
    assert found["core_count"] == "4"
    assert found["connected_devices"] == "1, 0\n"
    assert files(1, [])["connected_devices"] == "\n"
    assert found["info/notify_delay"] == "-1\n"
    assert re.fullmatch(r"POWER_STATUS_NO_DATA,\d+,0.00,0.00,0.00\n", found["stats/power/utilization"])
    assert found["neuron_core3/info/architecture/arch_type"] == "NCv1\n"
    statuses = {name.split("/")[3] for name in found if name.startswith("neuron_core0/stats/status/")}
    assert len(statuses) == 24
    categories = {
        name.split("/")[4] for name in found if name.startswith(f"{CORE}/") and name.count("/") == 5
    }
    assert len(categories) == 11


def test_memory_is_counted(machine: Machine, program: Program) -> None:
    one, other = program.alloc(8192, core=2), program.alloc(4096, core=2)
    program.free(one)
    found = shown(machine)
    usage = {name: found[f"{CORE}/{name}"] for name in ("total", "present", "peak")}
    assert usage == {"total": "4096\n", "present": "8192\n", "peak": "12288\n"}
    host = int(found[f"{HOST}/total"])
    program.alloc(4096, host=True)
    assert int(shown(machine)[f"{HOST}/total"]) == host + 4096
    program.free(other)
    assert shown(machine)[f"{CORE}/uncategorized/total"] == "0\n"


def test_resets_are_counted(machine: Machine, program: Program) -> None:
    name = "neuron_core1/stats/other_info/reset_req_count/total"
    before = int(shown(machine)[name])
    assert program.call(uapi.NC_RESET, structs.DeviceReset(nc_map=0b10)) == 0
    assert program.call(uapi.NC_RESET_READY, structs.DeviceReady(request_id=program.pid)) == 0
    assert int(shown(machine)[name]) == before + 1


def test_a_datastore_is_folded_in_when_it_is_released(machine: Machine, program: Program) -> None:
    args = structs.NeuronDsInfo()
    assert program.call(uapi.ACQUIRE_NEURON_DS, args) == 0
    with program.mmap(args.size, args.mmap_offset) as store_:
        for core, counter, value in ((1, 1, 7), (1, 28, 9), (1, 29, 1000)):
            at = 0x100 + 8 * (31 * core + counter)
            store_[at : at + 8] = value.to_bytes(8, "little")
        at = 0xDA80 + 8 * (64 * 1 + 38 - 31)
        store_[at : at + 8] = (3).to_bytes(8, "little")
    stats = "neuron_core1/stats"
    assert shown(machine)[f"{stats}/status/success/total"] == "0\n"
    assert program.call(uapi.RELEASE_NEURON_DS, structs.NeuronDsInfo()) == 0
    found = shown(machine)
    assert found[f"{stats}/status/success/total"] == "7\n"
    assert found[f"{stats}/other_info/inference_count/total"] == "9\n"
    assert found[f"{stats}/other_info/flop_count/total"] == "2000\n"
    assert found[f"{stats}/status/execute_sw_psum_collision/total"] == "3\n"


def test_writing(machine: Machine) -> None:
    device = machine.driver.devices[0]
    program = machine.program()
    program.alloc(4096, core=2)
    store(device, f"{CORE}/peak", "1")
    assert shown(machine)[f"{CORE}/peak"] == "0\n"
    assert shown(machine)[f"{CORE}/total"] == "4096\n"
    store(device, "info/notify_delay", "0\n")
    assert shown(machine)["info/notify_delay"] == "0\n"
    for name, text, error in (
        ("info/notify_delay", "5", errno.EINVAL),
        ("core_count", "8", errno.EACCES),
        ("reset", "1", errno.EBUSY),
    ):
        with fails(error):
            store(device, name, text)
    program.close()
    store(device, "reset", "1")
    assert shown(machine)["reset"] == "1\n"


@pytest.mark.parametrize("revision", [0, 255])
def test_copies_work_after_a_reset_by_sysfs(revision: int) -> None:
    """The real module's do not, until another reset."""
    with Machine(revision=revision) as machine:
        store(machine.driver.devices[0], "reset", "1")
        program = machine.program()
        handle = program.alloc(4096)
        program.write(handle, b"there")
        assert program.read(handle, 5) == b"there"
        program.close()
