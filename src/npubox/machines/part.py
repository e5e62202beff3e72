# SPDX-License-Identifier: Apache-2.0
"""What a machine is made of: parts, each with its driver, its device and its nodes.

A kind of part is one module here. Its preset is read from a table of the machine's TOML file and declares the
nodes before anything is powered up; plugging it in builds device and driver.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo

if TYPE_CHECKING:
    from npubox.bus.virtual import VirtualClock

JobWatcher = Callable[[int, int, int, Any], None]
"""(client id, the client's job number, errno or 0, the control channel's report or None) of a job that is
over; on any thread, perhaps under the device's lock, so it must not block."""

MessageWatcher = Callable[[str, bool, str, Any], None]
"""(node, sent to the firmware or received, the message's name, its payload) of a mailbox; on any thread,
perhaps under the device's lock, so it must not block."""

FaultWatcher = Callable[[str, str, str], None]
"""(node, what of its device stopped, why), which no ABI tells; on any thread, so it must not block."""


@dataclass(frozen=True)
class Board:
    """What parts are plugged into: `machine` is the preset's name, `policy` what its drivers refuse,
    `clock` the machine's device time. A part that runs in another process has that process's clock."""

    machine: str
    policy: str
    clock: VirtualClock


AttributeWatcher = Callable[[NodeInfo, Mapping[str, str]], None]
"""A node and the present texts of its files in sysfs, by path from its directory; on any thread."""


@runtime_checkable
class LivePart(Protocol):
    """A part whose nodes' files in sysfs change."""

    def watch_attributes(self, watcher: AttributeWatcher) -> None:
        """Have `watcher` told of changes, soon."""


class Part(Protocol):
    """Something plugged in, powered up. Jobs that end are told to `job_watcher`, where there are jobs."""

    job_watcher: JobWatcher | None

    @property
    def nodes(self) -> Sequence[NodeInfo]: ...

    @property
    def processes(self) -> frozenset[int]:
        """The ids of the processes of its own that it runs in."""

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        """Open one of its nodes. OSError with the kernel's errno."""

    def close(self) -> None:
        """Power down: jobs in progress are abandoned, open files answer ENODEV."""


@runtime_checkable
class HasMailbox(Protocol):
    """A `Part` whose driver and device exchange messages."""

    def watch_messages(self, watcher: MessageWatcher) -> None: ...


@runtime_checkable
class TellsFaults(Protocol):
    """A `Part` whose device stops for reasons that its ABI does not tell."""

    def watch_faults(self, watcher: FaultWatcher) -> None: ...


class PartPreset(Protocol):
    """One table of a machine's file. Its methods import devices and drivers late: declarations stay cheap.

    `compiled`: the device computes with compiled kernels, which may have to be made first.
    """

    compiled: ClassVar[bool]

    @property
    def nodes(self) -> Sequence[NodeInfo]: ...

    def plug(self, board: Board) -> Part:
        """Power up in this process. Raises DeviceError, OSError."""

    def plug_split(self, board: Board, spawn: Spawn) -> Part:
        """Power up with the device in a process of its own, or here if it has no use for one."""

    def run_device(self, channel: socket.socket) -> None:
        """In that process: serve the device until the other end of `channel` closes."""


Spawn = Callable[[], tuple[int, socket.socket]]
"""Starts the process of a part's device: its id and the socket to it."""


def spawn_device(machine: str, index: int) -> tuple[int, socket.socket]:
    """The process that runs the device of a machine's part `index`, as `npubox.machines.device_process`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        os.set_inheritable(theirs.fileno(), True)
        # -P: no module of the program's directory may stand in for one of ours.
        command = [sys.executable, "-P", "-m", "npubox.machines.device_process", machine, str(index)]
        pid = os.posix_spawn(sys.executable, [*command, str(theirs.fileno())], os.environ)
    return pid, ours
