# SPDX-License-Identifier: Apache-2.0
"""Which handles of an open file stand for which dma-bufs (accel-core.md §2.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npubox.core.dma_buf import DmaBuf


class PrimeTable:
    """Both ways; only handles that were exported or imported are in it, and each holds its buffer. Guarded
    by the device's lock."""

    def __init__(self) -> None:
        self._buffers: dict[int, DmaBuf] = {}
        self._handles: dict[DmaBuf, list[int]] = {}

    def __len__(self) -> int:
        return len(self._buffers)

    def add(self, buffer: DmaBuf, handle: int) -> None:
        buffer.get()
        self._buffers[handle] = buffer
        self._handles.setdefault(buffer, []).append(handle)

    def buffer(self, handle: int) -> DmaBuf | None:
        return self._buffers.get(handle)

    def handle(self, buffer: DmaBuf) -> int | None:
        """The oldest handle of a buffer."""
        return self._handles[buffer][0] if buffer in self._handles else None

    def remove(self, handle: int) -> None:
        """A handle is closed."""
        buffer = self._buffers.pop(handle, None)
        if buffer is not None:
            self._handles[buffer].remove(handle)
            if not self._handles[buffer]:
                del self._handles[buffer]
            buffer.put()
