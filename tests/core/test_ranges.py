# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npubox.core.idr import Idr
from npubox.core.ranges import PAGE_SIZE, RangeAllocator, page_align
from tests.core.refaccel import fails

PAGES = 64


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 16)), max_size=60))
def test_first_fit_against_a_bitmap(steps: list[tuple[bool, int]]) -> None:
    start = 0x1000_0000
    ranges = RangeAllocator(start, start + PAGES * PAGE_SIZE)
    taken = [False] * PAGES
    owned: list[tuple[int, int]] = []
    for free, number in steps:
        if free and owned:
            address, pages = owned.pop(number % len(owned))
            ranges.free(address, pages * PAGE_SIZE - number % PAGE_SIZE)
            first = (address - start) // PAGE_SIZE
            taken[first : first + pages] = [False] * pages
        else:
            pages = 1 + number % 9
            fits = [at for at in range(PAGES - pages + 1) if not any(taken[at : at + pages])]
            if not fits:
                with fails(errno.ENOSPC):
                    ranges.allocate(pages * PAGE_SIZE)
                continue
            address = ranges.allocate(pages * PAGE_SIZE - number % PAGE_SIZE)
            assert address == start + fits[0] * PAGE_SIZE
            taken[fits[0] : fits[0] + pages] = [True] * pages
            owned.append((address, pages))
        assert ranges.free_bytes == taken.count(False) * PAGE_SIZE


def test_a_range_is_freed_once() -> None:
    ranges = RangeAllocator(0, 4 * PAGE_SIZE)
    address = ranges.allocate(PAGE_SIZE)
    ranges.allocate(PAGE_SIZE)
    ranges.free(address, PAGE_SIZE)
    for again in (address, 2 * PAGE_SIZE, 3 * PAGE_SIZE):
        with pytest.raises(ValueError, match="already free"):
            ranges.free(again, PAGE_SIZE)
    with pytest.raises(ValueError, match="whole pages"):
        RangeAllocator(1, PAGE_SIZE)
    assert [page_align(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


@given(st.lists(st.integers(0, 20), max_size=60))
def test_idr_gives_the_lowest_free_number(steps: list[int]) -> None:
    idr: Idr[object] = Idr(1, 12)
    taken: set[int] = set()
    for step in steps:
        if step in taken:
            assert idr.remove(step) is not None
            taken.remove(step)
        elif len(taken) == 12:
            with fails(errno.ENOSPC):
                idr.allocate(object())
        else:
            number = idr.allocate(object())
            assert number == min(set(range(1, 13)) - taken)
            taken.add(number)
        assert list(idr) == sorted(taken)
        assert idr.get(0) is None
