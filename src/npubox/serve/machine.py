# SPDX-License-Identifier: Apache-2.0
"""What a supervisor asks of the machine whose nodes it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from npubox.core.caller import Caller
from npubox.core.pending import Pending
from npubox.serve.nodes import NodeInfo

if TYPE_CHECKING:
    from npubox.core.store import Store

JobWatcher = Callable[[int, int, int, Any], None]
"""(client id, the client's job number, errno or 0, the control channel's report or None) of a job that is
over; on any thread, perhaps under the device's lock, so it must not block."""


class StorePlace(NamedTuple):
    """A store: its descriptor, a path by which it can be linked, and a directory to link it in."""

    fd: int
    source: str
    directory: str


def place_of(store: Store) -> StorePlace:
    """The place of a store that nobody has linked yet."""
    return StorePlace(store.fd, f"/proc/self/fd/{store.fd}", store.directory)


class OpenFile(Protocol):
    """An open file of a device. Every method raises OSError with the kernel's errno."""

    @property
    def client_id(self) -> int: ...

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending: ...

    def mmap(self, length: int, prot: int, flags: int, offset: int) -> None:
        """Check a mapping that the kernel is about to make; its object stays until `unmapped` or `close`."""

    def forgotten(self) -> Sequence[tuple[int, int]]:
        """(offset, size) of objects that only mappings may still need."""

    def unmapped(self, offset: int) -> None:
        """Nobody maps the forgotten object at `offset` any more."""

    def close(self) -> None:
        """The last descriptor and the last mapping are gone."""


class ServedMachine(Protocol):
    """A machine with nodes. It powers up when a node is first opened."""

    job_watcher: JobWatcher | None

    @property
    def nodes(self) -> Sequence[NodeInfo]: ...

    @property
    def ready(self) -> bool:
        """Whether nodes can be opened, or never will: `open` then says why."""

    @property
    def processes(self) -> frozenset[int]:
        """The ids of the processes that drivers and devices run in."""

    def power_up(self, done: Callable[[], None]) -> None:
        """Begin to power up, once; `done` is called on another thread when `ready`."""

    def store(self, node: NodeInfo) -> StorePlace:
        """The store behind a node's mappings. Once `ready`."""

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile: ...

    def events(self) -> tuple[int, Callable[[], bool]] | None:
        """A descriptor to watch and what to do whenever it is readable, until that returns False."""

    def close(self) -> None: ...
