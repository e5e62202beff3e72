# SPDX-License-Identifier: Apache-2.0
"""A NeuronCore's semaphores and events (facts, neuron.md §10.2)."""

from __future__ import annotations

from collections.abc import Callable

from npubox.hw.neuron import core_window as hw

_WORD = 0xFFFFFFFF


class Synchronisers:
    """The words of one core's window that are registers. Written under the chip's lock.

    `changed` is told of each event whose value changes: index, new value.
    """

    def __init__(self, changed: Callable[[int, int], None]) -> None:
        self._changed = changed
        self.reset()

    def reset(self) -> None:
        self._events = [0] * hw.EVENT_COUNT
        self._semaphores = [0] * hw.SEMAPHORE_COUNT

    def read(self, offset: int) -> int:
        """The word at `offset` of the window: only events and the semaphores' read slots have values."""
        if offset < hw.EVENTS + 4 * hw.EVENT_COUNT:
            return self._events[(offset - hw.EVENTS) // 4]
        index = (offset - hw.SEMAPHORE_READ) // 4
        return self._semaphores[index] if 0 <= index < hw.SEMAPHORE_COUNT else 0

    def write(self, offset: int, value: int) -> None:
        if offset < hw.EVENTS + 4 * hw.EVENT_COUNT:
            index = (offset - hw.EVENTS) // 4
            before, self._events[index] = self._events[index], value
            if before != value:
                self._changed(index, value)
            return
        slot, within = divmod(offset - hw.SEMAPHORE_READ, hw.SEMAPHORE_SET - hw.SEMAPHORE_READ)
        index = within // 4
        if index >= hw.SEMAPHORE_COUNT:
            return
        match hw.SEMAPHORE_READ + slot * (hw.SEMAPHORE_SET - hw.SEMAPHORE_READ):
            case hw.SEMAPHORE_SET:
                self._semaphores[index] = value
            case hw.SEMAPHORE_INCREMENT:
                self._semaphores[index] = self._semaphores[index] + value & _WORD
            case hw.SEMAPHORE_DECREMENT:
                self._semaphores[index] = self._semaphores[index] - value & _WORD
