# SPDX-License-Identifier: Apache-2.0
"""Every struct and number of the core interface against the facts' tables (ethosu-linux.md §2.1 to §2.3)."""

from __future__ import annotations

import ctypes

import pytest

from npubox.bus.port import DmaRange, device_address
from npubox.hw.ethosu import core_interface as ci

LAYOUTS: dict[type[ctypes.Structure], tuple[int, dict[str, int]]] = {
    ci.QueueHeader: (36, {"size": 0, "read": 4, "pad": 8, "write": 32}),
    ci.QueueHeaderShort: (12, {"size": 0, "read": 4, "write": 8}),
    ci.Message: (12, {"magic": 0, "type": 4, "length": 8}),
    ci.Buffer: (8, {"ptr": 0, "size": 4}),
    ci.Network: (12, {"type": 0, "ptr": 4, "size": 8}),
    ci.InferenceReq: (
        296,
        {
            "user_arg": 0,
            "ifm_count": 8,
            "ifm": 12,
            "ofm_count": 140,
            "ofm": 144,
            "network": 272,
            "pmu_event_config": 284,
            "pmu_cycle_counter_enable": 292,
        },
    ),
    ci.InferenceRsp: (
        136,
        {
            "user_arg": 0,
            "ofm_count": 8,
            "ofm_size": 12,
            "status": 76,
            "pmu_event_config": 80,
            "pmu_event_count": 88,
            "pmu_cycle_counter_enable": 120,
            "pmu_cycle_counter_count": 128,
        },
    ),
    ci.NetworkInfoReq: (24, {"user_arg": 0, "network": 8}),
    ci.NetworkInfoRsp: (
        184,
        {
            "user_arg": 0,
            "desc": 8,
            "ifm_count": 40,
            "ifm_size": 44,
            "ofm_count": 108,
            "ofm_size": 112,
            "status": 176,
        },
    ),
    ci.VersionRsp: (4, {"major": 0, "minor": 1, "patch": 2, "reserved": 3}),
    ci.CapabilitiesReq: (8, {"user_arg": 0}),
    ci.CapabilitiesRsp: (
        64,
        {
            "user_arg": 0,
            "version_status": 8,
            "version_minor": 12,
            "version_major": 16,
            "product_major": 20,
            "arch_patch_rev": 24,
            "arch_minor_rev": 28,
            "arch_major_rev": 32,
            "driver_patch_rev": 36,
            "driver_minor_rev": 40,
            "driver_major_rev": 44,
            "macs_per_cc": 48,
            "cmd_stream_version": 52,
            "custom_dma": 56,
        },
    ),
    ci.CancelInferenceReq: (16, {"user_arg": 0, "inference_handle": 8}),
    ci.CancelInferenceRsp: (16, {"user_arg": 0, "status": 8}),
    ci.ErrorMessage: (132, {"type": 0, "msg": 4}),
}
TYPES = {
    "ERR": 1,
    "PING": 2,
    "PONG": 3,
    "INFERENCE_REQ": 4,
    "INFERENCE_RSP": 5,
    "VERSION_REQ": 6,
    "VERSION_RSP": 7,
    "CAPABILITIES_REQ": 8,
    "CAPABILITIES_RSP": 9,
    "NETWORK_INFO_REQ": 10,
    "NETWORK_INFO_RSP": 11,
    "CANCEL_INFERENCE_REQ": 12,
    "CANCEL_INFERENCE_RSP": 13,
}
PAYLOAD_BYTES = (132, 0, 0, 296, 136, 0, 4, 8, 64, 24, 184, 16, 16)
OURS = ("NETWORK_LAYOUT_REQ", "NETWORK_LAYOUT_RSP")


@pytest.mark.parametrize("struct", LAYOUTS, ids=lambda struct: struct.__name__)
def test_struct(struct: type[ctypes.Structure]) -> None:
    size, offsets = LAYOUTS[struct]
    assert ctypes.sizeof(struct) == size
    assert {field[0]: getattr(struct, field[0]).offset for field in struct._fields_} == offsets


def test_message_types_and_the_size_of_their_payloads() -> None:
    assert {kind.name: kind.value for kind in ci.MessageType if kind.name not in OURS} == TYPES
    sizes = tuple(ctypes.sizeof(ci.PAYLOADS[ci.MessageType(number)]) for number in TYPES.values())
    assert sizes == PAYLOAD_BYTES
    assert set(ci.PAYLOADS) == set(ci.MessageType)


def test_numbers() -> None:
    assert ci.MAGIC.to_bytes(4, "little") == bytes((0x31, 0x76, 0x45, 0x41))
    assert ci.VERSION == (0, 2, 0)
    assert [status.name for status in ci.CoreStatus] == [
        "OK",
        "ERROR",
        "RUNNING",
        "REJECTED",
        "ABORTED",
        "ABORTING",
    ]
    assert list(ci.CoreStatus) == list(range(6))
    assert {kind.name: int(kind) for kind in ci.ErrorType} == {
        "GENERIC": 0,
        "UNSUPPORTED_TYPE": 1,
        "INVALID_PAYLOAD": 2,
        "INVALID_SIZE": 3,
        "INVALID_MAGIC": 4,
    }
    assert {kind.name: int(kind) for kind in ci.NetworkType} == {"BUFFER": 1, "INDEX": 2}


def test_addresses_are_translated_by_the_first_range_that_holds_them_strictly() -> None:
    ranges = (DmaRange(0x60000000, 0x80000000, 0x1000), DmaRange(0x10000000, 0x80000000, 0x20000000))
    assert device_address(ranges, 0x80000010, 0x20) == 0x60000010
    assert device_address(ranges, 0x80000000, 0x1000) == 0x10000000, "a range that ends with it is not taken"
    assert device_address(ranges, 0x7FFFFFFF, 1) == 0x7FFFFFFF
    assert device_address((), 0x1234, 1) == 0x1234
