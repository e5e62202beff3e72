# SPDX-License-Identifier: Apache-2.0
"""Driver payloads: the stream inside them, what it was made for, and damage called by its name."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npubox.errors import ModelError
from npubox.formats.network import CommandStream
from npubox.formats.payload import CONFIGURATIONS, config_name, parse_payload
from tests.networks import SHARED_NAMES, compiled_by_vela, fully_connected, shared_network

STOP = struct.pack("<I", 0xFFFF0000)
STREAM = struct.pack("<3I", 0x0000_0123, 0x0000_4000, 0x10) + STOP
CONFIG, NPU_ID = 0x10003008, 0x10066001
NOP = struct.pack("<I", 5)


def cop1(stream: bytes = STREAM, *, actions: bytes = b"", nops: int = 3, words: int | None = None) -> bytes:
    count = len(stream) // 4 if words is None else words
    header = b"COP1" + struct.pack("<3I", 0x00100001, CONFIG, NPU_ID)
    length = struct.pack("<I", 2 | (count >> 16) << 8 | (count & 0xFFFF) << 16)
    return header + actions + NOP * nops + length + stream


def cop2(stream: bytes = STREAM, *, addressing: int = 1) -> bytes:
    metadata = struct.pack("<IIHHI", 36, 0x4D554556, 1, 0, 20) + struct.pack(
        "<IIIQ", CONFIG, NPU_ID, addressing, 0
    )
    body = metadata + b"\xff" * 4 + stream
    entry = struct.pack("<II", 1, len(body)) + body
    return b"COP2" + struct.pack("<HHQ", 1, 0, len(entry)) + entry


def test_cop1() -> None:
    assert parse_payload(cop1()) == CommandStream(STREAM, CONFIG, NPU_ID, "COP1", offset=32)


def test_cop1_length_of_more_than_16_bits() -> None:
    stream = STREAM[:4] * 70_000 + STOP
    assert parse_payload(cop1(stream)).words == stream


@pytest.mark.parametrize(("addressing", "separate"), [(1, False), (2, True)])
def test_cop2(addressing: int, separate: bool) -> None:
    parsed = parse_payload(cop2(addressing=addressing))
    assert parsed == CommandStream(STREAM, CONFIG, NPU_ID, "COP2", separate, offset=64)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "starts with b''"),
        (b"COP3" + cop1()[4:], "starts with b'COP3'"),
        (cop1()[:-2], "no whole number of words"),
        (cop1()[:-4], "should be 16 bytes long but 12 follow"),
        (cop1()[:12], "ends inside the optimizer configuration"),
        (cop1()[:16], "no command stream"),
        (cop1(nops=2), "starts at byte 28, not on a 16-byte boundary"),
        (cop1(b""), "should be 0 bytes long"),
        (cop1(words=1 << 20), "should be 4194304 bytes long but 16 follow"),
        (b"COP1" + cop1()[16:28] + NOP * 3 + cop1()[28:], "no configuration"),
        (cop1() + bytes(4), "unknown driver action 0 in word 12"),
        (cop1(actions=struct.pack("<I", 3)), "asks the driver to read an APB register"),
        (cop1(actions=struct.pack("<I", 4)), "asks the driver to dump the SHRAM"),
        (cop1() + NOP * 3 + cop1()[28:], "two command streams"),
        (cop2()[:30], "ends inside the COP2 header"),
        (cop2()[:-4], "not as long as its COP2 header says"),
        (cop2() + bytes(4), "not as long as its COP2 header says"),
        (cop2(addressing=3), "unknown COP2 addressing 3"),
        (cop2()[:4] + b"\x02" + cop2()[5:], "COP2 of an unknown version"),
        (cop2()[:28] + b"XXXX" + cop2()[32:], "damaged COP2 header"),
    ],
)
def test_damage_is_called_by_its_name(payload: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_payload(payload)


@settings(deadline=None)
@given(st.sampled_from([cop1(), cop2()]), st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_damage_never_is_another_error(payload: bytes, at: int, value: int, length: int) -> None:
    damaged = bytearray(payload)
    damaged[at % len(payload)] = value
    with contextlib.suppress(ModelError):
        parse_payload(bytes(damaged)[:length])


@pytest.mark.parametrize("accelerator", sorted(CONFIGURATIONS.values()))
def test_vela_writes_the_words_of_each_configuration(accelerator: str) -> None:
    npu = compiled_by_vela(fully_connected(), accelerator).operators[0].npu
    assert npu is not None
    assert config_name(npu.stream.config, npu.stream.npu_id) == accelerator


def test_unknown_configurations_are_not_given_a_name() -> None:
    assert config_name(0x10003008 | 1 << 27, 0x10066001) == "ethos-u65-256"
    assert config_name(0x1000300A, 0x10066001) == "an unknown Ethos-U (CONFIG 0x1000300a, ID 0x10066001)"
    assert "unknown" in config_name(0x10003008, 0x20007000)


@pytest.mark.parametrize("generator", [(), ("--debug-force-legacy-core",)])
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-256"])
@pytest.mark.parametrize("name", SHARED_NAMES)
def test_both_generators(name: str, accelerator: str, generator: tuple[str, ...]) -> None:
    npu = compiled_by_vela(shared_network(name).read_bytes(), accelerator, *generator).operators[0].npu
    assert npu is not None
    assert npu.stream.words.endswith(STOP)
    assert config_name(npu.stream.config, npu.stream.npu_id) == accelerator
    assert npu.stream.npu_id == (0x10060000 if generator else 0x10066001)


@pytest.mark.parametrize("separate", [False, True])
def test_cop2_of_vela_holds_the_stream_of_cop1(separate: bool) -> None:
    content = shared_network("kws_dscnn_int8").read_bytes()
    options = ("--cop-format", "COP2") + (("--separate-io-regions",) if separate else ())
    first = compiled_by_vela(content, "ethos-u65-256").operators[0].npu
    second = compiled_by_vela(content, "ethos-u65-256", *options).operators[0].npu
    assert first is not None
    assert second is not None
    assert second.stream.cop == "COP2"
    assert second.stream.separate_io is separate
    assert (second.stream.words == first.stream.words) is not separate
