# SPDX-License-Identifier: Apache-2.0
"""Timelines against a plain model that keeps everything: every answer, after any sequence of steps."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from npubox.core.drm.fence import Fence
from npubox.core.drm.syncobj import Syncobj
from npubox.core.drm.syncobj_wait import PointsWait
from tests.core.kunit.fences import mock_fence

FENCES = 3
POINTS = st.integers(0, 8)
POINT = st.tuples(st.just("point"), POINTS, st.integers(0, FENCES - 1))
SIGNAL = st.tuples(st.just("signal"), st.just(0), st.integers(0, FENCES - 1))
WAIT = st.tuples(st.just("wait"), POINTS, st.just(0))
RARE = st.tuples(st.sampled_from(["replace", "reset"]), st.just(0), st.integers(0, FENCES - 1))
STEPS = st.lists(
    st.integers(0, 15).flatmap(lambda dice: RARE if dice == 0 else (POINT, POINT, SIGNAL, WAIT)[dice % 4]),
    min_size=4,
    max_size=25,
)


@dataclass
class Node:
    """A point of the model; `run` numbers the stretches in which points only grow."""

    point: int
    run: int
    own: Fence


class Model:
    """What is in the slot: nothing, a fence, or a timeline: all its nodes, and what was before."""

    def __init__(self) -> None:
        self.first: Fence | None = None
        self.nodes: list[Node] = []

    def add(self, point: int, fence: Fence) -> None:
        newest = self.nodes[-1] if self.nodes else None
        if newest is None:
            self.nodes.append(Node(point, 0, fence))
        elif point > newest.point:
            self.nodes.append(Node(point, newest.run, fence))
        else:
            self.nodes.append(Node(newest.point, newest.run + 1, fence))

    def replace(self, fence: Fence | None) -> None:
        self.first, self.nodes = fence, []

    def done(self, count: int) -> bool:
        """Whether the fences of the first `count` nodes, and what was before them, have signalled."""
        before = self.first is None or self.first.signalled
        return before and all(node.own.signalled for node in self.nodes[:count])

    def state(self, point: int) -> bool | None:
        """None where nobody submitted the point, else whether it has signalled."""
        if point == 0:
            return self.done(len(self.nodes)) if self.nodes or self.first else None
        if not self.nodes or self.nodes[-1].point < point:
            return None
        run = [node for node in self.nodes if node.run == self.nodes[-1].run]
        earlier = len(self.nodes) - len(run)
        reached = next(index for index, node in enumerate(run) if node.point >= point)
        return self.done(earlier + reached + 1)

    def query(self) -> int:
        """The point before the first of the run whose own fence is pending: what was before the run counts,
        as in the kernel, only for the newest point."""
        if not self.nodes:
            return 0
        run = [node for node in self.nodes if node.run == self.nodes[-1].run]
        if self.done(len(self.nodes)):
            return run[-1].point
        pending = next((index for index, node in enumerate(run[:-1]) if not node.own.signalled), len(run) - 1)
        return run[pending - 1].point if pending else 0


def state_of(syncobj: Syncobj, point: int) -> bool | None:
    try:
        return syncobj.find(point).signalled
    except OSError:
        return None


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_a_timeline_answers_as_the_model(steps: list[tuple[str, int, int]]) -> None:
    fences = [mock_fence() for _ in range(FENCES)]
    syncobj, model = Syncobj(), Model()
    waits: list[tuple[PointsWait, list[Fence]]] = []
    for step, point, which in steps:
        fence = fences[which]
        match step:
            case "point":
                syncobj.add_point(point, fence)
                model.add(point, fence)
            case "replace":
                syncobj.replace(fence)
                model.replace(fence)
            case "reset":
                syncobj.replace(None)
                model.replace(None)
            case "signal":
                fence.signal()
                fences[which] = mock_fence()
            case "wait" if model.state(point) is not None:
                wait = PointsWait([(syncobj, point)])
                assert wait.over == model.state(point)
                wait.start()
                waits.append((wait, needed(model, point)))
        assert [state_of(syncobj, at) for at in range(10)] == [model.state(at) for at in range(10)]
        assert syncobj.query(last_submitted=False) == model.query()
        assert syncobj.query(last_submitted=True) == (model.nodes[-1].point if model.nodes else 0)
        for wait, parts in waits:
            assert wait.over == all(part.signalled for part in parts)
    for wait, _ in waits:
        wait.remove_callback(lambda: None)
    assert all(not fence._callbacks for fence in fences)


def needed(model: Model, point: int) -> list[Fence]:
    """The fences that a wait for this point waits for, whatever happens to the slot later."""
    parts = [] if model.first is None else [model.first]
    if point == 0:
        return parts + [node.own for node in model.nodes]
    newest = model.nodes[-1].run
    for node in model.nodes:
        parts.append(node.own)
        if node.run == newest and node.point >= point:
            break
    return parts
