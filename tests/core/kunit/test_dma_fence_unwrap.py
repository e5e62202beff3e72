# SPDX-License-Identifier: Apache-2.0
"""dma-fence-unwrap."""

from __future__ import annotations

import errno

from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.fence_container import FenceArray, FenceChain, merge, unwrap
from tests.core.kunit.fences import mock_fence


def leaves(fence: Fence) -> set[Fence]:
    found = list(unwrap(fence))
    assert len(found) == len(set(found))
    return set(found)


def test_sanitycheck() -> None:
    fence = mock_fence()
    assert list(unwrap(FenceArray([fence]))) == [fence]


def test_unwrap_array() -> None:
    fences = {mock_fence(), mock_fence()}
    assert leaves(FenceArray([*fences])) == fences


def test_unwrap_chain() -> None:
    first, second = mock_fence(), mock_fence()
    assert leaves(FenceChain(first, second, 1)) == {first, second}


def test_unwrap_chain_array() -> None:
    fences = [mock_fence() for _ in range(4)]
    chain = FenceChain(FenceChain(None, FenceArray(fences[:2]), 1), FenceArray(fences[2:]), 2)
    assert leaves(chain) == set(fences)


def test_unwrap_merge() -> None:
    first, second = mock_fence(), mock_fence()
    assert leaves(merge([first, second])) == {first, second}


def test_unwrap_merge_duplicate() -> None:
    fence = mock_fence()
    assert merge([fence, fence]) is fence


def test_unwrap_merge_seqno() -> None:
    context = new_context()
    first, second, other = mock_fence(context, 1), mock_fence(context, 2), mock_fence()
    assert leaves(merge([second, other, first])) == {second, other}


def test_unwrap_merge_order() -> None:
    contexts = [new_context(), new_context()]
    early = [mock_fence(context, 1) for context in contexts]
    late = [mock_fence(context, 2) for context in contexts]
    merged = merge([FenceArray(early), FenceArray(late[::-1])])
    assert list(unwrap(merged)) == late


def test_unwrap_merge_complex() -> None:
    first, second = mock_fence(), mock_fence()
    both = merge([first, second])
    swapped = FenceArray([second, first])
    assert leaves(merge([both, swapped])) == {first, second}


def test_unwrap_merge_complex_seqno() -> None:
    contexts = [new_context(), new_context()]
    fences = {(index, seqno): mock_fence(contexts[index], seqno) for index in (0, 1) for seqno in (1, 2)}
    one = FenceArray([fences[0, 1], fences[1, 2]])
    two = FenceArray([fences[0, 2], fences[1, 1]])
    assert leaves(merge([one, two])) == {fences[0, 2], fences[1, 2]}


# Beyond the kernel's cases


def test_merge_drops_what_has_signalled() -> None:
    done, failed, waiting = mock_fence(), mock_fence(), mock_fence()
    done.signal()
    failed.signal(errno.EIO)
    assert merge([done, waiting, failed]) is waiting
    assert merge([done, failed]).status == 1
    assert merge([done, failed]).timestamp_ns == failed.timestamp_ns


def test_an_array_has_the_first_error() -> None:
    fences = [mock_fence() for _ in range(3)]
    array = FenceArray(fences)
    fences[2].signal()
    fences[1].signal(errno.EIO)
    assert array.status == 0
    fences[0].signal()
    assert array.status == -errno.EIO
