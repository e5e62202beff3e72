# SPDX-License-Identifier: Apache-2.0
"""Fences made of fences: arrays, and the chains that are timelines.

A container holds its parts, never they it, until somebody waits for it: then it stands in the callback
list of one pending part at a time. So what nobody waits for is freed, however long its parts take, and
nothing recurses along a chain. Source: the project's facts (accel-core.md §2.8, §3.5).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

from npubox.core.drm.fence import Fence, new_context, signalled_fence

_guard = threading.Lock()


class FenceContainer(Fence, ABC):
    """Has signalled when all its parts have."""

    def __init__(self, context: int, seqno: int, driver: str) -> None:
        super().__init__(context, seqno, driver, "unbound")
        self._armed: Fence | None = None

    @abstractmethod
    def next_pending(self) -> Fence | None:
        """A part that has not signalled, None if all have."""

    @property
    def signalled(self) -> bool:
        return self._signalled or self.next_pending() is None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self.signalled or not super().add_callback(callback):
            return False
        self._arm()
        return True

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        removed = super().remove_callback(callback)
        armed = self._armed
        if not self._callbacks and armed is not None and armed.remove_callback(self._proceed):
            self._proceed_if_waited_for()
        return removed

    def _arm(self) -> None:
        while (part := self.next_pending()) is not None:
            with _guard:
                if self._armed is not None:
                    return
                self._armed = part
            if part.add_callback(self._proceed):
                return
            self._armed = None
        self.signal(self.error)

    def _proceed(self) -> None:
        self._armed = None
        self._arm()

    def _proceed_if_waited_for(self) -> None:
        # Somebody may have come to wait between the last one's leaving and the disarming.
        self._armed = None
        if self._callbacks:
            self._arm()


class FenceArray(FenceContainer):
    """All of some fences that are no containers themselves; its error is the first one's that has one."""

    def __init__(self, fences: Sequence[Fence]) -> None:
        super().__init__(new_context(), 1, "dma_fence_array")
        self.fences = tuple(fences)

    @property
    def error(self) -> int:
        return next((fence.error for fence in self.fences if fence.error), 0)

    def next_pending(self) -> Fence | None:
        return next((fence for fence in self.fences if not fence.signalled), None)

    def set_deadline(self, deadline_ns: int) -> None:
        for fence in self.fences:
            fence.set_deadline(deadline_ns)


class FenceChain(FenceContainer):
    """A point of a timeline: `fence`, and everything before it.

    A point that is not after `prev` begins a context of its own.
    """

    def __init__(self, prev: Fence | None, fence: Fence, seqno: int) -> None:
        self.prev_seqno = 0
        context = None
        if isinstance(prev, FenceChain):
            if seqno > prev.seqno:
                context, self.prev_seqno = prev.context, prev.seqno
            seqno = max(seqno, prev.seqno)
        super().__init__(new_context() if context is None else context, seqno, "dma_fence_chain")
        self.fence = fence
        self.prev = prev

    def is_later(self, other: Fence) -> bool:
        return self.seqno > other.seqno

    def walk(self) -> Fence | None:
        """The predecessor; those whose own fence has signalled are unlinked first."""
        while (prev := self.prev) is not None and own_fence(prev).signalled:
            before = prev.prev if isinstance(prev, FenceChain) else None
            with _guard:
                if self.prev is prev:
                    self.prev = before
        return self.prev

    def links(self) -> Iterator[Fence]:
        """This node and its predecessors, newest first; the oldest may be no node."""
        node: Fence | None = self
        while node is not None:
            yield node
            node = node.walk() if isinstance(node, FenceChain) else None

    def next_pending(self) -> Fence | None:
        return next((own for node in self.links() if not (own := own_fence(node)).signalled), None)

    def set_deadline(self, deadline_ns: int) -> None:
        for node in self.links():
            own_fence(node).set_deadline(deadline_ns)


def own_fence(fence: Fence) -> Fence:
    """What a chain's node adds to its predecessors; any other fence itself."""
    return fence.fence if isinstance(fence, FenceChain) else fence


def find_point(fence: Fence, point: int) -> Fence | None:
    """The fence that has signalled when `point` of this timeline has; None if the point is not there yet.

    It may belong to an older context, whose points all come before those of the newer.
    """
    if point == 0:
        return fence
    if not isinstance(fence, FenceChain) or fence.seqno < point:
        return None
    for node in fence.links():
        if not isinstance(node, FenceChain) or node.context != fence.context or node.prev_seqno < point:
            return node
    return signalled_fence()


def unwrap(fence: Fence) -> Iterator[Fence]:
    """The fences that a fence is made of in the end, newest first."""
    for node in fence.links() if isinstance(fence, FenceChain) else (fence,):
        own = own_fence(node)
        yield from own.fences if isinstance(own, FenceArray) else (own,)


def merge(fences: Iterable[Fence]) -> Fence:
    """One fence for all of them, which holds no chain or array below its top.

    Of each context only the latest counts, and what has signalled counts no more.
    """
    latest: dict[int, Fence] = {}
    timestamp = 0
    for fence in fences:
        for leaf in unwrap(fence):
            known = latest.get(leaf.context)
            if leaf.signalled:
                timestamp = max(timestamp, leaf.timestamp_ns or 0)
            elif known is None or leaf.is_later(known):
                latest[leaf.context] = leaf
    if not latest:
        return signalled_fence(timestamp)
    ordered = [latest[context] for context in sorted(latest)]
    return ordered[0] if len(ordered) == 1 else FenceArray(ordered)
