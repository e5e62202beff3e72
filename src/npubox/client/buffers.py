# SPDX-License-Identifier: Apache-2.0
"""Buffer objects: memory that the NPU and the program share."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import numpy.typing as npt

from npubox.client.hardware import Hardware, deadline_ns
from npubox.client.lifetime import Closable, Uses
from npubox.errors import InputError, WaitTimeout


class BufferObject:
    """One mapped GEM object. Its handle is closed with its last use; the kernel keeps the memory
    itself for a job in flight, and a view that a caller kept keeps the mapping."""

    def __init__(self, hardware: Hardware, size: int) -> None:
        hardware.uses.hold()
        self.size = size
        self._hardware = hardware
        try:
            self.handle = hardware.accel.bo_create(size)
            try:
                self._mapping = hardware.accel.bo_map(self.handle, size)
            except BaseException:
                hardware.accel.gem_close(self.handle)
                raise
        except BaseException:
            hardware.uses.drop()
            raise
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8)
        self.uses = Uses(self._free)
        self._busy = threading.Lock()

    def wait(self, deadline: int) -> bool:
        return self._hardware.accel.bo_wait(self.handle, deadline)

    def claim(self) -> None:
        """Become some inference's arena. Raises InputError while another one's job works in it."""
        if not self._busy.acquire(blocking=False):
            raise InputError(
                "this buffer is the arena of an inference that still runs: wait for it or give another"
            )

    def unclaim(self) -> None:
        self._busy.release()

    def _free(self) -> None:
        del self.bytes
        with contextlib.suppress(BufferError):  # a caller's view keeps it mapped until that goes
            self._mapping.close()
        self._hardware.close_handle(self.handle)
        self._hardware.uses.drop()


class Buffer(Closable):
    """`size` bytes of device memory, zeroed, mapped once. It lives while an inference uses it."""

    _kind = "buffer"

    def __init__(self, hardware: Hardware, size: int) -> None:
        if size <= 0:
            raise InputError(f"a buffer of {size} bytes is none: give a size above 0")
        self._object = BufferObject(hardware, size)
        super().__init__(self._object.uses)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._object.size

    @property
    def handle(self) -> int:
        """The GEM handle, for ioctls of one's own."""
        return self._object.handle

    @property
    def object(self) -> BufferObject:
        self._check_open()
        return self._object

    @property
    def data(self) -> memoryview:
        """The memory itself, not a copy; a view that is kept outlives `close`."""
        self._check_open()
        return self._object.bytes.data

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the jobs that write the buffer. Raises WaitTimeout after `timeout` seconds."""
        self._check_open()
        if not self._object.wait(deadline_ns(timeout)):
            raise WaitTimeout(f"jobs still write the buffer after {timeout} s; wait again")
