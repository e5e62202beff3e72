# SPDX-License-Identifier: Apache-2.0
"""Memory that a NeuronDevice and the program share."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.client.neuron.node import NeuronNode
from npubox.errors import DeviceError, InputError
from npubox.hw.neuron.address import Window, through
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

PAGE = mmap.PAGESIZE


class Memory:
    """`size` bytes of device memory, or of host memory that the device reaches too (`host`).

    `address` is the device's, for descriptors. Free it, or leave it to the device's close.
    """

    def __init__(
        self, node: NeuronNode, size: int, *, host: bool, channel: int, region: int, core: int
    ) -> None:
        if size <= 0:
            raise InputError(f"{node.name}: an allocation of {size} bytes; ask for at least one")
        handle, address = ctypes.c_uint64(), ctypes.c_uint64()
        args = structs.MemAlloc(
            size=size,
            host_memory=host,
            dram_channel=channel,
            dram_region=region,
            nc_id=core,
            mem_handle=ctypes.addressof(handle),
        )
        node.call(uapi.MEM_ALLOC, args)
        self.node = node
        self.handle = handle.value
        self.size = size
        self.host = host
        node.call(uapi.MEM_GET_PA, structs.MemGetPa(mem_handle=self.handle, pa=ctypes.addressof(address)))
        self.address = address.value
        self._mapping: mmap.mmap | None = None

    @property
    def east(self) -> int:
        """This device memory's address in descriptors of the chip to its west: their east neighbour's."""
        return self._through(Window.EAST)

    @property
    def west(self) -> int:
        """This device memory's address in descriptors of the chip to its east."""
        return self._through(Window.WEST)

    def view(self, dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
        """The memory itself as a one-dimensional array: no copy, these are the device's own bytes."""
        if not self.handle:
            raise DeviceError(f"{self.node.name}: this memory was freed; allocate anew")
        if self._mapping is None:
            self._mapping = self.node.map(self.address, -(-self.size // PAGE) * PAGE)
        count = self.size // np.dtype(dtype).itemsize
        return np.frombuffer(self._mapping, dtype, count)

    def write(self, data: bytes | npt.NDArray[Any], offset: int = 0) -> None:
        """Copy bytes in, by the device's DMA. Raises DeviceError."""
        content = np.ascontiguousarray(np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data)
        self._copy(content, offset, to_device=True)

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        """Copy bytes out, by the device's DMA; all unless told. Raises DeviceError."""
        content = np.empty(max(0, self.size - offset) if size is None else size, np.uint8)
        self._copy(content, offset, to_device=False)
        return content.tobytes()

    def copy_to(self, other: Memory, size: int | None = None, *, start: int = 0, offset: int = 0) -> None:
        """Copy `size` bytes from `start` on to `other` at `offset`, on one device. Raises DeviceError,
        InputError for memory of another: its handles mean something else here."""
        if other.node is not self.node:
            raise InputError(
                f"{self.node.name}: {other.node.name}'s memory is reached by a ring's copy alone"
            )
        count = self.size - start if size is None else size
        if not count:
            return
        args = structs.MemCopy64(
            src_mem_handle=self.handle,
            dst_mem_handle=other.handle,
            size=count,
            src_offset=start,
            dst_offset=offset,
        )
        self.node.call(uapi.MEM_COPY64, args)

    def fill(self, value: int) -> None:
        """Set every byte."""
        args = structs.Memset64(mem_handle=self.handle, offset=0, value=value, size=self.size)
        self.node.call(uapi.MEMSET64, args)

    def free(self) -> None:
        """Give it back; a view that is kept shows whatever comes there next. May be called twice."""
        if self.handle:
            handle, self.handle = self.handle, 0
            self._unmap()
            self.node.call(uapi.MEM_FREE, structs.MemFree(mem_handle=handle))

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.free()

    def _unmap(self) -> None:
        if self._mapping is not None:
            with contextlib.suppress(BufferError):  # a view that a caller kept keeps it mapped
                self._mapping.close()
            self._mapping = None

    def _through(self, window: Window) -> int:
        if self.host:
            raise InputError(f"{self.node.name}: host memory is not reached through a neighbour")
        return through(window, self.address)

    def _copy(self, content: npt.NDArray[Any], offset: int, *, to_device: bool) -> None:
        args = structs.MemBufCopy64(
            mem_handle=self.handle,
            buffer=content.ctypes.data,
            size=content.nbytes,
            offset=offset,
            copy_to_mem_handle=to_device,
        )
        self.node.call(uapi.MEM_BUF_COPY64, args)
