# SPDX-License-Identifier: Apache-2.0
"""Several NPUs: who takes what, at which device time, whatever the host's pace."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from npubox.bus.virtual import VirtualClock
from npubox.devices.ethosu_subsystem.faults import SubsystemInjection
from npubox.devices.ethosu_subsystem.schedule import NpuClock, Schedule
from npubox.hw.ethosu import core_interface as ci
from npubox.hw.ethosu.core_interface import CoreStatus, MessageType
from tests.networks import compiled_by_vela, shared_network
from tests.subsystem.host import Host, configuration, in_buffer
from tests.vectors import shared_vectors

KWS = "kws_dscnn_int8"


class Request:
    def __init__(self, user_arg: int) -> None:
        self.user_arg = user_arg


def schedule(npus: int = 2, depth: int = 8) -> Schedule[Request]:
    made: Schedule[Request] = Schedule(VirtualClock(), npus, depth)
    made.start()
    return made


def taken(scheduled: Schedule[Request], npu: int) -> int | None:
    request = scheduled.take(npu)
    return None if request is None else request.user_arg


def test_the_npu_that_is_free_first_in_device_time_takes_the_next_one() -> None:
    scheduled = schedule()
    for number in range(3):
        assert scheduled.push(Request(number), 0)
    assert (taken(scheduled, 0), taken(scheduled, 1)) == (0, 1)
    NpuClock(scheduled, 0).advance_to(100)
    scheduled.release(0)
    got: list[int | None] = []
    late = threading.Thread(target=lambda: got.append(taken(scheduled, 0)))
    late.start()
    NpuClock(scheduled, 1).advance_to(60)
    scheduled.release(1)
    assert taken(scheduled, 1) == 2, "NPU 1 is free at 60, NPU 0 only at 100"
    assert scheduled.time_of(1) == 60
    scheduled.stop()
    late.join()
    assert got == [None]


def test_an_npu_that_is_free_waits_for_nobody() -> None:
    scheduled = schedule()
    scheduled.push(Request(0), 0)
    assert taken(scheduled, 0) == 0
    scheduled.push(Request(1), 0)
    assert taken(scheduled, 1) == 1


def test_a_stuck_npu_holds_up_nobody() -> None:
    scheduled = schedule()
    for number in range(3):
        scheduled.push(Request(number), 0)
    assert (taken(scheduled, 0), taken(scheduled, 1)) == (0, 1)
    NpuClock(scheduled, 0).begin_hang()
    NpuClock(scheduled, 1).advance_to(500)
    scheduled.release(1)
    assert taken(scheduled, 1) == 2


def test_time_is_that_of_the_npu_that_is_behind() -> None:
    clock = VirtualClock()
    scheduled: Schedule[Request] = Schedule(clock, 2, 8)
    scheduled.start()
    for number in range(2):
        scheduled.push(Request(number), 0)
    assert (taken(scheduled, 0), taken(scheduled, 1)) == (0, 1)
    NpuClock(scheduled, 0).advance_to(100)
    assert clock.now() == 0
    NpuClock(scheduled, 1).advance_to(40)
    assert clock.now() == 40
    scheduled.release(0)
    assert clock.now() == 40
    NpuClock(scheduled, 1).advance_to(70)
    scheduled.release(1)
    assert clock.now() == 100, "nobody is busy: what has passed has passed"


def test_a_full_fifo_and_what_is_taken_back() -> None:
    scheduled = schedule(depth=2)
    assert scheduled.push(Request(1), 0)
    assert scheduled.push(Request(2), 0)
    assert not scheduled.push(Request(3), 0)
    assert scheduled.remove(1)
    assert not scheduled.remove(1)
    assert scheduled.push(Request(3), 0)
    assert (taken(scheduled, 0), taken(scheduled, 1)) == (2, 3)


def device_time_of_eight(npus: int) -> tuple[int, set[int]]:
    """Device time of eight inferences that come at once, in ns, and the NPUs that they ran on."""
    vectors = (shared_vectors(KWS) * 8)[:8]
    with Host(configuration(npus=npus)) as host:
        model = host.put(compiled_by_vela(shared_network(KWS).read_bytes(), "ethos-u65-256").content)
        places = [host.put(vector.inputs[0].tobytes()) for vector in vectors]
        results = [host.allocate(vector.outputs[0].nbytes) for vector in vectors]
        ids = [
            host.infer(in_buffer(model), [place], [result], ring=False)
            for place, result in zip(places, results, strict=True)
        ]
        start = host.clock.now()
        host.ring()
        for request, result, vector in zip(ids, results, vectors, strict=True):
            assert host.result(request).status == CoreStatus.OK
            assert host.get(result) == vector.outputs[0].tobytes()
        assert len(host.answers) == len(host.reports) == len(ids)
        end = max(report.end_ns for report in host.reports)
        assert host.clock.now() == end
        return end - start, {report.npu for report in host.reports}


@pytest.mark.shared
def test_two_npus_take_half_the_device_time_of_one() -> None:
    one, single = device_time_of_eight(1)
    two, both = device_time_of_eight(2)
    three, all_three = device_time_of_eight(3)
    assert (single, both, all_three) == ({0}, {0, 1}, {0, 1, 2})
    assert two * 2 == one
    assert three * 8 == one * 3, "three rounds"


@pytest.mark.shared
def test_what_waits_can_be_cancelled_and_what_is_too_much_is_rejected() -> None:
    (vector, *_) = shared_vectors(KWS)
    with Host(replace(configuration(), waiting=2)) as host:
        model = host.put(compiled_by_vela(shared_network(KWS).read_bytes(), "ethos-u65-256").content)
        place, result = host.put(vector.inputs[0].tobytes()), host.allocate(vector.outputs[0].nbytes)
        host.subsystem.inject(SubsystemInjection.NPU_HANG)
        running = host.infer(in_buffer(model), [place], [result])
        host.settle()
        waiting = [host.infer(in_buffer(model), [place], [result]) for _ in range(2)]
        rejected = host.infer(in_buffer(model), [place], [result])
        assert host.result(rejected).status == CoreStatus.REJECTED
        host.ask(MessageType.PING)
        assert host.answers[-1][0] is MessageType.PONG, "a hung NPU is no hung firmware"
        for request, expected in (
            (waiting[1], CoreStatus.OK),
            (running, CoreStatus.ERROR),
            (0, CoreStatus.ERROR),
        ):
            before = len(host.answers)
            host.send(MessageType.CANCEL_INFERENCE_REQ, ci.CancelInferenceReq(900, request))
            host.settle()
            kinds = [kind for kind, _ in host.answers[before:]]
            assert kinds[-1] is MessageType.CANCEL_INFERENCE_RSP
            assert kinds[:-1] == [MessageType.INFERENCE_RSP] * (expected == CoreStatus.OK), (
                "before the answer"
            )
            assert (host.answers[-1][1].user_arg, host.answers[-1][1].status) == (900, expected)
        assert host.result(waiting[1]).status == CoreStatus.ABORTED
