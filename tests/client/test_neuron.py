# SPDX-License-Identifier: Apache-2.0
"""`npubox.neuron`: memory, rings, notifications and semaphores of a virtual Inferentia, and 16 in a chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import npubox
from npubox import neuron
from npubox.bus.virtual import AddressSpace
from npubox.hw.neuron import descriptors
from npubox.hw.neuron.address import Window, through
from npubox.neuron import ErrorCode, NotificationType
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import EngineState

MIB = 1 << 20


@pytest.fixture(scope="module")
def devices() -> Iterator[neuron.Devices]:
    with neuron.open("inf1.xlarge") as opened:
        yield opened


@pytest.fixture
def device(devices: neuron.Devices) -> neuron.Device:
    return devices[0]


def noise(size: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_info(device: neuron.Device) -> None:
    info = device.info()
    assert (info.index, info.cores, info.neighbours, info.bdf) == (0, 4, (), "0000:00:1f.0")


def test_a_view_is_the_memory_itself(device: neuron.Device) -> None:
    data = noise(MIB)
    with device.allocate(MIB) as memory, device.allocate(MIB, host=True) as host:
        host.view()[:] = data
        host.copy_to(memory)
        assert np.array_equal(memory.view(), data)
        memory.view(np.uint32)[5] = 0x01020304
        assert memory.read(4, offset=20) == bytes([4, 3, 2, 1])


def test_write_and_read(device: neuron.Device) -> None:
    data = noise(200_001)
    with device.allocate(MIB) as memory:
        memory.fill(0x11)
        memory.write(data, offset=77)
        assert memory.read(data.size, offset=77) == data.tobytes()
        assert memory.read(77) == b"\x11" * 77


def test_a_ring_over_many_laps(device: neuron.Device) -> None:
    data = noise(MIB)
    with device.allocate(MIB, host=True) as host, device.allocate(MIB) as memory, device.ring(4, 2) as ring:
        host.view()[:] = data
        for turn in range(40):
            start, size = turn * 1001, 3000 + turn * 70
            ring.push(host.address + start, memory.address + start, size)
            ring.push(memory.address + start, memory.address + MIB // 2, size)
            ring.wait()
            assert np.array_equal(memory.view()[MIB // 2 :][:size], data[start : start + size])


def test_a_ring_copies_more_than_it_holds(device: neuron.Device) -> None:
    size = 3 * MIB
    with device.allocate(size) as one, device.allocate(size, channel=1) as other, device.ring(0) as ring:
        one.view()[:] = noise(size)
        ring.copy(one, other, size)
        assert np.array_equal(one.view(), other.view())


def test_descriptors_that_do_not_fit(device: neuron.Device) -> None:
    with device.ring(5, length=32) as ring, pytest.raises(npubox.InputError, match="room for 16"):
        ring.push(0, 0, 17 * descriptors.MAX_LENGTH)


def test_a_ring_that_was_closed(device: neuron.Device) -> None:
    ring = device.ring(5)
    ring.close()
    ring.close()
    uses: list[Callable[[], None]] = [lambda: ring.push(0, 64, 64), ring.start, ring.wait]
    for use in uses:
        with pytest.raises(npubox.DeviceError, match="was closed"):
            use()


def test_a_ring_that_cannot_be_keeps_no_memory(device: neuron.Device) -> None:
    with device.allocate(4096, host=True) as before:
        place = before.address
    with pytest.raises(npubox.DeviceError, match="no DMA engine 99"):
        device.ring(99)
    with device.allocate(4096, host=True) as after:
        assert after.address == place


def test_memory_of_another_device_is_no_handle_here() -> None:
    with neuron.open("inf1.6xlarge") as devices:
        mine, other = devices[0].allocate(4096), devices[1].allocate(4096)
        assert mine.handle == other.handle
        with pytest.raises(npubox.InputError, match="neuron1's memory"):
            mine.copy_to(other)


def test_notifications_of_events_and_errors(device: neuron.Device) -> None:
    events = device.notifications(1, NotificationType.EVENT)
    errors = device.notifications(1, NotificationType.ERROR)
    events.poll()
    device.set_event(1, 9)
    assert [entry.event for entry in events.wait()] == [(9, True)]
    with device.ring(3, 7) as ring:
        ring.push(through(Window.HOST, 0x1000), 0, 64)
        ring.start()
        (entry,) = errors.wait()
        assert (entry.error, entry.queue) == (ErrorCode.ADDRESS, (3, 7))
        with pytest.raises(
            npubox.DeviceError, match="engine 3 queue 7 stopped: ADDRESS: DMA read of 64 bytes"
        ):
            ring.wait()
    with device.allocate(64) as memory, device.ring(3, 7) as ring:
        ring.copy(memory, memory, 64)  # a new ring resets the queue
    events.close()
    errors.close()


def test_a_ring_that_takes_long(device: neuron.Device) -> None:
    def switch(state: EngineState) -> None:
        device.node.call(uapi.DMA_ENG_SET_STATE, structs.DmaEngSetState(eng_id=6, state=state))

    with device.allocate(64) as memory, device.ring(6, 1) as ring:
        ring.push(memory.address, memory.address, 64)
        switch(EngineState.DISABLE)
        with pytest.raises(npubox.WaitTimeout, match="engine 6 queue 1 is not done after"):
            ring.wait(timeout=0.01)
        switch(EngineState.NORMAL)
        ring.wait()


def test_semaphore_by_register_and_by_dma(device: neuron.Device) -> None:
    semaphore = device.semaphore(2, 30)
    semaphore.value = -5
    semaphore.increment(7)
    semaphore.decrement()
    assert semaphore.value == 1


def test_errors_name_the_call(device: neuron.Device) -> None:
    with pytest.raises(npubox.DeviceError, match=r"neuron0: MEM_ALLOC: no channel 2.* \(EINVAL\)"):
        device.allocate(4096, channel=2)
    memory = device.allocate(4096)
    memory.free()
    memory.free()
    with pytest.raises(npubox.DeviceError, match="freed"):
        memory.view()
    with pytest.raises(npubox.InputError, match="at least one"):
        device.allocate(0)


def test_no_such_machine() -> None:
    with pytest.raises(npubox.DeviceError, match="no NeuronDevice"):
        neuron.open("refaccel")
    with pytest.raises(npubox.DeviceError, match="/dev/neuron0"):
        neuron.open("/dev/neuron")


def test_through_sixteen_chips_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from chip to chip by the pipe links, to the last and back: no byte of it passes the host."""
    size = 300_000
    passed: list[int] = []
    look_up = AddressSpace.at

    def counted(space: AddressSpace, address: int, length: int, write: bool = False) -> Any:
        passed.append(length)
        return look_up(space, address, length, write)

    with neuron.open("inf1.24xlarge") as devices:
        assert [device.info().neighbours for device in (devices[0], devices[7], devices[15])] == [
            (1,),
            (8, 6),
            (14,),
        ]
        there = [device.allocate(size, channel=index % 2) for index, device in enumerate(devices)]
        back = [device.allocate(size, region=1) for device in devices]
        data = noise(size, seed=16)
        there[0].view()[:] = data
        ring = [device.ring(0) for device in devices]
        monkeypatch.setattr(AddressSpace, "at", counted)
        for index in range(15):
            ring[index].copy(there[index], there[index + 1].east, size)
        ring[15].copy(there[15], back[15], size)
        for index in range(15, 0, -1):
            ring[index].copy(back[index], back[index - 1].west, size)
        monkeypatch.undo()
        assert np.array_equal(back[0].view(), data)
        # Descriptors and completion words only: 16 bytes a descriptor, two rings, and a word each.
        assert sum(passed) < 31 * 3 * 6 * descriptors.SIZE
