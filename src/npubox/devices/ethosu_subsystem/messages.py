# SPDX-License-Identifier: Apache-2.0
"""The firmware's answers that only take looking: capabilities, and what a network is like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npubox.devices.ethosu_npu.memory import Memory
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import Failure
from npubox.devices.ethosu_subsystem.npu_driver import VERSION, NpuDriver
from npubox.devices.ethosu_subsystem.program import Program
from npubox.formats.network import Tensor
from npubox.formats.tflite import DTYPES
from npubox.hw.ethosu.core_interface import (
    BUFFER_MAX,
    DESCRIPTION_BYTES,
    CapabilitiesRsp,
    CoreStatus,
    Network,
    NetworkInfoRsp,
    NetworkLayoutRsp,
    NetworkType,
)

TFLITE_TYPES = {dtype: number for number, dtype in DTYPES.items()}


def capabilities(user_arg: int, driver: NpuDriver) -> CapabilitiesRsp:
    """The fields of ID and CONFIG (facts, ethosu-npu.md §1.2)."""
    id_word, config = driver.id_word, driver.config_word
    major, minor, patch = VERSION
    return CapabilitiesRsp(
        user_arg=user_arg,
        version_status=id_word & 0xF,
        version_minor=id_word >> 4 & 0xF,
        version_major=id_word >> 8 & 0xF,
        product_major=id_word >> 12 & 0xF,
        arch_patch_rev=id_word >> 16 & 0xF,
        arch_minor_rev=id_word >> 20 & 0xFF,
        arch_major_rev=id_word >> 28,
        driver_patch_rev=patch,
        driver_minor_rev=minor,
        driver_major_rev=major,
        macs_per_cc=config & 0xF,
        cmd_stream_version=config >> 4 & 0xF,
        custom_dma=config >> 27 & 1,
    )


def find_network(network: Network, built_in: Sequence[Range]) -> Range:
    """Where the .tflite lies that a request names. Raises Failure for an index or a type that is none."""
    index: int = network.ptr
    if network.type == NetworkType.BUFFER:
        return Range(network.ptr, network.size)
    if network.type != NetworkType.INDEX:
        raise Failure(f"network type {network.type} is neither a buffer (1) nor an index (2)")
    if index >= len(built_in):
        raise Failure(f"network {index}: the firmware has {len(built_in)} of its own")
    return built_in[index]


def network_info(user_arg: int, program: Program) -> NetworkInfoRsp:
    """Raises Failure for more inputs or outputs than the message holds."""
    answer = NetworkInfoRsp(user_arg=user_arg, status=CoreStatus.OK, desc=_description(program))
    answer.ifm_count, answer.ofm_count = _count(program.inputs), _count(program.outputs)
    for number, tensor in enumerate(program.inputs):
        answer.ifm_size[number] = tensor.nbytes
    for number, tensor in enumerate(program.outputs):
        answer.ofm_size[number] = tensor.nbytes
    return answer


def network_layout(user_arg: int, program: Program) -> NetworkLayoutRsp:
    """Raises Failure as `network_info`."""
    answer = NetworkLayoutRsp(user_arg=user_arg, status=CoreStatus.OK, desc=_description(program))
    answer.is_vela = program.network.compiled
    answer.arena_size = program.plan.size
    answer.ifm_count, answer.ofm_count = _count(program.inputs), _count(program.outputs)
    for number, tensor in enumerate(program.inputs):
        _fill(answer.ifm[number], tensor, program)
    for number, tensor in enumerate(program.outputs):
        _fill(answer.ofm[number], tensor, program)
    return answer


def model_at(memory: Memory, place: Range) -> Program:
    """Parse the .tflite at `place`. Raises Failure, or DmaFault where no memory is."""
    return Program(memory.view(place.address, place.size).tobytes())


def _fill(layout: Any, tensor: Tensor, program: Program) -> None:
    layout.size, layout.type = tensor.nbytes, TFLITE_TYPES[tensor.dtype]
    layout.offset, layout.dims = program.plan.offsets.get(tensor.index, 0), len(tensor.shape)
    for axis, size in enumerate(tensor.shape):
        layout.shape[axis] = size


def _count(tensors: Sequence[Tensor]) -> int:
    if len(tensors) > BUFFER_MAX:
        raise Failure(f"the network has {len(tensors)} inputs or outputs, a message holds {BUFFER_MAX}")
    return len(tensors)


def _description(program: Program) -> bytes:
    return program.network.description.encode()[: DESCRIPTION_BYTES - 1]
