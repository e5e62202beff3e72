# SPDX-License-Identifier: Apache-2.0
"""What a supervisor asks of the machine whose nodes it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo
from npubox.machines.part import AttributeWatcher, JobWatcher


class ServedMachine(Protocol):
    """A machine with nodes. It powers up when a node is first opened."""

    job_watcher: JobWatcher | None
    attribute_watcher: AttributeWatcher | None
    """To be set before it powers up."""

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

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        """Once `ready`. OSError with the caller's errno."""

    def events(self) -> tuple[int, Callable[[], bool]] | None:
        """A descriptor to watch and what to do whenever it is readable, until that returns False."""

    def close(self) -> None: ...
