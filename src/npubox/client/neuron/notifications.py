# SPDX-License-Identifier: Apache-2.0
"""Notification queues, read through a mapping."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass

from npubox.client.neuron.node import NeuronNode
from npubox.errors import WaitTimeout
from npubox.hw.neuron import notification
from npubox.hw.neuron.notification import ErrorCode
from npubox.hw.neuron.putils import NotificationType
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

PAUSE = 50e-6
PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Notification:
    """One entry: who it is from and what it says (`npubox.hw.neuron.notification`). `time` in device ns."""

    kind: NotificationType
    source: int
    id: int
    time: int

    @property
    def event(self) -> tuple[int, bool]:
        """Of an EVENT: its number and whether it was set."""
        return self.id & ~notification.EVENT_SET, bool(self.id & notification.EVENT_SET)

    @property
    def error(self) -> ErrorCode:
        """Of an ERROR: why the queue stopped."""
        return ErrorCode(self.id)

    @property
    def queue(self) -> tuple[int, int]:
        """Of an ERROR: engine and queue."""
        return self.source >> 4, self.source & 0xF


class NotificationQueue:
    """A core's queue of one kind, in host memory. Only one reader keeps its place: this object."""

    def __init__(self, node: NeuronNode, core: int, kind: NotificationType, engine: int, size: int) -> None:
        args = structs.NotificationsInitV1(nc_id=core, nq_type=kind, engine_index=engine, size=size)
        node.call(uapi.NOTIFICATIONS_INIT_V1, args)
        self.name = f"{node.name}: {kind.name} notifications of core {core}"
        self._size = size
        self._memory = node.map(args.mmap_offset, -(-size // PAGE) * PAGE)
        self._at = 0
        self._phase = notification.FIRST_PHASE

    def poll(self) -> list[Notification]:
        """The entries that came since the last look."""
        found = []
        while self._memory[self._at + notification.PHASE_OFFSET] & 1 == self._phase:
            kind, _, source, number, moment = notification.FORMAT.unpack_from(self._memory, self._at)
            if kind != notification.START:
                found.append(Notification(NotificationType(kind), source, number, moment))
            self._at += notification.SIZE
            if self._at == self._size:
                self._at = 0
                self._phase ^= 1
        return found

    def wait(self, timeout: float = 10.0) -> list[Notification]:
        """Wait for entries. Raises WaitTimeout."""
        deadline = time.monotonic() + timeout
        while not (found := self.poll()):
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"{self.name}: nothing came in {timeout} s")
            time.sleep(PAUSE)
        return found

    def close(self) -> None:
        """Unmap it; the queue itself lives as long as the device."""
        self._memory.close()

    def __enter__(self) -> NotificationQueue:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
