# SPDX-License-Identifier: Apache-2.0
"""What Arm's driver does about a firmware that goes wrong, about cancels, and about objects closed early."""

from __future__ import annotations

import ctypes
import errno
import itertools
import select
import time
from typing import Any

import pytest

from npubox.core.pending import Pending
from npubox.drivers.misc.ethosu.drv import EthosuDevice
from npubox.drivers.misc.ethosu.watchdog import MS, Timeouts
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi
from tests.drivers.ethosu_linux.calls import Plugged, buffer, errno_of, infer, network, pages, status
from tests.drivers.ethosu_linux.fake_subsystem import FakeSubsystem, Program, plugged

INFERENCE = core.MessageType.INFERENCE_REQ
PING = core.MessageType.PING
RUNNING, OK, ERROR, ABORTED = (
    uapi.Status.RUNNING,
    uapi.Status.OK,
    uapi.Status.ERROR,
    uapi.Status.ABORTED,
)


def start(program: Program, content: bytes = b"1234") -> tuple[int, int]:
    """An inference and its output."""
    output = buffer(program, 4)
    return infer(program, network(program), [buffer(program, 4, content)], [output]), output


def wait(program: Program, port: FakeSubsystem, fd: int) -> uapi.Status:
    deadline = time.monotonic() + 20
    while not program.files.files[fd].poll():
        assert time.monotonic() < deadline, "the inference does not end"
        time.sleep(0.001)
    return status(program, fd)


def works(program: Program, port: FakeSubsystem) -> None:
    """The next inference does."""
    port.holds = set()
    fd, output = start(program, b"abcd")
    assert wait(program, port, fd) is OK
    assert pages(program, output)[:4] == b"bcde"


def let_pass(port: FakeSubsystem, milliseconds: int) -> None:
    for _ in range(milliseconds // 500):
        port.clock.advance(500 * MS)


# the watchdog


def test_a_long_inference_is_pinged_and_left_alone(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    let_pass(port, 8_500)
    assert (status(program, fd), port.boots) == (RUNNING, 1)
    assert len(port.sent(PING)) > 2
    port.answer_held()
    assert status(program, fd) is OK


def test_a_silent_firmware_is_reset_after_one_ping(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE, PING}
    first, _ = start(program)
    second, output = start(program)
    port.clock.advance(3000 * MS - 1)
    assert len(port.sent(PING)) == 1
    port.clock.advance(1)
    assert (len(port.sent(PING)), port.boots, status(program, first)) == (2, 1, RUNNING)
    port.holds = set()
    port.clock.advance(3000 * MS)
    assert status(program, first) is ERROR, "what was running fails"
    assert wait(program, port, second) is OK, "what waited is sent again"
    assert pages(program, output)[:4] == b"2345"
    assert port.boots == 2
    works(program, port)


def test_a_lost_inference_fails_alone(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    lost, _ = start(program)
    port.held.clear()
    let_pass(port, 4_000)
    port.holds = set()
    other, _ = start(program)
    assert status(program, other) is OK
    let_pass(port, 4_500)
    assert status(program, lost) is RUNNING
    port.clock.advance(500 * MS)
    assert status(program, lost) is ERROR
    works(program, port)
    assert port.boots == 2


def test_each_oldest_inference_has_its_time(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    fds = [start(program)[0] for _ in range(3)]
    for fd in fds:
        let_pass(port, 8_000)
        held, port.held = port.held[0], port.held[1:]
        port.answer(*held)
        assert status(program, fd) is OK
    assert port.boots == 1


# bad answers


def time_out(program: Program, port: FakeSubsystem, fd: int) -> None:
    let_pass(port, 9_000)
    assert wait(program, port, fd) is ERROR
    works(program, port)
    assert port.boots == 2


def test_an_answer_with_a_wrong_id_is_ignored(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    answer = port.infer(port.held.pop()[1])  # type: ignore[arg-type]
    answer.user_arg += 1000
    port.send(core.MessageType.INFERENCE_RSP, answer)
    assert status(program, fd) is RUNNING
    time_out(program, port, fd)


def test_an_answer_of_the_wrong_kind_is_ignored(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    port.send(core.MessageType.CAPABILITIES_RSP, core.CapabilitiesRsp(user_arg=port.held[0][1].user_arg))
    assert status(program, fd) is RUNNING
    port.answer_held()
    assert status(program, fd) is OK


def test_an_answer_with_a_wrong_magic_is_lost_with_all_behind_it(
    program: Program, port: FakeSubsystem
) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    answer = port.infer(port.held.pop()[1])  # type: ignore[arg-type]
    port.send(core.MessageType.INFERENCE_RSP, answer, magic=0x31764541)
    assert status(program, fd) is RUNNING
    assert port.outbound.header.read == port.outbound.header.write
    time_out(program, port, fd)


@pytest.mark.parametrize(
    ("type_", "length"), [(5, 135), (5, 100_000), (99, 0), (3, 4)], ids=["short", "huge", "type", "long"]
)
def test_malformed_messages_are_dropped(
    program: Program, port: FakeSubsystem, type_: int, length: int
) -> None:
    port.outbound.write(bytes(core.Message(core.MAGIC, type_, length)) + bytes(min(length, 300)))
    port.ring()
    assert port.outbound.header.read == port.outbound.header.write
    works(program, port)
    assert port.boots == 1


def test_an_error_message_is_dropped(program: Program, port: FakeSubsystem) -> None:
    port.send(core.MessageType.ERR, core.ErrorMessage(core.ErrorType.INVALID_MAGIC, b"Invalid magic"))
    works(program, port)


def test_a_ping_of_the_firmware_is_answered(port: FakeSubsystem) -> None:
    port.send(PING, core.Empty())
    assert port.received[-1][0] is core.MessageType.PONG


@pytest.mark.parametrize("name", ["read", "write", "size"])
def test_a_corrupt_queue_ends_in_a_reset(program: Program, port: FakeSubsystem, name: str) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    port.outbound.set(name, 0xFFFF_FFF0)
    port.ring()
    port.holds = {INFERENCE, PING}  # what is answered cannot be read
    let_pass(port, 5_500)
    assert status(program, fd) is RUNNING
    port.holds = set()
    port.clock.advance(500 * MS)
    assert wait(program, port, fd) is ERROR
    works(program, port)
    assert port.boots == 2


def test_a_corrupt_queue_to_the_firmware_is_einval_and_then_reset(
    program: Program, port: FakeSubsystem
) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    port.inbound.set("write", 0x7000_0000)
    assert errno_of(program.call, program.device, uapi.PING) == errno.EINVAL
    let_pass(port, 3000)
    assert wait(program, port, fd) is ERROR
    works(program, port)


def test_a_firmware_that_does_not_come_back_fails_everything(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE, PING, core.MessageType.CAPABILITIES_REQ}
    fds = [start(program)[0] for _ in range(3)]
    let_pass(port, 5_000)
    args = uapi.DeviceCapabilities()
    pending = program.begin(program.device, uapi.CAPABILITIES_REQ.number, ctypes.addressof(args))
    assert isinstance(pending, Pending)
    port.dead = True
    port.clock.advance(1000 * MS)
    assert [wait(program, port, fd) for fd in fds] == [ERROR] * 3
    assert errno_of(pending.wait) == errno.EFAULT
    assert errno_of(program.call, program.device, uapi.PING) == errno.EINVAL


def test_a_reset_repeats_calls(program: Program, port: FakeSubsystem) -> None:
    port.holds = {PING, core.MessageType.CAPABILITIES_REQ, core.MessageType.NETWORK_INFO_REQ}
    net = network(program)
    start(program)
    program.call(program.device, uapi.PING)
    let_pass(port, 2_500)
    capabilities, info = uapi.DeviceCapabilities(), uapi.NetworkInfo()
    pendings = [
        program.begin(program.device, uapi.CAPABILITIES_REQ.number, ctypes.addressof(capabilities)),
        program.begin(net, uapi.NETWORK_INFO.number, ctypes.addressof(info)),
    ]
    port.holds = set()
    port.clock.advance(500 * MS)
    assert [pending.wait() for pending in pendings if isinstance(pending, Pending)] == [0, 0]
    assert (port.boots, capabilities.hw_cfg.macs_per_cc, info.desc) == (2, 11, b"network")


# cancelling


def cancel(program: Program, fd: int) -> tuple[int | Pending, uapi.CancelInferenceStatus]:
    args = uapi.CancelInferenceStatus(status=99)
    return program.begin(fd, uapi.INFERENCE_CANCEL.number, ctypes.addressof(args)), args


def cancelled(program: Program, fd: int) -> uapi.Status:
    result, args = cancel(program, fd)
    assert (result.wait() if isinstance(result, Pending) else result) == 0
    return uapi.Status(args.status)


def test_cancelling_what_waits(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    fd, _ = start(program)
    assert cancelled(program, fd) is OK
    assert (status(program, fd), program.files.files[fd].poll()) == (ABORTED, select.POLLIN)
    assert port.boots == 1


def test_cancelling_what_is_over(program: Program, port: FakeSubsystem) -> None:
    fd, _ = start(program)
    assert cancelled(program, fd) is ERROR
    assert status(program, fd) is OK
    assert not port.sent(core.MessageType.CANCEL_INFERENCE_REQ)


def test_cancelling_what_runs_resets(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE}
    running, _ = start(program)
    port.held.clear()  # it has left the firmware's queue
    waiting, _ = start(program)
    port.holds = set()
    assert cancelled(program, running) is OK
    assert status(program, running) is ABORTED
    assert wait(program, port, waiting) is OK
    assert port.boots == 2
    works(program, port)


def test_a_cancel_without_an_answer_is_eio(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE, core.MessageType.CANCEL_INFERENCE_REQ}
    fd, _ = start(program)
    result, _ = cancel(program, fd)
    assert isinstance(result, Pending)
    assert status(program, fd) is uapi.Status.ABORTING
    port.clock.advance(2000 * MS)
    assert errno_of(result.wait) == errno.EIO
    port.answer_held()
    assert status(program, fd) is OK


def test_a_reset_completes_a_cancel(program: Program, port: FakeSubsystem) -> None:
    port.holds = {INFERENCE, PING, core.MessageType.CANCEL_INFERENCE_REQ}
    first, _ = start(program)
    second, _ = start(program)
    let_pass(port, 5_500)
    result, args = cancel(program, second)
    assert isinstance(result, Pending)
    port.clock.advance(2999 * MS) if result.done else port.clock.advance(500 * MS)
    assert (result.wait(), args.status) == (0, OK)
    assert (status(program, first), status(program, second)) == (ERROR, ABORTED)


# lifetimes

NAMES = ("device", "model", "input", "output", "network", "inference")


@pytest.mark.parametrize("last", NAMES)
def test_files_closed_in_every_order_during_a_run(last: str) -> None:
    """Nothing is freed early: the run uses its buffers. Nothing leaks: in the end all are gone."""
    with plugged() as (port, device):
        for order in itertools.permutations([name for name in NAMES if name != last]):
            check_order(port, device, (*order, last))


def check_order(port: FakeSubsystem, device: EthosuDevice, order: tuple[str, ...]) -> None:
    port.holds = {INFERENCE}
    program = Program(device)
    fds: dict[str, int] = {"device": program.device}
    fds["model"] = buffer(program, 8, b"model")
    fds["input"], fds["output"] = buffer(program, 4, b"1234"), buffer(program, 4)
    kind = {"type": uapi.NetworkType.BUFFER, "fd": fds["model"]}
    fds["network"] = program.make(program.device, uapi.NETWORK_CREATE, **kind)
    fds["inference"] = infer(program, fds["network"], [fds["input"]], [fds["output"]])
    view = pages(program, fds["output"])
    for name in order:
        program.close(fds[name])
        assert len(port.dma.mapped) == 3, f"{order}: closing {name} freed a buffer of a run"
    request: Any = port.held[0][1]
    assert port.memory(request.network) == b"model"
    port.answer_held()
    assert view[:4] == b"2345"
    assert device.objects == 0
    assert not port.dma.mapped
    assert not port.clock.armed


def test_files_closed_after_a_run(program: Program, port: FakeSubsystem, subsystem: Plugged) -> None:
    fd, output = start(program)
    program.close(fd)
    assert pages(program, output)[:4] == b"2345"
    program.exit()
    assert subsystem[1].objects == 0


def test_a_killed_call_lets_go(program: Program, port: FakeSubsystem, subsystem: Plugged) -> None:
    port.deaf = True
    net = network(program)
    args = uapi.NetworkInfo()
    pending = program.begin(net, uapi.NETWORK_INFO.number, ctypes.addressof(args))
    assert isinstance(pending, Pending)
    pending.cancel()
    program.exit()
    assert subsystem[1].objects == 0
    assert not port.clock.armed


def test_unplugging_ends_everything(program: Program, port: FakeSubsystem, subsystem: Plugged) -> None:
    port.holds = {INFERENCE, core.MessageType.CAPABILITIES_REQ}
    fd, _ = start(program)
    args = uapi.DeviceCapabilities()
    pending = program.begin(program.device, uapi.CAPABILITIES_REQ.number, ctypes.addressof(args))
    assert isinstance(pending, Pending)
    subsystem[1].unplug()
    assert errno_of(pending.wait) == errno.ENODEV
    assert program.files.files[fd].poll() == select.POLLIN
    for number in list(program.files.files):
        assert errno_of(program.call, number, uapi.PING) in (errno.ENODEV, errno.ENOTTY)
    assert errno_of(program.call, fd, uapi.INFERENCE_STATUS) == errno.ENODEV
    assert port.in_reset


def test_timeouts_are_the_originals() -> None:
    timeouts = Timeouts()
    assert (timeouts.capabilities, timeouts.network_info, timeouts.cancel) == (
        2000 * MS,
        3000 * MS,
        2000 * MS,
    )
    assert (timeouts.watchdog, timeouts.boot) == (3000 * MS, 1000 * MS)
