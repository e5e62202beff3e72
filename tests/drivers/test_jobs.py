# SPDX-License-Identifier: Apache-2.0
"""SUBMIT, the NPU's registers, completion, faults, time-outs and what a closed file leaves behind."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from npubox.core.drm.device import DrmDevice
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.reservation import Usage
from npubox.core.lock import DeviceLock
from npubox.core.node import Node
from npubox.drivers.accel.ethosu.gem import EthosuBo
from npubox.drivers.accel.ethosu.job import JOB_TIMEOUT, MS, EthosuJob, Npu
from npubox.hw.ethosu.registers import Reg, Status
from npubox.uapi import drm
from npubox.uapi import ethosu_accel as uapi
from tests.core.refaccel import call, fails
from tests.core.test_queue import settle
from tests.drivers.fake_npu import (
    DRAM,
    SRAM,
    SRAM_SIZE,
    FakePort,
    bo_create,
    bo_wait,
    cmdstream,
    gem_close,
    job,
    submit,
)
from tests.drivers.streams import STOP, copy, stream, words

FOREVER = (1 << 63) - 1
RW = mmap.PROT_READ | mmap.PROT_WRITE


@pytest.fixture
def move(node: Node) -> int:
    """A stream that reads 8192 bytes of region 0 and writes them to region 1."""
    return cmdstream(node, stream(copy(0, 1, 8192)))


@pytest.fixture
def sram_move(node: Node) -> int:
    """A stream that writes 4096 bytes of region 2."""
    return cmdstream(node, stream(copy(0x100, 2, 4096)))


@pytest.mark.parametrize(
    ("regions", "error"),
    [
        ({}, errno.ENOENT),
        ({"r0": 100, "r1": 4}, errno.ENOENT),
        ({"r0": 3, "r1": 4, "r5": 4}, errno.EINVAL),
        ({"r0": 3, "r1": 1}, errno.EINVAL),
        ({"r0": 3, "r1": 5}, errno.EOVERFLOW),
        ({"r0": 3, "r1": 3}, errno.EALREADY),
        ({"r0": 3, "r1": 4, "r2": 4}, errno.EINVAL),
    ],
    ids=[
        "no buffer",
        "unknown",
        "unused region",
        "a command stream",
        "too small",
        "twice",
        "unused SRAM region",
    ],
)
def test_region_errors(node: Node, port: FakePort, move: int, regions: dict[str, int], error: int) -> None:
    cmdstream(node, words(STOP))
    assert [bo_create(node, size) for size in (8192, 8192, 8191 - 4096)] == [3, 4, 5]
    with fails(error):
        submit(node, job(move, **regions))
    assert port.runs == 0


def test_one_object_under_two_handles_is_still_one(device: DrmDevice) -> None:
    with Node.open(device, sys_admin=True) as node:
        stream_handle = cmdstream(node, stream(copy(0, 1, 16)))
        handle = bo_create(node, 4096)
        second = call(node, drm.GEM_OPEN, name=call(node, drm.GEM_FLINK, handle=handle).name).handle
        with fails(errno.EALREADY):
            submit(node, job(stream_handle, r0=handle, r1=second))


def test_stream_and_sram_errors(node: Node, port: FakePort, sram_move: int) -> None:
    plain = bo_create(node, 8192)
    empty = cmdstream(node, words(STOP))
    for bad, error in (
        (job(99), errno.ENOENT),
        (job(0), errno.ENOENT),
        (job(plain), errno.EINVAL),
        (job(sram_move, sram_size=SRAM_SIZE + 1), errno.EINVAL),
        (job(sram_move, sram_size=4095), errno.EINVAL),
        (job(sram_move), errno.EINVAL),
        (job(sram_move, sram_size=4096, r2=plain), errno.EINVAL),
        (job(99, sram_size=1, r2=plain), errno.EINVAL),
        (job(empty, r2=plain), errno.EINVAL),
    ):
        with fails(error):
            submit(node, bad)
    assert port.runs == 0
    submit(node, job(empty, sram_size=SRAM_SIZE))
    port.complete()


def test_region_2_can_be_a_buffer(node: Node, port: FakePort, sram_move: int) -> None:
    submit(node, job(sram_move, r2=bo_create(node, 4096)))
    assert (Reg.BASEP0 + 16, DRAM + 0x2000) in port.writes
    port.complete()


def test_registers_of_a_start(node: Node, port: FakePort) -> None:
    data = stream([*copy(0, 1, 64), *copy(0x100, 2, 64)])
    code = cmdstream(node, data + b"\0")
    one, two = bo_create(node, 4096), bo_create(node, 4096)
    port.writes.clear()
    submit(node, job(code, sram_size=SRAM_SIZE, r0=one, r1=two))
    expected = {
        Reg.BASEP0: DRAM + 0x2000,
        Reg.BASEP0 + 8: DRAM + 0x4000,
        Reg.BASEP0 + 16: SRAM,
        Reg.QBASE: DRAM,
        Reg.QSIZE: len(data) + 1,
    }
    assert port.writes[-1] == (Reg.CMD, 1)
    written = dict(port.writes[:-1])
    assert {register: written[register] for register in expected} == expected
    for high in (Reg.BASEP0 + 4, Reg.BASEP0 + 12, Reg.BASEP0 + 20, Reg.QBASE_HI):
        assert written[high] == 0
    port.complete()
    assert port.writes[-1] == (Reg.CMD, 2)


def test_earlier_jobs_of_a_failing_submit_stay(node: Node, port: FakePort, move: int) -> None:
    good = job(move, r0=bo_create(node, 8192), r1=bo_create(node, 8192))
    with fails(errno.ENOENT):
        submit(node, good, job(99), good)
    assert port.runs == 1
    port.complete()
    assert port.runs == 1


def test_only_written_buffers_are_fenced(node: Node, port: FakePort, move: int) -> None:
    source, target = bo_create(node, 8192), bo_create(node, 8192)
    submit(node, job(move, r0=source, r1=target))
    bo_wait(node, source)
    bo_wait(node, move)
    with fails(errno.ETIME):
        bo_wait(node, target)
    port.complete()
    bo_wait(node, target)


def test_jobs_of_a_file_run_in_order_one_at_a_time(node: Node, port: FakePort, move: int) -> None:
    events: list[tuple[int, str]] = []
    node.device.queue_observer = lambda client, number, event, error: events.append((number, event))
    buffers = [bo_create(node, 8192) for _ in range(3)]
    for source, target in zip(buffers, [*buffers[1:], buffers[0]], strict=True):
        submit(node, job(move, r0=source, r1=target))
    for number in range(3):
        assert port.runs == number + 1
        port.complete()
    assert [event for event in events if event[1] != "queued"] == [
        *((0, "started"), (0, "finished"), (1, "started"), (1, "finished"), (2, "started"), (2, "finished")),
    ]


def test_jobs_of_two_files_wait_for_each_other_through_a_shared_buffer(
    device: DrmDevice, port: FakePort
) -> None:
    with Node.open(device, sys_admin=True) as one, Node.open(device, sys_admin=True) as two:
        shared = bo_create(one, 8192)
        name = call(one, drm.GEM_FLINK, handle=shared).name
        write = cmdstream(one, stream(copy(0x100, 1, 64)))
        read = cmdstream(two, stream(copy(1, 0x100, 64)))
        theirs = call(two, drm.GEM_OPEN, name=name).handle
        submit(one, job(write, r1=shared))
        submit(two, job(read, r1=theirs))
        with fails(errno.ETIME):
            bo_wait(two, theirs)
        port.complete()
        bo_wait(two, theirs)
        assert port.runs == 2
        port.complete()


def test_bo_wait_blocks_until_the_interrupt(node: Node, port: FakePort, move: int) -> None:
    port.instant = True
    target = bo_create(node, 8192)
    for _ in range(20):
        submit(node, job(move, r0=bo_create(node, 8192), r1=target))
        bo_wait(node, target, FOREVER)
    assert port.runs == 20


def test_an_interrupt_that_is_not_ours_is_left_alone(node: Node, port: FakePort, move: int) -> None:
    target = bo_create(node, 8192)
    port.complete()
    submit(node, job(move, r0=bo_create(node, 8192), r1=target))
    port.writes.clear()
    port.interrupt(Status.RUNNING)
    assert port.writes == []
    with fails(errno.ETIME):
        bo_wait(node, target)
    port.complete()


def test_end_reached_is_not_looked_at(node: Node, port: FakePort, move: int) -> None:
    target = bo_create(node, 8192)
    submit(node, job(move, r0=bo_create(node, 8192), r1=target))
    port.interrupt(Status.IRQ_RAISED | Status.RUNNING)
    bo_wait(node, target)


@pytest.mark.parametrize("bits", [Status.BUS_ERROR, Status.PARSE_ERROR])
def test_a_fault_resets_the_npu_and_bo_wait_says_nothing(
    node: Node, port: FakePort, move: int, bits: Status
) -> None:
    events: list[tuple[int, int, str, int]] = []
    node.device.queue_observer = lambda *event: events.append(event)
    first, second = bo_create(node, 8192), bo_create(node, 8192)
    source = bo_create(node, 8192)
    submit(node, job(move, r0=source, r1=first))
    submit(node, job(move, r0=source, r1=second))
    port.writes.clear()
    port.fault(bits)
    bo_wait(node, first, time.monotonic_ns() + 10**10)
    settle(lambda: port.runs == 2)
    assert [value for offset, value in port.writes if offset == Reg.RESET] == [2]
    port.complete()
    bo_wait(node, second)
    client = node.client_id
    assert [event for event in events if event[2] == "finished"] == [
        (client, 0, "finished", errno.ECANCELED),
        (client, 1, "finished", 0),
    ]


def test_a_job_that_hangs_is_reset_after_500_ms_of_device_time(
    node: Node, port: FakePort, move: int, caplog: pytest.LogCaptureFixture
) -> None:
    target = bo_create(node, 8192)
    submit(node, job(move, r0=bo_create(node, 8192), r1=target))
    port.clock.advance(JOB_TIMEOUT - 1)
    assert port.resets == 1
    port.clock.advance(1)
    bo_wait(node, target, time.monotonic_ns() + 10**10)
    assert port.resets == 2
    assert port.clock.now() >= JOB_TIMEOUT + 100 * MS
    assert "hangs" in caplog.text
    settle(lambda: port.clock.armed == [])


def test_a_reset_clears_the_sram(node: Node, port: FakePort, sram_move: int) -> None:
    sram = node.device.driver._npu.sram  # type: ignore[attr-defined]
    os.pwrite(sram.fd, b"\xff" * SRAM_SIZE, 0)
    submit(node, job(sram_move, sram_size=4096))
    port.fault()
    node.device.driver.join()
    assert os.pread(sram.fd, SRAM_SIZE, 0) == bytes(SRAM_SIZE)


def test_a_slow_job_is_left_alone(node: Node, port: FakePort, move: int) -> None:
    port.qread_step = 4
    target = bo_create(node, 8192)
    submit(node, job(move, r0=bo_create(node, 8192), r1=target))
    for _ in range(3):
        before = port.clock.armed
        port.clock.advance(JOB_TIMEOUT)
        settle(lambda before=before: port.clock.armed not in ([], before))  # type: ignore[misc]
    with fails(errno.ETIME):
        bo_wait(node, target)
    assert port.resets == 1
    port.complete()
    bo_wait(node, target)


def test_an_npu_that_does_not_come_back_ends_every_job(
    node: Node, port: FakePort, move: int, caplog: pytest.LogCaptureFixture
) -> None:
    target = bo_create(node, 8192)
    good = job(move, r0=bo_create(node, 8192), r1=target)
    submit(node, good, good)
    port.stuck_in_reset = True
    port.fault()
    bo_wait(node, target, time.monotonic_ns() + 10**10)
    with fails(errno.ENODEV):
        submit(node, good)
    assert port.runs == 1
    assert "does not come out of reset" in caplog.text


def test_a_late_interrupt_of_a_lost_job_does_not_end_the_next(node: Node, port: FakePort, move: int) -> None:
    first, second, source = (bo_create(node, 8192) for _ in range(3))
    submit(node, job(move, r0=source, r1=first), job(move, r0=source, r1=second))
    port.fault()
    settle(lambda: port.runs == 2)
    port.interrupt(Status.RUNNING)
    with fails(errno.ETIME):
        bo_wait(node, second)
    port.complete()


def test_closing_a_file_kills_what_waits(device: DrmDevice, port: FakePort) -> None:
    events: list[tuple[int, int, str, int]] = []
    device.queue_observer = lambda *event: events.append(event)
    node = Node.open(device)
    client = node.client_id
    move = cmdstream(node, stream(copy(0, 1, 64)))
    for _ in range(3):
        submit(node, job(move, r0=bo_create(node, 64), r1=bo_create(node, 64)))
    node.close()
    assert device.files == []
    assert device.object_count == 2 + 2 + 2 + 1
    assert port.runs == 1
    port.complete()
    assert port.runs == 1
    assert [event for event in events if event[2] == "finished"] == [
        (client, 0, "finished", 0),
        (client, 1, "finished", errno.ESRCH),
        (client, 2, "finished", errno.ESRCH),
    ]
    assert device.object_count == 0


def test_a_job_keeps_its_buffers(node: Node, port: FakePort, move: int) -> None:
    source, target = bo_create(node, 8192), bo_create(node, 8192)
    submit(node, job(move, r0=source, r1=target))
    for handle in (move, source, target):
        gem_close(node, handle)
    assert len(port.dma.mapped) == 3
    port.complete()
    assert port.dma.mapped == {}
    assert node.device.store.resident_bytes == 0


def test_results_live_in_a_mapping_after_close(device: DrmDevice, port: FakePort) -> None:
    node = Node.open(device)
    move = cmdstream(node, stream(copy(0, 1, 4096)))
    target = bo_create(node, 4096)
    offset = call(node, uapi.BO_MMAP_OFFSET, handle=target).offset
    submit(node, job(move, r0=bo_create(node, 4096), r1=target))
    mapping = node.mmap(4096, RW, mmap.MAP_SHARED, offset)
    fd, at, _, _ = port.dma.mapped[max(address for address in port.dma.mapped if address < DRAM + 0x4000)]
    gem_close(node, target)
    node.close()
    os.pwrite(fd, b"from the NPU", at)
    port.complete()
    assert mapping[:12] == b"from the NPU"
    mapping.close()


def test_unplug_ends_running_and_waiting_jobs(device: DrmDevice, port: FakePort) -> None:
    node = Node.open(device)
    move = cmdstream(node, stream(copy(0, 1, 64)))
    target = bo_create(node, 64)
    errors: list[int] = []
    device.queue_observer = lambda client, number, event, error: (
        errors.append(error) if event == "finished" else None
    )
    submit(node, *[job(move, r0=bo_create(node, 64), r1=target) for _ in range(3)])
    with waiting(node, target, errno.ENODEV):
        device.unplug()
    assert errors == [errno.ENODEV] * 3
    node.close()


def test_a_device_that_dies_in_recovery_fails_those_who_wait(
    node: Node, port: FakePort, move: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = bo_create(node, 8192)
    submit(node, job(move, r0=bo_create(node, 8192), r1=target))

    def dead(duration: int) -> None:
        raise OSError(errno.ENODEV, "the device's process has died")

    monkeypatch.setattr(port.clock, "sleep", dead)
    with waiting(node, target, errno.ENODEV):
        port.fault()
    with fails(errno.ENODEV):
        bo_wait(node, target)


@contextmanager
def waiting(node: Node, handle: int, error: int) -> Iterator[None]:
    """Somebody waits for the buffer meanwhile; its wait ends with `error`."""
    found: list[int] = []

    def wait() -> None:
        try:
            bo_wait(node, handle, FOREVER)
            found.append(0)
        except OSError as failure:
            found.append(failure.errno or 0)

    waited = threading.Thread(target=wait)
    waited.start()
    time.sleep(0.05)
    yield
    waited.join(10)
    assert found == [error]


def test_unplug_waits_for_the_timeout_handler(device: DrmDevice, port: FakePort) -> None:
    node = Node.open(device)
    submit(node, job(cmdstream(node, words(STOP))))
    entered, leave = threading.Event(), threading.Event()
    sleep = port.clock.sleep

    def slow_sleep(duration: int) -> None:
        entered.set()
        leave.wait(10)
        sleep(duration)

    port.clock.sleep = slow_sleep  # type: ignore[method-assign]
    port.fault()
    entered.wait(10)
    unplugging = threading.Thread(target=device.unplug)
    unplugging.start()
    unplugging.join(0.05)
    assert unplugging.is_alive()
    leave.set()
    unplugging.join(10)
    assert not unplugging.is_alive()
    node.close()


def test_threads_submit_wait_and_close(device: DrmDevice, port: FakePort) -> None:
    port.instant = True
    failures: list[BaseException] = []

    def client(seed: int) -> None:
        try:
            for round_ in range(8):
                with Node.open(device) as node:
                    move = cmdstream(node, stream(copy(0, 1, 64)))
                    source, target = bo_create(node, 64), bo_create(node, 64)
                    for _ in range(5):
                        submit(node, job(move, r0=source, r1=target))
                    if (seed + round_) % 3:
                        bo_wait(node, target, FOREVER)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    settle(lambda: device.object_count == 0)


def test_a_writer_waits_for_readers_and_a_reader_does_not(node: Node, port: FakePort, move: int) -> None:
    shared, other = bo_create(node, 8192), bo_create(node, 8192)
    item = node.device.object_at(call(node, uapi.BO_MMAP_OFFSET, handle=shared).offset)
    assert item is not None
    reader = Fence(new_context(), 1)
    with node.device.lock:
        item.reservation.add(reader, Usage.READ)
    submit(node, job(move, r0=shared, r1=other))
    assert port.runs == 1
    port.complete()
    submit(node, job(move, r0=other, r1=shared))
    assert port.runs == 1
    reader.signal()
    assert port.runs == 2
    port.complete()


class Later(DeviceLock):
    """A lock that keeps what is posted."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[Callable[[], None]] = []

    def post(self, work: Callable[[], None]) -> None:
        self.work.append(work)


def test_a_fault_that_is_handled_late_is_not_the_next_jobs(node: Node, port: FakePort, move: int) -> None:
    submit(node, job(move, r0=bo_create(node, 8192), r1=bo_create(node, 8192)))
    (bo,) = (item for item in node.device._objects.values() if isinstance(item, EthosuBo) and item.commands)
    later, faults = Later(), list[int]()
    other = FakePort()
    npu = Npu("npu", other, None)
    npu.connect(later, lambda: faults.append(1))
    for _ in range(2):
        npu.run_job(EthosuJob(bo, {}, 0))
        other.fault()
    later.work[0]()
    assert faults == []
    later.work[1]()
    assert faults == [1]
    with node.device.lock:
        bo.put()
        bo.put()
    port.complete()
