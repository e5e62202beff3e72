# SPDX-License-Identifier: Apache-2.0
"""The node a client drives: an open file of a virtual machine, or of the host's real kernel."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from npubox.client.progress import working
from npubox.errors import DeviceError
from npubox.uapi.ioctl import Ioctl, StructT

COMPILING = "compiling the NPU's kernels, once, for half a minute to a minute"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class NodeFile(Protocol):
    """An open device node, or a file that one of its ioctls gave. `ioctl` takes the address of the caller's
    struct, as the system call does."""

    def ioctl(self, request: int, address: int) -> int: ...

    def mmap(self, length: int, prot: int, flags: int, offset: int) -> mmap.mmap: ...

    def adopt(self, fd: int) -> NodeFile:
        """The file behind a descriptor that an ioctl gave; `fd` is its own from then on."""

    def fileno(self) -> int:
        """Its descriptor; where it polls as readable, so does the file."""

    def close(self) -> None: ...


class HostNode:
    """A file of the host's kernel by its descriptor, which it owns. Raises OSError as system calls fail."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, path: str) -> HostNode:
        """A node, e.g. `/dev/accel/accel0`."""
        return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def ioctl(self, request: int, address: int) -> int:
        result: int = _libc.ioctl(self._fd, request, address)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def mmap(self, length: int, prot: int, flags: int, offset: int) -> mmap.mmap:
        return mmap.mmap(self._fd, length, flags=flags, prot=prot, offset=offset)

    def adopt(self, fd: int) -> HostNode:
        return HostNode(fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def call_ioctl(node: NodeFile, ioctl: Ioctl[StructT], argument: StructT) -> int:
    """One ioctl on `argument`, restarted on EINTR and EAGAIN as libdrm's drmIoctl does. Raises OSError."""
    while True:
        try:
            return node.ioctl(ioctl.number, ctypes.addressof(argument))
        except OSError as error:
            if error.errno not in (errno.EINTR, errno.EAGAIN):
                raise


@dataclass(frozen=True)
class Opened:
    """A node, its path and, where it is a virtual machine's, that machine (its info, its control channel)."""

    name: str
    node: NodeFile
    machine: Any | None  # npubox.machines.Machine, known here by its public face only
    path: str

    def close(self) -> None:
        self.node.close()
        if self.machine is not None:
            self.machine.close()


def virtual_devices() -> tuple[str, ...]:
    """The short names that virtual machines are opened by, such as `ethos-u65-256`."""
    from npubox import machines

    return tuple(name for preset in machines.presets() for name in preset.devices)


def open_node(name: str, policy: str | None = None) -> Opened:
    """Open a path under /dev, or power up the virtual machine of a preset or device name, with another
    policy of its driver where one is given. `machine:path` opens another node than the machine's first.

    Raises DeviceError naming what there is where `name` is neither, or the node cannot be opened.
    """
    machine_name, _, path = name.partition(":")
    if "/" in machine_name:
        if policy is not None:
            raise DeviceError(f"{name} is driven by the host's kernel, whose policy is its own")
        try:
            return Opened(name, HostNode.open(name), None, name)
        except OSError as error:
            raise DeviceError(
                f"cannot open {name}: {error.strerror}; `npubox devices` lists what there is"
            ) from error
    from npubox import machines  # late, as the virtual world is not needed for real hardware

    compiling = nullcontext() if machines.kernels_ready() else working(COMPILING)
    with compiling:
        machine = machines.open_preset(machine_name, policy)
    try:
        path = path or machine.nodes[0].path
        return Opened(name, machine.open_node(path), machine, path)
    except BaseException:
        machine.close()
        raise
