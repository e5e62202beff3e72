# SPDX-License-Identifier: Apache-2.0
"""Arm's driver of a subsystem on a fake one: its calls, its errnos, what it says to the firmware."""

from __future__ import annotations

import ctypes
import errno
import mmap
import select
from typing import Any

import pytest

from npubox.core.file import PagesStandIn, SignalStandIn
from npubox.drivers.misc.ethosu.file import Policy
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi import ethosu_linux_nxp as nxp
from npubox.uapi.ioctl import Ioctl
from tests.drivers.ethosu_linux.calls import buffer, errno_of, infer, mapped, network, pages, status, window
from tests.drivers.ethosu_linux.fake_subsystem import CAPABILITIES, FakeSubsystem, Program, plugged

WILD = 0x10


# the device


def test_probe_boots_and_pings(port: FakeSubsystem) -> None:
    assert port.boots == 1
    assert [kind for kind, _ in port.received] == [core.MessageType.PING]
    assert not port.clock.armed, "an idle device has no timer"


def test_ping_and_version(program: Program, port: FakeSubsystem) -> None:
    assert program.make(program.device, uapi.PING) == 0
    assert program.make(program.device, uapi.VERSION_REQ) == 0
    assert [kind for kind, _ in port.received[1:]] == [core.MessageType.PING, core.MessageType.VERSION_REQ]
    assert not port.clock.armed


def test_capabilities(program: Program) -> None:
    args, result = program.call(program.device, uapi.CAPABILITIES_REQ)
    told = {
        field[0]: getattr(part, field[0])
        for part in (args.hw_id, args.hw_cfg, args)
        for field in part._fields_
        if not isinstance(getattr(part, field[0]), ctypes.Structure)
    }
    assert (result, told) == (0, CAPABILITIES)


def test_capabilities_without_an_answer_is_etime_in_device_time(
    program: Program, port: FakeSubsystem
) -> None:
    port.deaf = True
    args = uapi.DeviceCapabilities()
    pending = program.begin(program.device, uapi.CAPABILITIES_REQ.number, ctypes.addressof(args))
    assert not isinstance(pending, int)
    port.clock.advance(1_999_999_999)
    assert not pending.done
    port.clock.advance(1)
    assert errno_of(pending.wait) == errno.ETIME
    port.deaf = False
    port.process()  # the answer to a call that has ended is ignored
    assert not port.clock.armed


def test_a_full_queue_is_einval(program: Program, port: FakeSubsystem) -> None:
    port.deaf = True
    for _ in range((port.inbound.data_bytes - 1) // ctypes.sizeof(core.Message)):
        program.make(program.device, uapi.PING)
    assert errno_of(program.call, program.device, uapi.PING) == errno.EINVAL
    port.deaf = False
    port.process()


# buffers


def test_a_buffer_is_zeroed_memory_behind_an_fd(program: Program, port: FakeSubsystem) -> None:
    fd = buffer(program, 5000)
    file = program.files.files[fd]
    assert isinstance(file.stand_in, PagesStandIn)
    assert file.stand_in.size == 8192
    assert window(program, fd) == (0, 0)
    assert pages(program, fd)[:] == bytes(mmap.PAGESIZE)
    assert file.poll() & select.POLLIN
    ((address, row),) = port.dma.mapped.items()
    assert row[2] == 8192
    assert 0x6000_0000 <= address < 0x8000_0000, "dma-ranges translate for the subsystem"


@pytest.mark.parametrize(("offset", "length"), [(0, 8193), (4096, 4097), (8192, 1)])
def test_mapping_beyond_a_buffer_is_enxio(program: Program, offset: int, length: int) -> None:
    file = program.files.files[buffer(program, 5000)]
    assert errno_of(mapped, program, file, length, offset) == errno.ENXIO


def test_nothing_else_can_be_mapped(program: Program) -> None:
    for fd in (program.device, network(program)):
        file = program.files.files[fd]
        assert errno_of(mapped, program, file, 4096, 0) == errno.ENODEV


def test_the_window(program: Program) -> None:
    fd = buffer(program, 100)
    assert program.make(fd, uapi.BUFFER_SET, offset=60, size=40) == 0
    assert window(program, fd) == (60, 40)
    for offset, size in ((61, 40), (0xFFFF_FFFF, 2)):
        assert errno_of(program.call, fd, uapi.BUFFER_SET, offset=offset, size=size) == errno.EINVAL
    assert window(program, fd) == (60, 40), "a refused one changes nothing"


def test_bad_buffers(program: Program, port: FakeSubsystem) -> None:
    assert errno_of(buffer, program, 0) == errno.EINVAL
    assert errno_of(buffer, program, 1 << 25) == errno.ENOMEM
    program.files.most = len(program.files.files)
    assert errno_of(buffer, program, 16) == errno.EMFILE
    assert not port.dma.mapped


# networks


def test_network_info(program: Program, port: FakeSubsystem) -> None:
    fd = network(program)
    args, result = program.call(fd, uapi.NETWORK_INFO, ifm_size=(ctypes.c_uint32 * 16)(*[7] * 16))
    assert (result, args.desc, args.ifm_count, args.ofm_count) == (0, b"network", 1, 1)
    assert list(args.ifm_size) == [4, *[7] * 15], "entries beyond the count keep the caller's bytes"
    (sent,) = port.sent(core.MessageType.NETWORK_INFO_REQ)
    assert (sent.network.type, port.memory(sent.network)) == (core.NetworkType.BUFFER, b"model")


def test_network_by_index(program: Program, port: FakeSubsystem) -> None:
    for type_ in (uapi.NetworkType.INDEX, 77):
        program.call(program.make(program.device, uapi.NETWORK_CREATE, type=type_, fd=3), uapi.NETWORK_INFO)
        sent = port.sent(core.MessageType.NETWORK_INFO_REQ)[-1]
        assert (sent.network.type, sent.network.ptr) == (core.NetworkType.INDEX, 3)


def test_network_info_of_nxp(program: Program) -> None:
    args, _ = program.call(network(program), nxp.NETWORK_INFO)
    assert (args.desc, args.is_vela, args.ifm_count, args.ofm_count) == (b"network", 1, 1, 1)
    assert (args.ifm_size[0], args.ifm_types[0], args.ifm_offset[0], args.ifm_dims[0]) == (4, 9, 16, 2)
    assert (args.ofm_size[0], args.ofm_types[0], args.ofm_offset[0], args.ofm_dims[0]) == (4, 9, 32, 2)
    assert list(args.ofm_shapes[0]) == [1, 4, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("declared", [uapi.NETWORK_INFO, nxp.NETWORK_INFO], ids=["arm", "nxp"])
def test_network_info_errnos(program: Program, port: FakeSubsystem, declared: Ioctl[Any]) -> None:
    fd = network(program)
    port.description = b"d" * 32
    assert errno_of(program.call, fd, declared) == errno.E2BIG
    port.network_status = core.CoreStatus.ERROR
    assert errno_of(program.call, fd, declared) == errno.EBADF


@pytest.mark.parametrize("fd", [0, 1999])
def test_a_network_of_something_else_is_einval(program: Program, fd: int) -> None:
    call = {"type": uapi.NetworkType.BUFFER, "fd": fd}
    assert errno_of(program.call, program.device, uapi.NETWORK_CREATE, **call) == errno.EINVAL
    call["fd"] = program.device
    assert errno_of(program.call, program.device, uapi.NETWORK_CREATE, **call) == errno.EINVAL


def test_a_buffer_of_another_node_is_refused(program: Program) -> None:
    with plugged() as (_, other_device):
        other = Program(other_device)
        theirs = program.files.install(other.files.files.pop(buffer(other, 8)), 0o2000002)
        call = {"type": uapi.NetworkType.BUFFER, "fd": theirs}
        assert errno_of(program.call, program.device, uapi.NETWORK_CREATE, **call) == errno.EINVAL
        assert errno_of(infer, program, network(program), [theirs], []) == errno.EINVAL
        program.close(theirs)
        other.exit()


# inferences


def test_an_inference(program: Program, port: FakeSubsystem) -> None:
    port.holds = {core.MessageType.INFERENCE_REQ}
    output = buffer(program, 16, b"ab")
    fd = infer(program, network(program), [buffer(program, 4, b"1234"), buffer(program, 2, b"56")], [output])
    file = program.files.files[fd]
    assert isinstance(file.stand_in, SignalStandIn)
    assert (status(program, fd), file.poll()) == (uapi.Status.RUNNING, 0)
    port.answer_held()
    assert (status(program, fd), file.poll()) == (uapi.Status.OK, select.POLLIN)
    assert pages(program, output)[:8] == b"ab234567", "output goes behind the bytes that are valid"
    assert window(program, output) == (0, 8)
    assert not port.clock.armed


def test_performance_counters(program: Program) -> None:
    args = uapi.InferenceCreate()
    args.pmu_config.events[:] = [1, 0, 3, 4, 5, 6, 7, 255]
    args.pmu_config.cycle_count = 1
    fd = program.ioctl(network(program), uapi.INFERENCE_CREATE.number, ctypes.addressof(args))
    told, _ = program.call(fd, uapi.INFERENCE_STATUS)
    assert list(told.pmu_config.events) == [1, 0, 3, 4, 5, 6, 7, 255]
    assert list(told.pmu_count.events) == [10, 0, 30, 40, 50, 60, 70, 2550]
    assert (told.pmu_config.cycle_count, told.pmu_count.cycle_count) == (1, 1 << 33)
    told, _ = program.call(fd, nxp.INFERENCE_STATUS)
    assert list(told.pmu_count.events) == [10, 0, 30, 40]
    assert told.pmu_count.cycle_count == 1 << 33
    args.pmu_config.events[0] = 256
    address = ctypes.addressof(args)
    assert errno_of(program.ioctl, network(program), uapi.INFERENCE_CREATE.number, address) == errno.EINVAL


def test_outputs_that_do_not_fit_are_an_error(program: Program, port: FakeSubsystem) -> None:
    port.holds = {core.MessageType.INFERENCE_REQ}
    output = buffer(program, 4)
    fd = infer(program, network(program), [buffer(program, 4, b"1234")], [output])
    program.call(output, uapi.BUFFER_SET, offset=0, size=1)
    port.answer_held()
    assert status(program, fd) is uapi.Status.ERROR


def test_bad_inferences(program: Program) -> None:
    net = network(program)
    for count in ({"ifm_count": 17}, {"ofm_count": 17}):
        assert errno_of(program.call, net, uapi.INFERENCE_CREATE, **count) == errno.EFAULT
    assert errno_of(infer, program, net, [0], []) == errno.EINVAL
    assert errno_of(infer, program, net, [], [net]) == errno.EINVAL
    program.files.most = len(program.files.files)
    assert errno_of(infer, program, net, [], []) == errno.EMFILE


# NXP's inferences


def test_nxp_arena_first(program: Program) -> None:
    output = buffer(program, 4)
    inputs = [buffer(program, 64), buffer(program, 4, b"1234")]
    fd = infer(program, network(program), inputs, [output], nxp.INFERENCE_CREATE)
    assert status(program, fd) is uapi.Status.OK
    assert pages(program, output)[:4] == b"2345"


def test_nxp_tensors_in_the_arena(program: Program) -> None:
    net, arena = network(program), buffer(program, 64)
    assert errno_of(infer, program, net, [arena], [], nxp.INFERENCE_CREATE) == errno.EINVAL
    program.call(net, nxp.NETWORK_INFO)
    pages(program, arena)[16:20] = b"abcd"
    fd = infer(program, net, [arena], [], nxp.INFERENCE_CREATE)
    args, _ = program.call(fd, nxp.INFERENCE_STATUS)
    assert args.status == uapi.Status.OK
    assert pages(program, arena)[32:36] == b"bcde"
    small = buffer(program, 33)
    assert errno_of(infer, program, net, [small], [], nxp.INFERENCE_CREATE) == errno.EINVAL
    assert errno_of(infer, program, net, [], [], nxp.INFERENCE_CREATE) == errno.EINVAL


def test_nxp_staging_is_invoked_as_often_as_wanted(program: Program, port: FakeSubsystem) -> None:
    arena = buffer(program, 64)
    args = nxp.InferenceCreateStaging(ifm_count=1)
    args.ifm_fd[0] = arena
    layout = args.memory_layout
    layout.input_count, layout.input_offset[0], layout.input_size[0] = 1, 8, 4
    layout.output_count, layout.output_offset[0], layout.output_size[0] = 1, 40, 4
    number = nxp.INFERENCE_CREATE_STAGING.number
    fd = program.ioctl(network(program), number, ctypes.addressof(args))
    assert not port.sent(core.MessageType.INFERENCE_REQ), "it only prepares"
    assert program.files.files[fd].poll() == 0
    for text, expected in ((b"1234", b"2345"), (b"wxyz", b"xyz{")):
        pages(program, arena)[8:12] = text
        told, _ = program.call(fd, nxp.INFERENCE_INVOKE)
        assert (told.status, pages(program, arena)[40:44]) == (uapi.Status.OK, expected)
    args.inference_type = nxp.InferenceType.OP
    address = ctypes.addressof(args)
    assert errno_of(program.ioctl, network(program), number, address) == errno.EOPNOTSUPP


# bad calls

FDS = ("device", "buffer", "network", "inference")


def fds(program: Program) -> dict[str, int]:
    net = network(program)
    made = {"device": program.device, "buffer": buffer(program, 8), "network": net}
    return made | {"inference": infer(program, net, [], [])}


def test_unknown_commands_are_enotty(program: Program) -> None:
    for fd in fds(program).values():
        assert errno_of(program.ioctl, fd, 0x00000199, 0) == errno.ENOTTY
    assert errno_of(program.call, program.device, uapi.INFERENCE_STATUS) == errno.ENOTTY


POINTERS = [
    ("device", uapi.CAPABILITIES_REQ, None),
    ("device", uapi.BUFFER_CREATE, 0),
    ("buffer", uapi.BUFFER_SET, 0),
    ("buffer", uapi.BUFFER_GET, 0),
    ("device", uapi.NETWORK_CREATE, 0),
    ("network", uapi.NETWORK_INFO, 0),
    ("network", uapi.INFERENCE_CREATE, 0),
    ("inference", uapi.INFERENCE_STATUS, None),
    ("inference", uapi.INFERENCE_CANCEL, None),
]


@pytest.mark.parametrize(
    ("file", "declared", "original"), POINTERS, ids=lambda value: getattr(value, "name", "")
)
def test_wild_pointers(program: Program, file: str, declared: Ioctl[Any], original: int | None) -> None:
    fd = fds(program)[file]
    assert errno_of(program.ioctl, fd, declared.number, WILD) == errno.EFAULT
    with plugged(Policy.ORIGINAL) as (_, device):
        other = Program(device)
        fd = fds(other)[file]
        if original is None:
            assert errno_of(other.ioctl, fd, declared.number, WILD) == errno.EFAULT
        else:
            assert other.ioctl(fd, declared.number, WILD) == original
        other.exit()


def test_the_original_answers_unknown_commands() -> None:
    with plugged(Policy.ORIGINAL) as (_, device):
        program = Program(device)
        assert [program.ioctl(fd, 0x00000199, 0) for fd in fds(program).values()] == [0, 0, 0, 0]
        args = uapi.InferenceCreate()
        args.pmu_config.events[0] = 0x1FF
        fd = program.ioctl(network(program), uapi.INFERENCE_CREATE.number, ctypes.addressof(args))
        assert program.call(fd, uapi.INFERENCE_STATUS)[0].pmu_config.events[0] == 0xFF, "narrowed to a byte"
        program.exit()
