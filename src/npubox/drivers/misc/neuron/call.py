# SPDX-License-Identifier: Apache-2.0
"""One ioctl call, as its handler sees it."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from npubox.core.caller import Caller
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.drivers.misc.neuron.memory import Chunk
from npubox.drivers.misc.neuron.work import Steps, Work
from npubox.hw.neuron.address import CORES
from npubox.uapi.ioctl import Ioctl

if TYPE_CHECKING:
    from npubox.core.pending import Pending

StructT = TypeVar("StructT", bound=ctypes.Structure)
LONGEST_READ = 64 << 20
Handler = Callable[["Call", Any], "int | Work | Pending | None"]


class CopyFault(OSError):  # noqa: N818 - the kernel's word
    """User memory could not be copied: `left` bytes of it."""

    def __init__(self, left: int) -> None:
        super().__init__(errno.EFAULT, f"{left} bytes of user memory cannot be reached")
        self.left = left


@dataclass(frozen=True)
class Row:
    """An ioctl and how it is treated.

    `attached`: only for attached processes. `misc`: also through O_WRONLY files. `reads`: the argument is
    copied in. `fills`: it is copied out even if nothing in it changed.
    """

    declaration: Ioctl[Any]
    handler: Handler
    attached: bool = False
    misc: bool = False
    reads: bool = True
    fills: bool = False


_rows: list[Row] = []


def ioctl(
    *declarations: Ioctl[Any],
    attached: bool = False,
    misc: bool = False,
    reads: bool = True,
    fills: bool = False,
) -> Callable[[Handler], Handler]:
    """Make a function the handler of ioctls. It gets the call and the argument, runs under the driver's lock,
    and changes the argument's fields: they are copied back. It returns a value, or work that goes on, or
    raises OSError. The flags are `Row`'s."""

    def declare(handler: Handler) -> Handler:
        _rows.extend(Row(item, handler, attached, misc, reads, fills) for item in declarations)
        return handler

    return declare


def rows() -> tuple[Row, ...]:
    """Every declared ioctl, of the modules that were imported."""
    return tuple(_rows)


class Call:
    """`address` is where the argument lies in the caller's memory."""

    def __init__(self, device: NeuronDevice, caller: Caller, address: int) -> None:
        self.device = device
        self.driver = device.driver
        self.strict = device.driver.strict
        self.pid = caller.pid
        self.caller = caller
        self.address = address

    def read(self, address: int, size: int) -> bytes:
        """Copy in; raises CopyFault. Long ones in pieces: whoever carries the call may limit one copy."""
        if size > LONGEST_READ:
            starts = range(0, size, LONGEST_READ)
            return b"".join(self.read(address + start, min(LONGEST_READ, size - start)) for start in starts)
        try:
            return self.caller.memory.read(address, size)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raise CopyFault(size) from error

    def write(self, address: int, data: bytes) -> None:
        """Copy out; raises CopyFault."""
        try:
            self.caller.memory.write(address, data)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raise CopyFault(len(data)) from error

    def read_struct(self, struct: type[StructT], address: int) -> StructT:
        return struct.from_buffer_copy(self.read(address, ctypes.sizeof(struct)))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(8, "little"))

    def chunk(self, handle: int) -> Chunk:
        """The allocation behind a handle: EINVAL for none; EACCES for another process's where those are kept
        apart."""
        chunk = self.device.memory.find(handle)
        self.check_owner(chunk)
        return chunk

    def check_owner(self, chunk: Chunk) -> None:
        """EACCES for another process's memory where processes are kept apart."""
        if self.driver.isolate and chunk.owner != self.pid:
            raise OSError(errno.EACCES, f"the memory at {chunk.pa:#x} is another process's")

    def check_core(self, core: int) -> None:
        """EACCES for a core that the process has not marked, where processes are kept apart. What the chip
        does not have is for others to refuse."""
        if not self.driver.isolate or core >= CORES:
            return
        if self.driver.marks.owner(self.device.index * CORES + core) != self.pid:
            raise OSError(errno.EACCES, f"core {core} of {self.device.name} is not marked by this process")

    def work(self, steps: Steps[Any], then: Callable[[Any], int | None] | None = None) -> Work:
        """Begin an operation that may have to wait; `then` takes its value and may copy out."""
        return self.device.worker.start(steps, then)


def read_registers(call: Call, addresses: Sequence[int], failure: int = errno.EPERM) -> Steps[list[int]]:
    """Registers by device address, through the firmware; where that fails, OSError `failure`."""
    try:
        return (yield from call.device.fwio.read(addresses))
    except OSError as error:
        raise OSError(failure, f"a register could not be read: {error}") from error
