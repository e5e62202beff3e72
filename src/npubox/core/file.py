# SPDX-License-Identifier: Apache-2.0
"""Open file descriptions: what stands behind a descriptor, whoever made it.

A device node, a buffer, a network, an inference, a dma-buf, a sync_file, a timeline: each is an `OpenFile`.
Who carries the calls (`npubox.core.node` in this process, `npubox.serve` for other programs) knows no more
of them than this. A served program holds a real descriptor for each, its *stand-in*, so that close, dup,
fork and what else the kernel can do by itself stay native. Source: the project's facts (device-nodes.md
§5).
"""

from __future__ import annotations

import errno
import select
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from npubox.core.caller import Caller
from npubox.core.pending import Completion, Pending

ALWAYS_READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


class Backing(NamedTuple):
    """What an mmap maps natively: `fd` from `offset` on, in bytes.

    Where it is not `writable`, a mapping asked for with PROT_WRITE succeeds all the same and is read-only.
    """

    fd: int
    offset: int
    writable: bool = True


@dataclass(frozen=True)
class NodeStandIn:
    """A node with memory: a link of the unnamed tmpfs file `fd`, the device's store. Backings in it are
    native."""

    fd: int


@dataclass(frozen=True)
class PagesStandIn:
    """A buffer: a link of the unnamed tmpfs file `fd`, whose first `size` bytes are the object."""

    fd: int
    size: int


@dataclass(frozen=True)
class TokenStandIn:
    """An empty tmpfs file, of `size` bytes if asked for its size: nothing but an identity. Its mappings are
    of some other file, and natively it polls as always ready."""

    size: int = 0


@dataclass(frozen=True)
class SignalStandIn:
    """The read end of a pipe that becomes readable, once and for ever, when `completion` happens."""

    completion: Completion


StandIn = NodeStandIn | PagesStandIn | TokenStandIn | SignalStandIn


class OpenFile(Protocol):
    """An open file description. Subclass it: what a subclass leaves out answers as a kernel file without that
    operation. Methods raise OSError with the kernel's errno and never block: a `Pending` waits.

    `link` is what readlink of /proc/self/fd/N tells of a file that was not opened by a path, such as
    `anon_inode:sync_file`. `client_id` is for the control channel and the tracer, 0 where there is none.
    """

    stand_in: StandIn
    link: str = "anon_inode:npubox"
    client_id: int = 0

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        raise OSError(errno.ENOTTY, f"{self.link} has no ioctl {request:#010x}")

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        """Check a mapping of `length` bytes. The object stays until `release`, or what `Mapped` tells."""
        raise OSError(errno.ENODEV, f"{self.link} cannot be mapped")

    def poll(self) -> int:
        """The poll(2) events that are set now."""
        return ALWAYS_READY

    def poll_changes(self) -> Completion | None:
        """Happens when `poll` may tell something new; None: never."""
        return None

    def read(self, size: int, nonblocking: bool) -> bytes | Pending:
        raise OSError(errno.EINVAL, f"{self.link} has nothing to read")

    def write(self, data: bytes) -> int:
        raise OSError(errno.EINVAL, f"{self.link} takes no bytes")

    def lseek(self, offset: int, whence: int) -> int:
        raise OSError(errno.ESPIPE, f"{self.link} has no position")

    def fdinfo(self) -> str:
        """The lines of /proc/PID/fdinfo/FD after the generic ones."""
        return ""

    def installed(self) -> None:
        """A table of descriptors that did not have the file has it now; `release` ends that. Not for nodes:
        they are opened."""
        return

    def release(self) -> None:
        """The last descriptor and the last mapping are gone. Its owner may install it once more after
        that."""
        return


@runtime_checkable
class Mapped(Protocol):
    """An `OpenFile` with many mappable objects, which shall not all wait for `release`."""

    def forgotten(self) -> Sequence[tuple[int, int]]:
        """(offset, size) of objects that only mappings may still need."""

    def unmapped(self, offset: int) -> None:
        """No mapping of the object at `offset` made through this file is left."""
