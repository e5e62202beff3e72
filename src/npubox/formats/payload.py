# SPDX-License-Identifier: Apache-2.0
"""The payload of an `ethos-u` operator: driver actions (COP1, COP2) around a command stream.

Source: the project's facts, ethosu-npu.md §1.2 and §1.3.
"""

from __future__ import annotations

import struct

from npubox.errors import ModelError
from npubox.formats.network import CommandStream

STREAM_ALIGNMENT = 16
AGAIN = "compile the network again"

# COP1 driver actions: the low byte of each action word.
OPTIMIZER_CONFIG = 1
COMMAND_STREAM = 2
READ_APB = 3
DUMP_SHRAM = 4
NOP = 5
REFUSED_ACTIONS = {READ_APB: "read an APB register", DUMP_SHRAM: "dump the SHRAM"}

# COP2: two headers, then the metadata that names the configuration.
COP2_HEADER = struct.Struct("<4sHHQ")  # magic, major, minor, bytes that follow
COP2_ENTRY = struct.Struct("<II")  # type, bytes of data
COP2_METADATA_HEADER = struct.Struct("<IIHHI")  # metadata bytes, magic, major, minor, bytes of the block
COP2_METADATA = struct.Struct("<IIIQ")  # CONFIG, ID, addressing, staging bytes
COP2_VERSION = (1, 0)
COP2_COMMAND_STREAM = 1
COP2_METADATA_MAGIC = 0x4D554556
COP2_METADATA_BYTES = COP2_METADATA_HEADER.size + COP2_METADATA.size
COP2_ADDRESSING = {1: False, 2: True}  # network-wide arena, or separate regions for inputs and outputs

# CONFIG with the custom-DMA bit left out, as Vela writes it and the NPU reports it.
CUSTOM_DMA = 1 << 27
CONFIGURATIONS = {
    0x00001005: "ethos-u55-32",
    0x00001006: "ethos-u55-64",
    0x00001807: "ethos-u55-128",
    0x00003008: "ethos-u55-256",
    0x10003008: "ethos-u65-256",
    0x10006009: "ethos-u65-512",
    0x20000117: "ethos-u85-128",
    0x20000118: "ethos-u85-256",
    0x20001119: "ethos-u85-512",
    0x2000251A: "ethos-u85-1024",
    0x2000261B: "ethos-u85-2048",
}


def config_name(config: int, npu_id: int) -> str:
    """The accelerator's name as Vela spells it, or the two words where no known configuration has them."""
    name = CONFIGURATIONS.get(config & ~CUSTOM_DMA)
    architecture = 2 if config >> 28 == 2 else 1
    if name is None or npu_id >> 28 != architecture:
        return f"an unknown Ethos-U (CONFIG {config:#010x}, ID {npu_id:#010x})"
    return name


def parse_payload(payload: bytes) -> CommandStream:
    """The command stream and the configuration it was made for.

    Raises `ModelError` that names the damage: wrong magic, truncated, misaligned, unknown actions.
    """
    magic = payload[:4]
    if magic == b"COP1":
        return _parse_cop1(payload)
    if magic == b"COP2":
        return _parse_cop2(payload)
    raise ModelError(f"its NPU payload starts with {magic!r} instead of COP1 or COP2: {AGAIN}")


def _parse_cop1(payload: bytes) -> CommandStream:
    if len(payload) % 4:
        raise ModelError(f"its NPU payload of {len(payload)} bytes is no whole number of words: {AGAIN}")
    words = struct.unpack(f"<{len(payload) // 4}I", payload)
    made_for: tuple[int, int] | None = None
    stream: bytes | None = None
    start = 0
    at = 1
    while at < len(words):
        action = words[at] & 0xFF
        if action == NOP:
            at += 1
        elif action == OPTIMIZER_CONFIG:
            if at + 2 >= len(words):
                raise ModelError(f"its NPU payload ends inside the optimizer configuration: {AGAIN}")
            made_for = words[at + 1], words[at + 2]
            at += 3
        elif action == COMMAND_STREAM:
            if stream is not None:
                raise ModelError(
                    "its NPU payload holds two command streams; one is taken: compile it by Vela 5"
                )
            count = words[at] >> 16 | (words[at] >> 8 & 0xFF) << 16
            start = (at + 1) * 4
            stream = _stream(payload, start, count * 4)
            at += 1 + count
        elif action in REFUSED_ACTIONS:
            raise ModelError(
                f"its NPU payload asks the driver to {REFUSED_ACTIONS[action]}, which is not modelled"
            )
        else:
            raise ModelError(f"its NPU payload has the unknown driver action {action} in word {at}: {AGAIN}")
    if made_for is None or stream is None:
        missing = "configuration" if made_for is None else "command stream"
        raise ModelError(f"its NPU payload has no {missing}: {AGAIN}")
    return CommandStream(stream, made_for[0], made_for[1], "COP1", offset=start)


def _parse_cop2(payload: bytes) -> CommandStream:
    metadata_at = COP2_HEADER.size + COP2_ENTRY.size + COP2_METADATA_HEADER.size
    if len(payload) < metadata_at + COP2_METADATA.size:
        raise ModelError(f"its NPU payload ends inside the COP2 header: {AGAIN}")
    _, *version, length = COP2_HEADER.unpack_from(payload)
    kind, data_length = COP2_ENTRY.unpack_from(payload, COP2_HEADER.size)
    metadata_length, magic, *metadata_version, block = COP2_METADATA_HEADER.unpack_from(
        payload, COP2_HEADER.size + COP2_ENTRY.size
    )
    if tuple(version) != COP2_VERSION or tuple(metadata_version) != COP2_VERSION:
        raise ModelError(f"its NPU payload is COP2 of an unknown version: {AGAIN} with Vela 5.2")
    if kind != COP2_COMMAND_STREAM or magic != COP2_METADATA_MAGIC or block != COP2_METADATA.size:
        raise ModelError(f"its NPU payload has a damaged COP2 header: {AGAIN}")
    after_header = len(payload) - COP2_HEADER.size
    if (length, data_length, metadata_length) != (
        after_header,
        after_header - COP2_ENTRY.size,
        COP2_METADATA_BYTES,
    ):
        raise ModelError(
            f"its NPU payload of {len(payload)} bytes is not as long as its COP2 header says: {AGAIN}"
        )
    config, npu_id, addressing, _staging = COP2_METADATA.unpack_from(payload, metadata_at)
    if addressing not in COP2_ADDRESSING:
        raise ModelError(f"its NPU payload has the unknown COP2 addressing {addressing}: {AGAIN}")
    start = -(-(metadata_at + COP2_METADATA.size) // STREAM_ALIGNMENT) * STREAM_ALIGNMENT
    stream = _stream(payload, start, len(payload) - start)
    return CommandStream(stream, config, npu_id, "COP2", COP2_ADDRESSING[addressing], start)


def _stream(payload: bytes, start: int, length: int) -> bytes:
    if start % STREAM_ALIGNMENT:
        raise ModelError(f"its command stream starts at byte {start}, not on a 16-byte boundary: {AGAIN}")
    if length % 4 or not 0 < length <= len(payload) - start:
        follow = max(len(payload) - start, 0)
        raise ModelError(f"its command stream should be {length} bytes long but {follow} follow: {AGAIN}")
    return payload[start : start + length]
