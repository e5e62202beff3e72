# SPDX-License-Identifier: Apache-2.0
"""dma-fence-chain."""

from __future__ import annotations

import errno
import gc
import random
import threading
import weakref

from npubox.core.drm.fence_container import FenceChain, find_point
from npubox.core.pending import Pending
from tests.core.kunit.fences import Chains, mock_fence
from tests.core.refaccel import fails

LENGTH = 64


def test_sanitycheck() -> None:
    own = mock_fence()
    chain = FenceChain(None, own, 1)
    assert (chain.seqno, chain.prev_seqno, chain.fence) == (1, 0, own)
    assert not chain.signalled
    own.signal()
    assert chain.signalled


def test_find_seqno() -> None:
    chains = Chains(LENGTH)
    assert find_point(chains.tail, 0) is chains.tail
    assert find_point(chains.tail, LENGTH + 1) is None
    for index, point in enumerate(chains.points):
        assert find_point(chains.tail, index + 1) is point


def test_find_signaled() -> None:
    chains = Chains(2)
    chains.fences[0].signal()
    found = find_point(chains.tail, 1)
    assert found is not None
    assert found.signalled
    assert found is not chains.tail


def test_find_out_of_order() -> None:
    chains = Chains(3)
    chains.fences[1].signal()
    # Point 2 has signalled by itself, but not what is before it.
    found = find_point(chains.tail, 2)
    assert found is chains.points[0]
    chains.fences[0].signal()
    found = find_point(chains.tail, 2)
    assert found is not None
    assert found.signalled


def test_find_gap() -> None:
    chains = Chains(LENGTH, step=2)
    for index, point in enumerate(chains.points):
        assert find_point(chains.tail, 2 * index + 1) is point
        assert find_point(chains.tail, 2 * index + 2) is point


def test_find_race() -> None:
    """Searches while the points signal in any order: a point that is found is its own, or has signalled."""
    chains = Chains(LENGTH)
    failures: list[object] = []

    def search(seed: int) -> None:
        dice = random.Random(seed)
        while not chains.tail.signalled:
            point = dice.randrange(1, LENGTH + 1)
            found = find_point(chains.tail, point)
            if found is None or (found.seqno > point and not found.signalled):
                failures.append((point, found))

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for fence in random.Random(1).sample(chains.fences, LENGTH):
        fence.signal()
    for thread in threads:
        thread.join()
    assert failures == []


def test_signal_forward() -> None:
    chains = Chains(LENGTH)
    for index, fence in enumerate(chains.fences):
        fence.signal()
        assert chains.points[index].signalled
        assert index + 1 == LENGTH or not chains.points[index + 1].signalled


def test_signal_backward() -> None:
    chains = Chains(LENGTH)
    for index in reversed(range(1, LENGTH)):
        chains.fences[index].signal()
        assert not chains.points[index].signalled
    chains.fences[0].signal()
    assert all(point.signalled for point in chains.points)


def wait_while(order: list[int], chains: Chains) -> None:
    pending = Pending([chains.tail])
    thread = threading.Thread(target=pending.wait)
    thread.start()
    for index in order:
        assert not pending.done
        chains.fences[index].signal()
    thread.join(60)
    assert pending.done


def test_wait_forward() -> None:
    wait_while(list(range(LENGTH)), Chains(LENGTH))


def test_wait_backward() -> None:
    wait_while(list(reversed(range(LENGTH))), Chains(LENGTH))


def test_wait_random() -> None:
    wait_while(random.Random(7).sample(range(LENGTH), LENGTH), Chains(LENGTH))


# Beyond the kernel's cases


def test_a_long_chain_recurses_nowhere() -> None:
    chains = Chains(20_000)
    done = threading.Event()
    assert all(point.add_callback(done.set) for point in chains.points[::1000])
    for fence in reversed(chains.fences):
        fence.signal()
    assert chains.tail.signalled
    assert done.is_set()


def test_what_nobody_waits_for_is_not_kept() -> None:
    chains = Chains(1)
    for _ in range(1000):
        chains.append()
        chains.fences.pop().signal()
        chains.points = [chains.tail]
        chains.tail.walk()
    links = list(chains.tail.links())
    assert len(links) == 2
    gone = weakref.ref(chains.tail)
    pending = Pending([chains.tail], 0)
    with fails(errno.ETIME):
        pending.wait()
    own = chains.fences[0]
    del chains, links, pending
    gc.collect()
    assert gone() is None
    assert own._callbacks == []


def test_a_waiter_that_comes_as_the_last_one_leaves_is_called() -> None:
    """Nobody is lost between the arming for one and the disarming after another."""
    for _ in range(300):
        chains = Chains(2)
        first, second = Pending([chains.tail]), threading.Event()
        thread = threading.Thread(target=first.cancel)
        thread.start()
        assert chains.tail.add_callback(second.set)
        thread.join()
        for fence in chains.fences:
            fence.signal()
        assert second.is_set()
