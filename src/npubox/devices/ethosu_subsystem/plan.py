# SPDX-License-Identifier: Apache-2.0
"""Where the tensors of a network lie in an arena.

As tflite-micro does it: where the offline plan of the file says (facts, ethosu-npu.md §1), and what it leaves
out behind that, one after the other. The fast scratch is a memory of its own: it comes behind too, for
subsystems that have none for it. A stream with separate regions for inputs and outputs counts from
the start of each, and the file's offsets overlap (§1.3): there each has a block of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from npubox.devices.ethosu_subsystem.faults import Failure
from npubox.formats.network import Network, Tensor

ALIGNMENT = 16


@dataclass(frozen=True)
class Plan:
    """Bytes from the arena's start: of each tensor that is no constant, by its index; of the blocks of inputs
    and outputs, where the network has them; of the arena's end."""

    offsets: dict[int, int]
    size: int
    blocks: tuple[int, int] | None = None


def plan_memory(network: Network) -> Plan:
    """Raises Failure for separate regions where there is more than one operator, or state."""
    npus = [operator.npu for operator in network.operators if operator.npu is not None]
    behind = {npu.scratch_fast for npu in npus} - {npu.scratch for npu in npus}
    offsets: dict[int, int] = {}
    end = network.arena_size
    for tensor in network.tensors:
        if tensor.data is not None:
            continue
        if tensor.arena_offset is not None and tensor.index not in behind:
            offsets[tensor.index] = tensor.arena_offset
            continue
        offsets[tensor.index] = _aligned(end)
        end = offsets[tensor.index] + tensor.nbytes
    if not any(npu.stream.separate_io for npu in npus):
        return Plan(offsets, end)
    if len(network.operators) > 1 or network.variables:
        raise Failure("separate regions for inputs and outputs are taken of one operator without state only")
    blocks = []
    for indices in (network.inputs, network.outputs):
        blocks.append(_aligned(end))
        end = _place((network.tensors[index] for index in indices), blocks[-1], offsets)
    return Plan(offsets, end, (blocks[0], blocks[1]))


def _place(tensors: Iterable[Tensor], block: int, offsets: dict[int, int]) -> int:
    """Put tensors into a block at the offsets of the file; the block's end."""
    end = block
    for tensor in tensors:
        offsets[tensor.index] = block + (tensor.arena_offset or 0)
        end = max(end, offsets[tensor.index] + tensor.nbytes)
    return end


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
