# SPDX-License-Identifier: Apache-2.0
"""A network as the firmware's interpreter prepares it: parsed, and every tensor given its place. Constants
stay in the file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.parameters import same_bytes
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import Failure
from npubox.devices.ethosu_subsystem.plan import plan_memory
from npubox.errors import ModelError
from npubox.fallback.kernels import Kernels
from npubox.formats.network import Network, NpuOperator, Operator, Tensor
from npubox.formats.tflite import read_network
from npubox.hw.ethosu.registers import BASEP_COUNT

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
        self.plan = plan_memory(self.network)

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
        if program.plan.size > arena.size:
            raise Failure(
                f"the network needs an arena of {program.plan.size} bytes,"
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
        return self._arena.address + self._program.plan.offsets[tensor.index]

    def stream(self, operator: Operator, npu: NpuOperator) -> int:
        """Device address of the operator's command stream."""
        return self.address(self._program.tensor(operator.inputs[0])) + npu.stream.offset

    def bases(self, operator: Operator, npu: NpuOperator) -> list[int]:
        """Region addresses: the operator's inputs behind the stream, then its outputs (facts, §1.1). Separate
        regions have those of the blocks."""
        tensors = [self._program.tensor(index) for index in (*operator.inputs[1:], *operator.outputs)]
        bases = [self.address(tensor) for tensor in tensors[:BASEP_COUNT]]
        if self._program.plan.blocks is not None:
            bases[FAST_REGION + 1 :] = [self._arena.address + block for block in self._program.plan.blocks]
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
