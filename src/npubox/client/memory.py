# SPDX-License-Identifier: Apache-2.0
"""What one inference works in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.client.buffers import BufferObject
from npubox.client.hardware import Hardware
from npubox.formats.network import Tensor

CONSTANTS, ARENA, FAST, INPUTS, OUTPUTS = range(5)
"""Regions by Vela's convention; the last two only of streams with separate regions for inputs and outputs
(facts, ethosu-npu.md §1.1)."""


@dataclass(frozen=True)
class Layout:
    """The buffers that inferences of a network need. Tensors lie in the `home` region, except those of
    `apart`, by their index; `others` gives the bytes of further regions."""

    home: int
    size: int
    others: Mapping[int, int]
    apart: Mapping[int, int]


class Memory:
    """The buffer of each region, and the tensors that no offline plan places."""

    def __init__(self, layout: Layout, hardware: Hardware, home: BufferObject | None) -> None:
        """Takes over one use of `home`, also where this fails."""
        self.buffers: dict[int, BufferObject] = {} if home is None else {layout.home: home}
        self._layout = layout
        self._loose: dict[int, npt.NDArray[Any]] = {}
        try:
            for region, size in layout.others.items():
                self.buffers[region] = BufferObject(hardware, size)
        except BaseException:
            self.drop()
            raise

    def read(self, tensor: Tensor) -> npt.NDArray[Any]:
        """The tensor's present value; a view into its buffer where it lies in one."""
        if tensor.data is not None:
            return tensor.data.view(tensor.dtype).reshape(tensor.shape)
        if tensor.arena_offset is None:
            return self._loose[tensor.index]
        buffer = self.buffers[self._layout.apart.get(tensor.index, self._layout.home)]
        end = tensor.arena_offset + tensor.nbytes
        return buffer.bytes[tensor.arena_offset : end].view(tensor.dtype).reshape(tensor.shape)

    def write(self, tensor: Tensor, value: npt.NDArray[Any]) -> None:
        if tensor.arena_offset is None:
            self._loose[tensor.index] = np.array(value)
        else:
            self.read(tensor)[...] = value

    def wait(self, deadline: int) -> bool:
        """Wait until `deadline` (as BO_WAIT takes it) for the jobs that write results; False if it came."""
        results = self.buffers.get(OUTPUTS) or self.buffers.get(self._layout.home)
        return results is None or results.wait(deadline)

    def hold(self) -> None:
        for buffer in self.buffers.values():
            buffer.uses.hold()

    def drop(self) -> None:
        for buffer in self.buffers.values():
            buffer.uses.drop()
