# SPDX-License-Identifier: Apache-2.0
"""The driver on a chip in another process, over a vfio-user socket: the same client, the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from npubox.bus.vfio_user.client import VfioUserDevice
from npubox.client.neuron.device import Device
from npubox.client.neuron.node import NeuronNode
from npubox.core.node import Node, own_caller
from npubox.drivers.misc.neuron.driver import NeuronDriver
from npubox.drivers.misc.neuron.file import NeuronFile
from npubox.drivers.misc.neuron.host_memory import AddressFile
from npubox.errors import DeviceError
from npubox.neuron import NotificationType
from tests.serve.conftest import START, environment

MIB = 1 << 20
ADDRESS = "0000:00:1f.0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    path = str(tmp_path / "chip")
    command = [sys.executable, "-c", START, "vfio-user", "inf1.xlarge", "--socket", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert "neuron0" in process.stdout.readline()
        yield process, path
        process.terminate()


def test_a_chip_in_another_process(server: tuple[subprocess.Popen[str], str]) -> None:
    process, path = server
    file = AddressFile()
    port = VfioUserDevice(path, ADDRESS)
    driver = NeuronDriver([port], [file])
    node = Node(NeuronFile(driver.devices[0], os.O_RDWR, own_caller()))
    device = Device(NeuronNode("neuron0", node))
    assert device.info().bdf == ADDRESS

    data = np.random.default_rng(1).integers(0, 256, MIB, np.uint8)
    host, memory = device.allocate(MIB, host=True), device.allocate(MIB, channel=1)
    host.view()[:] = data
    host.copy_to(memory)
    assert np.array_equal(memory.view(), data)
    host.view()[:] = 0
    with device.ring(4, 1) as ring:
        ring.copy(memory, host, MIB)
    assert np.array_equal(host.view(), data)

    events = device.notifications(2, NotificationType.EVENT)
    device.set_event(2, 40)
    assert [entry.event for entry in events.wait()] == [(40, True)]
    semaphore = device.semaphore(3, 1)
    semaphore.value = -2
    semaphore.increment(5)
    assert semaphore.value == 3
    device.reset()
    assert memory.read(16) == data[:16].tobytes()

    process.kill()
    process.wait()
    with pytest.raises(DeviceError, match="server is gone"):
        semaphore.increment()
    events.close()
    device.close()
    driver.close()
    port.close()
    file.close()
