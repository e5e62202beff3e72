# SPDX-License-Identifier: Apache-2.0
"""Fences for the cases."""

from __future__ import annotations

from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.fence_container import FenceChain


def mock_fence(context: int | None = None, seqno: int = 1) -> Fence:
    return Fence(new_context() if context is None else context, seqno, "mock", "mock")


class Chains:
    """A timeline of `count` points, each a step after the last, and the fence below each."""

    def __init__(self, count: int, step: int = 1) -> None:
        self.fences: list[Fence] = []
        self.points: list[FenceChain] = []
        self.step = step
        for _ in range(count):
            self.append()

    @property
    def tail(self) -> FenceChain:
        return self.points[-1]

    def append(self) -> None:
        self.fences.append(mock_fence())
        tail = self.points[-1] if self.points else None
        self.points.append(FenceChain(tail, self.fences[-1], self.step * len(self.fences)))
