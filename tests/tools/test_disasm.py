# SPDX-License-Identifier: Apache-2.0
"""Disassembly covers every byte, names every command Vela emits and guesses nothing."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npubox.errors import ModelError
from npubox.formats.network import CommandStream
from npubox.hw.ethosu.commands import Cmd0, Cmd1
from npubox.tools.command_fields import CMD0_FIELDS, CMD1_FIELDS
from npubox.tools.disasm import Line, disassemble, disassemble_stream
from tests.networks import SHARED_NAMES, compiled_by_vela, shared_network


def one(*words: int) -> Line:
    (line,) = disassemble(struct.pack(f"<{len(words)}I", *words))
    return line


def assembled(lines: list[Line]) -> bytes:
    return b"".join(struct.pack(f"<{len(line.words)}I", *line.words) + line.left_over for line in lines)


@pytest.mark.parametrize("generator", [(), ("--debug-force-legacy-core",)])
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-256", "ethos-u65-512"])
@pytest.mark.parametrize("name", SHARED_NAMES)
def test_every_command_of_real_streams(name: str, accelerator: str, generator: tuple[str, ...]) -> None:
    npu = compiled_by_vela(shared_network(name).read_bytes(), accelerator, *generator).operators[0].npu
    assert npu is not None
    lines = list(disassemble_stream(npu.stream))
    assert assembled(lines) == npu.stream.words
    assert [line.problem for line in lines if line.problem] == []
    assert lines[-1].name == "NPU_OP_STOP"
    operations = {line.name for line in lines if line.name.startswith("NPU_OP_")}
    assert operations & {"NPU_OP_CONV", "NPU_OP_DEPTHWISE"}


@settings(deadline=None)
@given(st.binary(max_size=256))
def test_offsets_cover_any_bytes_exactly(words: bytes) -> None:
    lines = list(disassemble(words))
    assert assembled(lines) == words
    at = 0
    for line in lines:
        assert line.offset == at
        at += line.size
        json.dumps(line.to_json())
        assert "\n" not in line.text
    assert at == len(words)


def test_the_table_has_every_declared_command() -> None:
    assert CMD0_FIELDS.keys() == set(Cmd0)
    assert CMD1_FIELDS.keys() == set(Cmd1)


@pytest.mark.parametrize(
    ("words", "name", "shown"),
    [
        ((0x00000002,), "NPU_OP_CONV", {}),
        ((0xFFFF0000,), "NPU_OP_STOP", {"value": "0xffff"}),
        ((0x00010005,), "NPU_OP_POOL", {"mode": "AVERAGE"}),
        ((0x00070006,), "NPU_OP_ELEMENTWISE", {"mode": "CLZ"}),
        ((0xFF800109,), "NPU_SET_IFM_ZERO_POINT", {"value": "-128"}),
        (
            (0x02450105,),
            "NPU_SET_IFM_PRECISION",
            {"signed": "1", "bits": "16", "format": "NHCWB16", "scale_mode": "OPB_32", "rounding": "DOUBLE"},
        ),
        (
            (0x81430114,),
            "NPU_SET_OFM_PRECISION",
            {"signed": "1", "bits": "16", "format": "NHCWB16", "scale": "GLOBAL", "rounding": "NATURAL"},
        ),
        (
            (0x024E0122,),
            "NPU_SET_KERNEL_STRIDE",
            {
                "stride_x": "3",
                "stride_y": "4",
                "weight_order": "PART_KERNEL_FIRST",
                "dilation_x": "2",
                "dilation_y": "1",
                "decomposition": "8x8",
            },
        ),
        ((0x30110125,), "NPU_SET_ACTIVATION", {"function": "TABLE1", "clip_range": "INT8"}),
        (
            (0x00C20180,),
            "NPU_SET_IFM2_BROADCAST",
            {"height": "0", "width": "1", "depth": "0", "operand_a": "IFM2", "constant": "1"},
        ),
        ((0x01030131,), "NPU_SET_DMA0_DST_REGION", {"region": "3", "internal": "1", "stride_mode": "D1"}),
        ((0x00124000, 0x34567890), "NPU_SET_IFM_BASE0", {"address": "0x1234567890"}),
        ((0x00FF4015, 0xFFFFFFF0), "NPU_SET_OFM_STRIDE_Y", {"stride": "-16"}),
        ((0x002B4024, 0x60000000), "NPU_SET_OFM_SCALE", {"scale": str(0x60000000), "shift": "43"}),
    ],
)
def test_fields_in_their_own_terms(words: tuple[int, ...], name: str, shown: dict[str, str]) -> None:
    line = one(*words)
    assert (line.name, line.shown, line.problem) == (name, shown, None)


def test_values_without_a_name_stay_numbers() -> None:
    assert one(0x003F0006).shown == {"mode": "63"}


@pytest.mark.parametrize("word", [0x00000004, 0x00008002, 0x00000402, 0x000001FF])
def test_unknown_codes_are_shown_by_number(word: int) -> None:
    line = one(word)
    assert (line.name, line.fields, line.problem) == (f"unknown {word:#06x}", {}, "unknown command")


def test_bit_14_takes_the_next_word_though_the_code_is_unknown() -> None:
    line = one(0x00004007, 0x1234)
    assert (line.name, line.words) == ("unknown 0x4007", (0x4007, 0x1234))


def test_bits_beyond_the_fields_are_pointed_out() -> None:
    assert one(0x0010010F).problem == "bits that mean nothing here are set: 0x10"


def test_truncated_cmd1_is_named() -> None:
    line = one(0x00004010)
    assert (line.name, line.problem) == ("NPU_SET_OFM_BASE0", "truncated: the payload word is missing")


def test_left_over_bytes_are_named() -> None:
    line = list(disassemble(struct.pack("<I", 2) + b"\x01\x02"))[-1]
    assert (line.offset, line.size, line.problem) == (4, 2, "2 bytes left over: 0102")


def test_text_and_json() -> None:
    line = one(0x00124000, 0x34567890)
    assert line.text == "0x000000  00124000 34567890  NPU_SET_IFM_BASE0         address=0x1234567890"
    assert line.to_json() == {
        "offset": 0,
        "code": 0x4000,
        "name": "NPU_SET_IFM_BASE0",
        "fields": {"address": 0x1234567890},
        "shown": {"address": "0x1234567890"},
        "words": [0x00124000, 0x34567890],
        "problem": None,
    }


def test_u85_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="the command stream is for ethos-u85-256"):
        list(disassemble_stream(CommandStream(b"", 0x20000118, 0x20007000, "COP1")))
