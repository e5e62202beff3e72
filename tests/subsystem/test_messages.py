# SPDX-License-Identifier: Apache-2.0
"""The firmware over its queues: every message, and what is none."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.hw.ethosu import core_interface as ci
from npubox.hw.ethosu.core_interface import CoreStatus, ErrorType, MessageType
from npubox.hw.ethosu.mailbox import MailboxReg
from tests.networks import compiled_by_vela, float_output, fully_connected
from tests.subsystem.host import MEMORY, Host, by_index, configuration, in_buffer


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(
        configuration(networks=(compiled_by_vela(fully_connected(), "ethos-u65-256").content,))
    ) as booted:
        yield booted


def test_ping_is_answered_and_a_pong_is_not(host: Host) -> None:
    host.send(MessageType.PONG)
    host.send(MessageType.PING)
    assert host.answer(0)[0] is MessageType.PONG
    assert len(host.answers) == 1


def test_version(host: Host) -> None:
    version = host.ask(MessageType.VERSION_REQ)
    assert (version.major, version.minor, version.patch, version.reserved) == (0, 2, 0, 0)


@pytest.mark.parametrize(
    ("accelerator", "product", "macs"),
    [("ethos-u65-256", 6, 8), ("ethos-u65-512", 6, 9), ("ethos-u55-128", 4, 7)],
)
def test_capabilities_are_the_fields_of_the_npus_registers(accelerator: str, product: int, macs: int) -> None:
    with Host(configuration(accelerator)) as host:
        answer = host.ask(MessageType.CAPABILITIES_REQ, ci.CapabilitiesReq(0x1_0000_0007))
    assert answer.user_arg == 0x1_0000_0007
    assert (answer.product_major, answer.macs_per_cc) == (product, macs)
    assert (answer.arch_major_rev, answer.arch_minor_rev, answer.arch_patch_rev) == (1, 0, 6)
    assert (answer.cmd_stream_version, answer.custom_dma, answer.version_status) == (0, 0, 1)


def test_network_info_of_a_buffer_and_of_a_network_of_the_firmwares_own(host: Host) -> None:
    model = host.put(compiled_by_vela(fully_connected(), "ethos-u65-256").content)
    for network in (in_buffer(model), by_index(0)):
        info = host.ask(MessageType.NETWORK_INFO_REQ, ci.NetworkInfoReq(9, network))
        assert (info.user_arg, info.status, info.desc) == (9, CoreStatus.OK, b"Vela Optimised")
        assert (info.ifm_count, info.ifm_size[0]) == (1, 8)
        assert (info.ofm_count, info.ofm_size[0]) == (1, 4)


def test_network_layout_tells_what_nxps_uapi_asks_for(host: Host) -> None:
    model = host.put(compiled_by_vela(float_output(), "ethos-u65-256").content)
    layout = host.ask(MessageType.NETWORK_LAYOUT_REQ, ci.NetworkInfoReq(3, in_buffer(model)))
    assert (layout.user_arg, layout.status, layout.is_vela) == (3, CoreStatus.OK, 1)
    ifm, ofm = layout.ifm[0], layout.ofm[0]
    assert (layout.ifm_count, ifm.size, ifm.type, list(ifm.shape[: ifm.dims])) == (1, 8, 9, [1, 8])
    assert (layout.ofm_count, ofm.size, ofm.type, list(ofm.shape[: ofm.dims])) == (1, 16, 0, [1, 4])
    assert layout.arena_size >= max(ifm.offset + ifm.size, ofm.offset + ofm.size)
    uncompiled = host.put(fully_connected())
    layout = host.ask(MessageType.NETWORK_LAYOUT_REQ, ci.NetworkInfoReq(4, in_buffer(uncompiled)))
    assert (layout.status, layout.is_vela) == (CoreStatus.OK, 0)


@pytest.mark.parametrize(
    "network",
    [
        ci.Network(ci.NetworkType.BUFFER, 0x6000, 100),  # nothing is mapped there
        ci.Network(ci.NetworkType.BUFFER, MEMORY.address + MEMORY.size - 8, 4096),
        ci.Network(ci.NetworkType.BUFFER, 0xFFFF_FFFF, 0xFFFF_FFFF),
        ci.Network(ci.NetworkType.BUFFER, MEMORY.address, 0),
        ci.Network(ci.NetworkType.BUFFER, MEMORY.address + 0x10000, 4096),  # zeros
        ci.Network(ci.NetworkType.INDEX, 1, 0),
        ci.Network(ci.NetworkType.INDEX, 0xFFFF_FFFF, 0),
        ci.Network(0, 0, 0),
        ci.Network(77, 0, 0),
    ],
    ids=[
        "unmapped",
        "past the end",
        "wraps",
        "empty",
        "no model",
        "index 1",
        "index -1",
        "type 0",
        "type 77",
    ],
)
def test_a_network_that_is_none_is_an_error_status(host: Host, network: ci.Network) -> None:
    info = host.ask(MessageType.NETWORK_INFO_REQ, ci.NetworkInfoReq(5, network))
    assert (info.user_arg, info.status, info.ifm_count, info.ofm_count) == (5, CoreStatus.ERROR, 0, 0)
    layout = host.ask(MessageType.NETWORK_LAYOUT_REQ, ci.NetworkInfoReq(6, network))
    assert (layout.user_arg, layout.status) == (6, CoreStatus.ERROR)
    answer = host.result(host.infer(network, [], []))
    assert answer.status == CoreStatus.ERROR
    assert host.reports[-1].reason
    assert host.ask(MessageType.VERSION_REQ).minor == 2, "the firmware goes on"


def test_cancel_of_what_does_not_wait_is_an_error(host: Host) -> None:
    answer = host.ask(MessageType.CANCEL_INFERENCE_REQ, ci.CancelInferenceReq(8, 4711))
    assert (answer.user_arg, answer.status) == (8, CoreStatus.ERROR)


def message(kind: int, payload: bytes = b"", magic: int = ci.MAGIC) -> bytes:
    return bytes(ci.Message(magic, kind, len(payload))) + payload


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"short", ErrorType.INVALID_SIZE, b"Failed to read a complete header"),
        (message(MessageType.PING, magic=0x41457630), ErrorType.INVALID_MAGIC, b"Invalid magic"),
        (message(99), ErrorType.UNSUPPORTED_TYPE, b"Unsupported message type 99"),
        (message(MessageType.INFERENCE_RSP), ErrorType.UNSUPPORTED_TYPE, b"Unsupported message type 5"),
        (message(14), ErrorType.UNSUPPORTED_TYPE, b"Unsupported message type 14"),
        (
            message(MessageType.INFERENCE_REQ, bytes(295)),
            ErrorType.INVALID_PAYLOAD,
            b"INFERENCE_REQ. Failed to read payload",
        ),
        (
            message(MessageType.CANCEL_INFERENCE_REQ, bytes(3)),
            ErrorType.INVALID_PAYLOAD,
            b"CANCEL_INFERENCE_REQ. Failed to read payload",
        ),
    ],
)
def test_what_is_no_message_is_refused_and_the_queue_dropped(
    host: Host, data: bytes, error: ErrorType, text: bytes
) -> None:
    host.send_bytes(data)
    kind, answer = host.answer(0)
    assert kind is MessageType.ERR
    assert (answer.type, answer.msg) == (error, text)
    assert host.ask(MessageType.VERSION_REQ).minor == 2, "what comes after it is read again"


def test_the_length_of_a_header_is_not_looked_at(host: Host) -> None:
    host.send(MessageType.CAPABILITIES_REQ, ci.CapabilitiesReq(1), length=0xFFFF)
    assert host.answer(0)[1].user_arg == 1


def test_an_error_message_of_the_host_drops_the_queue_and_is_not_answered(host: Host) -> None:
    host.send_bytes(
        message(MessageType.ERR, bytes(ci.ErrorMessage(type=0, msg=b"oops"))) + message(MessageType.PING)
    )
    host.settle()
    assert host.ask(MessageType.VERSION_REQ).minor == 2
    assert [kind for kind, _ in host.answers] == [MessageType.VERSION_RSP]


@pytest.mark.parametrize("field", ["read", "write"])
def test_indices_that_point_outside_are_an_error_and_repaired(host: Host, field: str) -> None:
    setattr(host.in_queue, field, 0xFFFF_0000)
    host.port.write32(MailboxReg.TX_SET, 1)
    kind, answer = host.answer(0)
    assert (kind, answer.type) == (MessageType.ERR, ErrorType.INVALID_SIZE)
    assert host.ask(MessageType.VERSION_REQ).minor == 2


def test_messages_wrap_around_the_end_of_the_rings(host: Host) -> None:
    for number in range(2 * host.in_queue.size // (12 + 8) + 5):
        assert host.ask(MessageType.CAPABILITIES_REQ, ci.CapabilitiesReq(number)).user_arg == number


def test_answers_that_do_not_fit_are_dropped(host: Host) -> None:
    host.port.on_interrupt(0, None)
    room = host.out_queue.size // (ctypes.sizeof(ci.Message) + ctypes.sizeof(ci.VersionRsp))
    for _ in range(room + 10):
        host.send(MessageType.VERSION_REQ)
        host.settle()
    host.port.on_interrupt(0, host.take_messages)
    host.take_messages()
    assert [kind for kind, _ in host.answers] == [MessageType.VERSION_RSP] * room
    host.ask(MessageType.PING)
    assert host.answers[-1][0] is MessageType.PONG


def test_the_short_queue_header_of_before_2022_06_28_and_nxp() -> None:
    with Host(configuration(short_header=True)) as host:
        assert ctypes.sizeof(host.in_queue) == 12
        assert host.ask(MessageType.VERSION_REQ).minor == 2


def test_registers(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    assert host.port.read32(MailboxReg.RESET) == 0
    assert host.port.read32(MailboxReg.TX_STAT) in (0, 1)
    assert host.port.read32(0x200) == 0
    host.port.write32(MailboxReg.RX_SET, 1)
    assert "no register to write" in caplog.text
    assert host.port.read32(MailboxReg.RX_STAT) == 0


def test_powered_up_it_is_in_reset() -> None:
    built = configuration()
    host = Host(built)
    host.port.write32(MailboxReg.RESET, 1)
    assert host.port.read32(MailboxReg.RESET) == 1
    host.port.write32(MailboxReg.TX_SET, 1)
    assert host.port.read32(MailboxReg.TX_STAT) == 1, "nobody takes the doorbell"
    host.close()


def test_an_arena_share_is_whole_pages() -> None:
    built = configuration(npus=3)
    assert [share.address % 4096 for share in map(built.arena_of, range(3))] == [0, 0, 0]
    assert built.arena_of(2).address + built.arena_of(2).size <= built.arena.address + built.arena.size
    assert built.fast_memory_of(0) == Range(0x1000_0000, 0x80000)
