# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, by order and by accident: the host hears of it, and the next inference works."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from npubox.devices.ethosu_subsystem import firmware
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import SubsystemInjection
from npubox.formats.tflite import read_network
from npubox.hw.ethosu import core_interface as ci
from npubox.hw.ethosu.core_interface import CoreStatus, MessageType
from npubox.hw.ethosu.registers import Status
from tests.client.graphs import float_edges
from tests.fallback.graphs import slow_convolution
from tests.fallback.processes import workers
from tests.networks import compiled_by_vela
from tests.subsystem.host import MEMORY, QUEUE_BYTES, Host, by_index, configuration, in_buffer
from tests.vectors import DIGITS, digits_vectors

SECOND = 10**9


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.fixture
def host() -> Iterator[Host]:
    digits = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    with Host(configuration(networks=(digits,))) as booted:
        yield booted


def send_digits(host: Host) -> int:
    (vector,) = digits_vectors(1)
    return host.infer(by_index(0), [host.put(vector.inputs[0].tobytes())], [host.allocate(10)])


def assert_works(host: Host) -> None:
    (vector,) = digits_vectors(1)
    place, result = host.put(vector.inputs[0].tobytes()), host.allocate(10)
    assert host.result(host.infer(by_index(0), [place], [result])).status == CoreStatus.OK
    assert host.get(result) == vector.outputs[0].tobytes()


def test_a_dropped_answer(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.DROP_RESPONSE)
    send_digits(host)
    host.settle()
    assert len(host.reports) == 1
    assert host.answers == []
    assert_works(host)


def test_a_late_answer_comes_when_others_have_given_up(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.LATE_RESPONSE)
    passed = threading.Event()
    request = send_digits(host)
    host.settle()
    host.clock.call_at(host.clock.now() + 3 * SECOND, passed.set)
    assert passed.wait(60), "time flows while the host waits"
    assert host.answers == []
    assert host.result(request).status == CoreStatus.OK
    assert host.clock.now() > 10 * SECOND
    assert_works(host)


def test_a_wrong_id(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.WRONG_ID)
    request = send_digits(host)
    _, answer = host.answer(0)
    assert answer.user_arg not in (request, 0)
    assert_works(host)


def test_a_wrong_magic(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.WRONG_MAGIC)
    send_digits(host)
    host.settle()
    assert host.bad_messages == 1
    assert_works(host)


def test_a_corrupt_index_silences_the_firmware_until_a_reset(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.CORRUPT_INDEX)
    send_digits(host)
    host.settle()
    assert host.bad_messages == 1
    host.send(MessageType.PING)
    host.settle()
    assert host.answers == []
    host.boot()
    assert_works(host)


def test_a_hung_firmware_lets_time_pass_until_a_reset(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.HANG)
    passed = threading.Event()
    send_digits(host)
    host.send(MessageType.PING)
    host.clock.call_at(host.clock.now() + 3 * SECOND, passed.set)
    assert passed.wait(60)
    assert host.answers == []
    host.boot()
    assert host.answers == []
    assert_works(host)


def test_a_firmware_that_crashes_is_silent_until_a_reset(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(firmware, "VERSION", ())
        passed = threading.Event()
        host.send(MessageType.VERSION_REQ)
        host.send(MessageType.PING)
        host.clock.call_at(host.clock.now() + 3 * SECOND, passed.set)
        assert passed.wait(60)
    assert "the firmware of subsystem crashed" in caplog.text
    assert host.answers == []
    host.boot()
    assert_works(host)


def test_a_boot_without_memory_for_the_rings_ends(caplog: pytest.LogCaptureFixture) -> None:
    with Host(configuration()) as host:
        host.dma.unmap(MEMORY.address, 2 * QUEUE_BYTES)
        with pytest.raises(AssertionError, match="does not boot"):
            host.boot()
    assert "nothing is mapped there" in caplog.text


def test_an_npu_that_faults_in_the_middle(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.NPU_BUS_ERROR)
    assert host.result(send_digits(host)).status == CoreStatus.ERROR
    (report,) = host.reports
    assert report.reason == "the NPU stopped with BUS_ERROR"
    assert report.fault is not None
    assert report.fault.status is Status.BUS_ERROR
    assert_works(host)


def test_an_npu_that_hangs_is_freed_by_a_reset(host: Host) -> None:
    host.subsystem.inject(SubsystemInjection.NPU_HANG)
    send_digits(host)
    host.settle()
    host.ask(MessageType.PING)
    passed = threading.Event()
    host.clock.call_at(host.clock.now() + 3 * SECOND, passed.set)
    assert passed.wait(60)
    host.boot()
    assert_works(host)


def test_time_stands_still_while_an_answer_is_not_read(host: Host) -> None:
    passed = threading.Event()
    host.port.on_interrupt(0, None)
    send_digits(host)
    host.settle()
    host.clock.call_at(host.clock.now() + SECOND, passed.set)
    assert not passed.wait(0.2)
    host.port.on_interrupt(0, host.take_messages)
    host.take_messages()
    assert passed.wait(60)


@pytest.mark.parametrize("pause", [0, 0.0005, 0.003])
def test_resets_in_the_middle_of_inferences(pause: float) -> None:
    compiled = compiled_by_vela(float_edges(), "ethos-u65-256").content
    digits = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    with Host(configuration(npus=2, networks=(digits, compiled))) as host:
        for _ in range(3):
            for _ in range(4):
                send_digits(host)
                host.infer(by_index(1), [host.allocate(32)], [host.allocate(16)])
            threading.Event().wait(pause)
            host.boot()
        assert_works(host)


def test_a_reset_ends_an_operator_of_the_cortex_m() -> None:
    with Host(replace(configuration(), arena=Range(0x2000_0000, 32 << 20))) as host:
        content = slow_convolution(256)
        network = read_network(content)
        sizes = [[network.tensors[i].nbytes for i in ends] for ends in (network.inputs, network.outputs)]
        inputs, outputs = ([host.allocate(size) for size in side] for side in sizes)
        before = workers()
        host.infer(in_buffer(host.put(content)), inputs, outputs)
        deadline = time.monotonic() + 60
        while not any(cpu_ticks(pid) > 100 for pid in workers() - before):
            assert time.monotonic() < deadline, "no operator runs"
            time.sleep(0.05)
        host.boot()
        assert host.ask(MessageType.VERSION_REQ).minor == 2
        assert host.answers[0][0] is MessageType.VERSION_RSP, "what was running is not answered"


def test_power_off_with_work_under_way_leaves_no_thread() -> None:
    digits = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    before = set(threading.enumerate())
    host = Host(configuration(npus=2, networks=(digits,)))
    for _ in range(6):
        send_digits(host)
    host.close()
    assert set(threading.enumerate()) == before


def test_damaged_networks_are_errors() -> None:
    """Bytes of a network changed at random: any answer but none, and the firmware lives."""
    content = compiled_by_vela(float_edges(), "ethos-u65-256").content
    rng = random.Random(5)
    with Host(configuration()) as host:
        place, result = host.allocate(32), host.allocate(64)
        model = host.allocate(len(content))
        statuses = set()
        for _ in range(80):
            damaged = bytearray(content)
            for _ in range(rng.choice((1, 1, 2, 8, 64))):
                damaged[rng.randrange(len(content))] = rng.randrange(256)
            size = rng.choice((len(content), len(content), rng.randrange(len(content))))
            host.write(model, bytes(damaged))
            network = in_buffer(Range(model.address, size))
            answer = host.result(host.infer(network, [place], [Range(result.address, 16)]))
            info = host.ask(MessageType.NETWORK_INFO_REQ, ci.NetworkInfoReq(0, network))
            assert info.status in (CoreStatus.OK, CoreStatus.ERROR)
            statuses.add(answer.status)
        assert statuses == {CoreStatus.OK, CoreStatus.ERROR}
        assert all(report.reason is None or "firmware itself" not in report.reason for report in host.reports)
        assert host.ask(MessageType.VERSION_REQ).minor == 2


def test_random_bytes_in_the_queue() -> None:
    rng = random.Random(7)
    with Host(configuration()) as host:
        for _ in range(100):
            kind = rng.randrange(16)
            header = bytes(ci.Message(ci.MAGIC, kind, rng.randrange(400)))
            host.send_bytes(rng.choice((header, b"")) + rng.randbytes(rng.randrange(320)))
            if rng.random() < 0.1:
                host.in_queue.write = rng.randrange(1 << 32)
                host.ring()
            host.settle()
        host.boot()
        assert host.ask(MessageType.VERSION_REQ).minor == 2


def test_requests_that_point_anywhere() -> None:
    digits = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    rng = random.Random(9)
    edges = (0, 1, 0x2000_0000, MEMORY.address, MEMORY.address + MEMORY.size - 10, 0xFFFF_FFF0)
    with Host(configuration(networks=(digits,))) as host:
        for _ in range(200):
            inputs = [Range(rng.choice(edges), 64)]
            outputs = [Range(rng.choice(edges), rng.choice((10, 64, 0xFFFF_FFFF)))]
            host.result(host.infer(by_index(0), inputs, outputs))
            host.write(Range(MEMORY.address + 0x8000, 16), bytes(16))
        host.boot()
        assert_works(host)
