# SPDX-License-Identifier: Apache-2.0
"""A neural network as its file describes it: tensors, operators, and what Vela made for the NPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point); one pair a tensor, or one a slice along `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0

    @property
    def per_tensor(self) -> bool:
        return len(self.scales) == 1


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph. `data` holds constants; `arena_offset` Vela's offline plan, in bytes."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    quantization: Quantization | None = None
    data: npt.NDArray[np.uint8] | None = None
    arena_offset: int | None = None
    is_variable: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class CommandStream:
    """A command stream as the NPU fetches it, with what its payload says it was made for."""

    words: bytes
    config: int
    npu_id: int
    cop: str  # COP1 or COP2
    separate_io: bool = False  # network inputs in region 3 and outputs in region 4 instead of the arena
    offset: int = 0  # where in its payload it starts, in bytes

    @property
    def generator(self) -> str:
        """Vela's back end that wrote it: "Regor", or "legacy", which leaves the ID's low half empty."""
        return "Regor" if self.npu_id & 0xFFFF else "legacy"


@dataclass(frozen=True)
class NpuOperator:
    """What an `ethos-u` custom operator carries.

    `read_only`, `scratch` and `scratch_fast` are tensor indices; `scratch_fast` equals `scratch`
    where the memory mode shares one SRAM.
    """

    stream: CommandStream
    read_only: int
    scratch: int
    scratch_fast: int


@dataclass(frozen=True)
class Operator:
    """One operator of the graph: a TFLite builtin by name (CONV_2D ...), or a custom code."""

    index: int
    name: str
    inputs: tuple[int, ...]  # -1 where an optional input is absent
    outputs: tuple[int, ...]
    npu: NpuOperator | None = None


@dataclass(frozen=True)
class Network:
    """The main subgraph of a .tflite, compiled by Vela or not."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arena_size: int  # bytes; 0 in a file that carries no offline plan
    content: bytes  # the whole file
    name: str = "the network"  # what messages call it: the path it was read from
    description: str = ""  # the file's own words

    def with_edges_of(self, source: Network) -> Network:
        """This network, compiled from `source`, with inputs and outputs of the shapes that they have there:
        Vela adds and drops axes of 1. Those that an operator on the CPU reads stay as they are."""
        tensors = list(self.tensors)
        read = {index for operator in self.operators if operator.npu is None for index in operator.inputs}
        pairs = [*zip(self.inputs, source.inputs, strict=False)]
        pairs += zip(self.outputs, source.outputs, strict=False)
        for index, other in pairs:
            tensor, like = tensors[index], source.tensors[other]
            if (tensor.dtype, tensor.nbytes) == (like.dtype, like.nbytes) and index not in read:
                tensors[index] = replace(tensor, shape=like.shape)
        return replace(self, tensors=tuple(tensors))

    @property
    def compiled(self) -> bool:
        """Whether Vela has put anything on the NPU."""
        return any(operator.npu is not None for operator in self.operators)

    @property
    def variables(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.is_variable)
