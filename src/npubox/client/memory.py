# SPDX-License-Identifier: Apache-2.0
"""What one inference works in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.client.buffers import BufferObject
from npubox.formats.network import Tensor


class Memory:
    """An arena, a fast scratch where that is memory, and the tensors that no offline plan places."""

    def __init__(self, arena: BufferObject | None, fast: BufferObject | None) -> None:
        self.arena = arena
        self.fast = fast
        self._loose: dict[int, npt.NDArray[Any]] = {}

    def read(self, tensor: Tensor) -> npt.NDArray[Any]:
        """The tensor's present value; a view into the arena where it lies there."""
        if tensor.data is not None:
            return tensor.data.view(tensor.dtype).reshape(tensor.shape)
        if tensor.arena_offset is None:
            return self._loose[tensor.index]
        assert self.arena is not None
        end = tensor.arena_offset + tensor.nbytes
        return self.arena.bytes[tensor.arena_offset : end].view(tensor.dtype).reshape(tensor.shape)

    def write(self, tensor: Tensor, value: npt.NDArray[Any]) -> None:
        if tensor.arena_offset is None:
            self._loose[tensor.index] = np.array(value)
        else:
            self.read(tensor)[...] = value

    def wait(self, deadline: int) -> bool:
        """Wait until `deadline` (as BO_WAIT takes it) for the jobs that write the arena; False if it came."""
        return self.arena is None or self.arena.wait(deadline)

    def hold(self) -> None:
        for buffer in self._buffers():
            buffer.uses.hold()

    def drop(self) -> None:
        for buffer in self._buffers():
            buffer.uses.drop()

    def _buffers(self) -> list[BufferObject]:
        return [buffer for buffer in (self.arena, self.fast) if buffer is not None]
