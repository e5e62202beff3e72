# SPDX-License-Identifier: Apache-2.0
"""NXP's idea of an inference's buffers, told to Arm's firmware.

NXP's `ifm_fd[0]` is the tensor arena. The inputs follow it and the outputs have buffers of their own, or
both lie in the arena where NETWORK_INFO or the caller's memory layout says. Arm's firmware has an arena of
its own, so it is given the tensors where the program has them, and NXP's arena serves for nothing else.
Source: the project's facts (ethosu-linux.md §1.3, §1.10).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from npubox.drivers.misc.ethosu.buffer import Buffer, Operands, Range, Window
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux_nxp as uapi


def operands(inputs: list[Buffer], outputs: list[Buffer], layout: core.NetworkLayoutRsp | None) -> Operands:
    """OSError EINVAL without an arena, or where tensors lie in it and nobody asked NETWORK_INFO where."""
    if not inputs:
        raise OSError(errno.EINVAL, "an inference of NXP's begins with its arena")
    arena = inputs[0]
    if len(inputs) > 1 or outputs:
        return Operands([*map(Window, inputs[1:])], [*map(Window, outputs)], [arena])
    if layout is None:
        raise OSError(errno.EINVAL, "ask NETWORK_INFO first: it says where the arena has the tensors")
    return Operands(
        _ranges(arena, ((tensor.offset, tensor.size) for tensor in layout.ifm[: layout.ifm_count])),
        _ranges(arena, ((tensor.offset, tensor.size) for tensor in layout.ofm[: layout.ofm_count])),
    )


def operands_of_layout(inputs: list[Buffer], layout: uapi.MemoryLayout) -> Operands:
    """OSError EINVAL unless there is one arena buffer, with all tensors of `layout` in it."""
    if len(inputs) != 1:
        raise OSError(errno.EINVAL, f"a memory layout is of one arena buffer, not of {len(inputs)}")
    if max(layout.input_count, layout.output_count) > len(layout.input_offset):
        raise OSError(errno.EINVAL, f"{layout.input_count} inputs, {layout.output_count} outputs: too many")
    places_in = zip(layout.input_offset, layout.input_size, strict=True)
    places_out = zip(layout.output_offset, layout.output_size, strict=True)
    return Operands(
        _ranges(inputs[0], list(places_in)[: layout.input_count]),
        _ranges(inputs[0], list(places_out)[: layout.output_count]),
    )


def refuse_operators(inference_type: int) -> None:
    """OSError EOPNOTSUPP for a bare operator in place of a network: no firmware of ours runs one."""
    if inference_type == uapi.InferenceType.OP:
        raise OSError(errno.EOPNOTSUPP, "inference type OP is not modelled: give a .tflite, type MODEL")


def _ranges(arena: Buffer, places: Iterable[tuple[int, int]]) -> list[Window | Range]:
    made: list[Window | Range] = []
    for start, size in places:
        if start + size > arena.capacity:
            raise OSError(errno.EINVAL, f"tensor {start}+{size} outside an arena of {arena.capacity} bytes")
        made.append(Range(arena, start, size))
    return made
