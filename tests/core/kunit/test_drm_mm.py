# SPDX-License-Identifier: Apache-2.0
"""drm_mm, in the one mode that mmap offsets and device addresses need: lowest address first."""

from __future__ import annotations

import errno
import random

from npubox.core.ranges import PAGE_SIZE, RangeAllocator
from tests.core.refaccel import fails

COUNT = 256
START = 0x1000_0000


def full(count: int = COUNT, size: int = PAGE_SIZE) -> tuple[RangeAllocator, list[int]]:
    mm = RangeAllocator(START, START + count * size)
    return mm, [mm.allocate(size) for _ in range(count)]


def test_drm_test_mm_init() -> None:
    mm = RangeAllocator(START, START + PAGE_SIZE)
    assert mm.free_bytes == PAGE_SIZE
    assert mm.allocate(PAGE_SIZE) == START
    assert mm.free_bytes == 0
    mm.free(START, PAGE_SIZE)
    assert mm.free_bytes == PAGE_SIZE


def test_drm_test_mm_insert() -> None:
    for pages in (1, 3, 7):
        size = pages * PAGE_SIZE
        mm, nodes = full(size=size)
        assert nodes == [START + index * size for index in range(COUNT)]
        with fails(errno.ENOSPC):
            mm.allocate(PAGE_SIZE)
        for node in random.Random(3).sample(nodes, COUNT):
            mm.free(node, size)
            assert mm.allocate(size) == node


def test_drm_test_mm_frag() -> None:
    mm, nodes = full()
    for node in nodes[::2]:
        mm.free(node, PAGE_SIZE)
    assert mm.free_bytes == COUNT // 2 * PAGE_SIZE
    with fails(errno.ENOSPC):
        mm.allocate(2 * PAGE_SIZE)
    assert [mm.allocate(PAGE_SIZE) for _ in nodes[::2]] == nodes[::2]


def test_drm_test_mm_bottomup() -> None:
    mm, nodes = full()
    for node in nodes[10:20]:
        mm.free(node, PAGE_SIZE)
    assert mm.allocate(4 * PAGE_SIZE) == nodes[10]
    assert mm.allocate(6 * PAGE_SIZE) == nodes[14]


def test_drm_test_mm_lowest() -> None:
    mm, nodes = full()
    freed = random.Random(5).sample(nodes, 20)
    for node in freed:
        mm.free(node, PAGE_SIZE)
    assert [mm.allocate(PAGE_SIZE) for _ in freed] == sorted(freed)
