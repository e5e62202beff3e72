# SPDX-License-Identifier: Apache-2.0
"""The common face and Arm's library in Python, both on a virtual subsystem: the bits, errors, lifetimes."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import npubox
from npubox import ethosu
from npubox.core import reaper
from npubox.devices.ethosu_subsystem.faults import SubsystemInjection
from npubox.errors import DeviceError, InferenceFailed, InputError, JobFailed, NpuboxError, WaitTimeout
from npubox.formats.network import Network as Graph
from npubox.uapi import ethosu_linux as uapi
from tests.networks import SHARED_NAMES, compiled_by_vela, shared_network
from tests.vectors import DIGITS, Vector, digits_vectors, shared_vectors

MACHINE = "imx93-linux"
NODE = "/dev/ethosu0"
PATIENCE = 60  # seconds: only a test that fails waits so long


@pytest.fixture(scope="module")
def device() -> Iterator[npubox.Device]:
    with npubox.open(MACHINE) as opened:
        yield opened


@pytest.fixture(scope="module")
def network(device: npubox.Device) -> Iterator[npubox.Network]:
    with device.load(DIGITS / "digits.tflite") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def library() -> Iterator[ethosu.Device]:
    with ethosu.Device(MACHINE) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits() -> Graph:
    return compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256")


@pytest.fixture(scope="module")
def vector() -> Vector:
    return digits_vectors(1)[0]


def check(network: npubox.Network, vector: Vector) -> None:
    with network.submit(*vector.inputs) as inference:
        inference.wait(PATIENCE)
        for ours, theirs in zip(inference.outputs, vector.outputs, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def inject(device: npubox.Device | ethosu.Device, fault: SubsystemInjection) -> None:
    assert device.machine is not None
    device.machine.part_of(NODE).inject(fault)


@contextmanager
def no_inference_times_out(device: npubox.Device | ethosu.Device) -> Iterator[None]:
    """However slow the test is, what hangs goes on until it is cancelled."""
    assert device.machine is not None
    firmware = device.machine.part_of(NODE).device.firmware
    before = firmware.timeouts
    firmware.timeouts = replace(before, inference=1 << 60)
    try:
        yield
    finally:
        firmware.timeouts = before


def objects(device: npubox.Device | ethosu.Device) -> int:
    assert device.machine is not None
    count: int = device.machine.part_of(NODE).device.objects
    return count


# the common face


def test_digits(network: npubox.Network) -> None:
    for vector in digits_vectors(20):
        check(network, vector)


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED_NAMES)
def test_shared_networks(device: npubox.Device, name: str) -> None:
    with device.load(shared_network(name)) as network:
        for vector in shared_vectors(name):
            check(network, vector)


def test_it_is_the_npu_that_it_says(device: npubox.Device, network: npubox.Network) -> None:
    assert (device.accelerator, device.policy, device.virtual) == ("ethos-u65-256", "strict", True)
    assert network.placement.cpu == ()
    with npubox.open("imx93") as accel:
        assert (device.npu.id, device.npu.config) == (accel.npu.id, accel.npu.config)


def test_cycles_are_those_of_the_accel_driver(network: npubox.Network, vector: Vector) -> None:
    with (
        npubox.open("imx93") as accel,
        accel.load(DIGITS / "digits.tflite") as same,
        same.submit(*vector.inputs) as expected,
        network.submit(*vector.inputs) as inference,
    ):
        assert inference.cycles == expected.cycles
        assert inference.device_time_ns == expected.device_time_ns


def test_many_at_once(network: npubox.Network) -> None:
    vectors = digits_vectors(24)
    inferences = [network.submit(*vector.inputs) for vector in vectors]
    for vector, inference in zip(vectors, inferences, strict=True):
        with inference:
            np.testing.assert_array_equal(inference.outputs[0], vector.outputs[0])


def test_awaiting(network: npubox.Network) -> None:
    async def run() -> None:
        vectors = digits_vectors(3)
        inferences = [network.submit(*vector.inputs) for vector in vectors]
        for vector, result in zip(vectors, await asyncio.gather(*inferences), strict=True):
            np.testing.assert_array_equal(result, vector.outputs[0])
        for inference in inferences:
            inference.close()

    asyncio.run(run())


def test_what_a_subsystem_has_not(device: npubox.Device, network: npubox.Network, vector: Vector) -> None:
    with pytest.raises(InputError, match="arena of its own"):
        device.buffer(100)
    with pytest.raises(InputError, match="starts state afresh"):
        network.session()
    with pytest.raises(DeviceError, match="does not show"):
        device.dump_layers("nowhere")


def test_an_unknown_policy() -> None:
    with pytest.raises(DeviceError, match='give "strict" or "original"'):
        npubox.open(MACHINE, policy="mainline")
    with npubox.open(MACHINE, policy="original") as device:
        assert device.policy == "original"


def test_an_npu_fault_is_told_with_its_reason(
    network: npubox.Network, device: npubox.Device, vector: Vector
) -> None:
    inject(device, SubsystemInjection.NPU_BUS_ERROR)
    with network.submit(*vector.inputs) as inference:
        with pytest.raises(JobFailed, match="status is error") as raised:
            inference.wait(PATIENCE)
        assert raised.value.reason != "the inference's status is error", "the control channel knows more"
    check(network, vector)


@pytest.mark.parametrize(
    "fault",
    [
        SubsystemInjection.DROP_RESPONSE,
        SubsystemInjection.LATE_RESPONSE,
        SubsystemInjection.WRONG_ID,
        SubsystemInjection.WRONG_MAGIC,
        SubsystemInjection.CORRUPT_INDEX,
        SubsystemInjection.HANG,
        SubsystemInjection.NPU_HANG,
    ],
)
def test_the_driver_gets_over_faults(
    network: npubox.Network, device: npubox.Device, vector: Vector, fault: SubsystemInjection
) -> None:
    """What was running fails in device time, and the next inference works."""
    assert device.machine is not None
    begun = device.machine.clock.now()
    inject(device, fault)
    with network.submit(*vector.inputs) as inference, pytest.raises(InferenceFailed) as raised:
        inference.wait(PATIENCE)
    assert raised.value.status == "error"
    assert device.machine.clock.now() - begun >= 6_000_000_000
    check(network, vector)


def test_only_what_ran_fails(network: npubox.Network, device: npubox.Device) -> None:
    inject(device, SubsystemInjection.NPU_HANG)
    vectors = digits_vectors(4)
    inferences = [network.submit(*vector.inputs) for vector in vectors]
    with pytest.raises(InferenceFailed):
        inferences[0].wait(PATIENCE)
    for vector, inference in list(zip(vectors, inferences, strict=True))[1:]:
        np.testing.assert_array_equal(inference.outputs[0], vector.outputs[0])
    for inference in inferences:
        inference.close()


def test_cancelling(network: npubox.Network, device: npubox.Device, vector: Vector) -> None:
    inject(device, SubsystemInjection.NPU_HANG)
    with (
        no_inference_times_out(device),
        network.submit(*vector.inputs) as running,
        network.submit(*vector.inputs) as waiting,
    ):
        waiting.cancel()
        running.cancel()
        for inference in (waiting, running):
            with pytest.raises(InferenceFailed) as raised:
                inference.wait(PATIENCE)
            assert raised.value.status == "aborted"
    check(network, vector)


def test_nothing_is_left(vector: Vector) -> None:
    """Closed in the worst order, with an inference under way, and left to the garbage collector."""
    with npubox.open(MACHINE) as device:
        network = device.load(DIGITS / "digits.tflite")
        inject(device, SubsystemInjection.NPU_HANG)
        inference = network.submit(*vector.inputs)
        network.close()
        inference.close()
        with pytest.raises(NpuboxError, match="closed"):
            inference.wait()
        with device.load(DIGITS / "digits.tflite") as again:
            check(again, vector)
            del network, inference
            gc.collect()
        assert objects(device) == 1, "the device's own file"


# the library


def test_capabilities(library: ethosu.Device) -> None:
    told = library.capabilities
    assert (told.accelerator, told.macs, told.product, told.architecture) == (
        "ethos-u65-256",
        256,
        6,
        (1, 0, 6),
    )
    assert len(told.driver) == 3


def test_the_sequence_of_arms_library(library: ethosu.Device, digits: Graph, vector: Vector) -> None:
    with library.network(digits.content) as network:
        assert (network.input_sizes, network.output_sizes) == ((64,), (10,))
        with library.buffer(64) as image, library.buffer(10) as scores:
            image.fill(vector.inputs[0])
            with network.infer([image], [scores], cycles=True, events=[1]) as inference:
                inference.wait(PATIENCE)
                assert inference.status is ethosu.Status.OK
                assert inference.pmu.cycles
                assert inference.pmu.events[0] == 1
            assert scores.window == (0, 10)
            np.testing.assert_array_equal(scores.valid(np.int8, (1, 10)), vector.outputs[0])


def test_networks_by_index_buffer_and_path(library: ethosu.Device, digits: Graph) -> None:
    with library.network(0) as built_in, library.buffer(len(digits.content) + 8) as model:
        assert built_in.input_sizes == (64,)
        model.array()[8:] = np.frombuffer(digits.content, np.uint8)
        model.resize(len(digits.content), 8)
        with library.network(model) as network:
            assert network.output_sizes == built_in.output_sizes
    with pytest.raises(OSError, match="cannot use this network") as raised:
        library.network(99)
    assert raised.value.errno == errno.EBADF


def test_buffers(library: ethosu.Device) -> None:
    with library.buffer(100) as buffer:
        assert buffer.array(np.int16, (3,), 4).tolist() == [0, 0, 0]
        buffer.array(np.int16, (3,), 4)[:] = 7, 8, 9
        assert bytes(buffer.data[4:10]) == b"\x07\0\x08\0\x09\0", "a view, not a copy"
        buffer.resize(6, 4)
        assert (buffer.offset, buffer.size) == (4, 6)
        assert buffer.valid(np.int16).tolist() == [7, 8, 9]
        kept = buffer.array()
        buffer.clear()
        assert buffer.size == 0
        with pytest.raises(InputError, match="do not fit"):
            buffer.fill(bytes(101))
    kept[0] = 5  # outlives the buffer
    with pytest.raises(InputError, match="32 bits"):
        library.buffer(1 << 32)


def test_waiting_takes_seconds(library: ethosu.Device, digits: Graph, vector: Vector) -> None:
    inject(library, SubsystemInjection.NPU_HANG)
    with library.network(digits.content) as network, library.buffer(64) as image, library.buffer(10) as out:
        image.fill(vector.inputs[0])
        with no_inference_times_out(library), network.infer([image], [out]) as inference:
            with pytest.raises(WaitTimeout):
                inference.wait(0)
            assert inference.cancel()
            assert inference.finished(PATIENCE)
            assert inference.status is ethosu.Status.ABORTED
            assert not inference.cancel(), "what is over cannot be cancelled"


def test_too_many(library: ethosu.Device) -> None:
    with library.network(0) as network, library.buffer(64) as buffer:
        with pytest.raises(InputError, match="16 inputs"):
            network.infer([buffer] * 17, [])
        with pytest.raises(InputError, match="8 PMU events"):
            network.infer([buffer], [], events=range(9))


def test_the_library_leaves_nothing(digits: Graph) -> None:
    device = ethosu.Device(MACHINE)
    network, image, out = device.network(digits.content), device.buffer(64), device.buffer(10)
    image.fill(bytes(64))
    inference = network.infer([image], [out])
    machine = device.machine
    assert machine is not None
    for thing in (device, network, image, out):
        thing.close()
    inference.wait(PATIENCE)
    assert machine.part_of(NODE).device.objects > 1
    inference.close()
    assert machine.part_of is not None
    with pytest.raises(DeviceError):  # the machine was powered down with the last of them
        machine.part_of(NODE)


def test_a_descriptor_closed_behind_our_back(library: ethosu.Device) -> None:
    """Its number comes again at once; what it stood for goes, with nobody's lock held."""
    before = objects(library)
    numbers = set()
    for _ in range(3):
        create = uapi.NetworkCreate(type=uapi.NetworkType.INDEX, fd=0)
        numbers.add(library.node.ioctl(uapi.NETWORK_CREATE.number, ctypes.addressof(create)))
        os.close(max(numbers))
    assert len(numbers) == 1
    reaper.drain()
    assert objects(library) == before + 1, "the last one, whose number did not come again"
