# SPDX-License-Identifier: Apache-2.0
"""Run a network that Vela compiled, wholly on the NPU, through the plain interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.formats.network import Network, NpuOperator, Tensor

from .arithmetic import LUT_SIZE
from .interpreter import run

Array = npt.NDArray[Any]


class PlainNetwork:
    """Memory and stream of one compiled network. All memory starts as noise of `seed`, but for the state."""

    def __init__(self, network: Network, seed: int = 0) -> None:
        noise = np.random.default_rng(seed)
        self.network = network
        self.npu = _only_operator(network)
        tensors = network.tensors
        read_only = tensors[self.npu.read_only].data
        size = max(network.arena_size, tensors[self.npu.scratch].nbytes)
        self.regions = {
            0: bytearray(b"" if read_only is None else read_only.tobytes()),
            1: bytearray(noise.bytes(size)),
        }
        if self.npu.scratch_fast != self.npu.scratch:
            self.regions[2] = bytearray(noise.bytes(tensors[self.npu.scratch_fast].nbytes))
        self.lut = bytearray(noise.bytes(LUT_SIZE))
        self.reset()

    def reset(self) -> None:
        """State starts at the zero point (8 bit) or 0 (16 bit)."""
        for tensor in self.network.variables:
            quantization = tensor.quantization
            byte = tensor.dtype.itemsize == 1 and quantization is not None
            start = quantization.zero_points[0] if byte and quantization is not None else 0
            self._write(tensor, np.full(tensor.shape, start, tensor.dtype))

    def __call__(self, *inputs: Array) -> list[Array]:
        for index, array in zip(self.network.inputs, inputs, strict=True):
            self._write(self.network.tensors[index], array)
        run(self.npu.stream.words, self.regions, self.npu.stream.config, self.lut)
        return [self._read(self.network.tensors[index]) for index in self.network.outputs]

    def _write(self, tensor: Tensor, array: Array) -> None:
        assert tensor.arena_offset is not None
        assert (array.shape, array.dtype) == (tensor.shape, tensor.dtype)
        self.regions[1][tensor.arena_offset : tensor.arena_offset + tensor.nbytes] = array.tobytes()

    def _read(self, tensor: Tensor) -> Array:
        assert tensor.arena_offset is not None
        end = tensor.arena_offset + tensor.nbytes
        return np.frombuffer(bytes(self.regions[1][tensor.arena_offset : end]), tensor.dtype).reshape(
            tensor.shape
        )


def _only_operator(network: Network) -> NpuOperator:
    (operator,) = network.operators
    assert operator.npu is not None
    return operator.npu
