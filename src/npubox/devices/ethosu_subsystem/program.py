# SPDX-License-Identifier: Apache-2.0
"""A network as the firmware's interpreter prepares it: parsed, and every tensor given its place.

As tflite-micro does it: tensors lie where the offline plan of the file says (facts, ethosu-npu.md §1),
constants stay in the file, and what the plan leaves out comes behind it, one after the other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.parameters import same_bytes
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import Failure
from npubox.errors import ModelError
from npubox.fallback.kernels import Kernels
from npubox.formats.network import Network, NpuOperator, Operator, Tensor
from npubox.formats.tflite import read_network
from npubox.hw.ethosu.registers import BASEP_COUNT

ALIGNMENT = 16
FAST_REGION = 2


class Program:
    """A .tflite by its bytes. Raises Failure for what is none, or damaged."""

    def __init__(self, content: bytes) -> None:
        try:
            self.network: Network = read_network(content)
        except ModelError as error:
            raise Failure(str(error)) from error
        _check_written(self.network)
        self.content: npt.NDArray[np.uint8] = np.frombuffer(content, np.uint8)
        self.kernels = Kernels(self.network)
        self.offsets, self.arena_size = _plan(self.network)

    def tensor(self, index: int) -> Tensor:
        return self.network.tensors[index]

    @property
    def inputs(self) -> list[Tensor]:
        return [self.tensor(index) for index in self.network.inputs]

    @property
    def outputs(self) -> list[Tensor]:
        return [self.tensor(index) for index in self.network.outputs]

    def holds(self, content: npt.NDArray[np.uint8]) -> bool:
        """Whether these are the very bytes that it was made of."""
        return same_bytes(self.content, content)

    def file_offset(self, tensor: Tensor) -> int:
        """Where in the file a constant lies."""
        assert tensor.data is not None
        return int(tensor.data.ctypes.data - self.content.ctypes.data)

    def close(self) -> None:
        self.kernels.close()


class Placement:
    """A program whose file lies at device address `file`, with an arena, and SRAM for region 2 where the
    subsystem has some. Raises Failure where one of them is too small."""

    def __init__(self, program: Program, file: int, arena: Range, fast: Range | None) -> None:
        if program.arena_size > arena.size:
            raise Failure(
                f"the network needs an arena of {program.arena_size} bytes,"
                f" an NPU's share here is {arena.size}"
            )
        self._program = program
        self._file = file
        self._arena = arena
        self._fast = fast

    def address(self, tensor: Tensor) -> int:
        """Device address of a tensor's first byte."""
        if tensor.data is not None:
            return self._file + self._program.file_offset(tensor)
        return self._arena.address + self._program.offsets[tensor.index]

    def stream(self, operator: Operator, npu: NpuOperator) -> int:
        """Device address of the operator's command stream."""
        return self.address(self._program.tensor(operator.inputs[0])) + npu.stream.offset

    def bases(self, operator: Operator, npu: NpuOperator) -> list[int]:
        """Region addresses: the operator's inputs behind the stream, then its outputs (facts, §1.1)."""
        tensors = [self._program.tensor(index) for index in (*operator.inputs[1:], *operator.outputs)]
        bases = [self.address(tensor) for tensor in tensors[:BASEP_COUNT]]
        if self._fast is not None and len(bases) > FAST_REGION:
            needed = self._program.tensor(npu.scratch_fast).nbytes
            if npu.scratch_fast != npu.scratch and needed > self._fast.size:
                raise Failure(
                    f"the network needs {needed} bytes of fast memory,"
                    f" an NPU's share here is {self._fast.size}"
                )
            bases[FAST_REGION] = self._fast.address
        return bases


def _check_written(network: Network) -> None:
    """Nothing that an inference writes may be a constant: those lie in the host's buffer."""
    made = (index for operator in network.operators for index in operator.outputs)
    for index in (*network.inputs, *(tensor.index for tensor in network.variables), *made):
        if network.tensors[index].data is not None:
            raise Failure(f"tensor {index} of the network is written to and a constant: it is damaged")


def _plan(network: Network) -> tuple[dict[int, int], int]:
    """Each tensor's offset in the arena, in bytes, and the arena's size. The fast scratch is a memory of its
    own: behind the others, for subsystems that have none for it."""
    fast = {operator.npu.scratch_fast for operator in network.operators if operator.npu is not None}
    fast -= {operator.npu.scratch for operator in network.operators if operator.npu is not None}
    offsets: dict[int, int] = {}
    end = network.arena_size
    for tensor in network.tensors:
        if tensor.data is not None:
            continue
        if tensor.arena_offset is not None and tensor.index not in fast:
            offsets[tensor.index] = tensor.arena_offset
            continue
        end = -(-end // ALIGNMENT) * ALIGNMENT
        offsets[tensor.index] = end
        end += tensor.nbytes
    return offsets, end
