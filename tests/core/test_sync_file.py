# SPDX-License-Identifier: Apache-2.0
"""sync_file and sw_sync (accel-core.md §2.9)."""

from __future__ import annotations

import ctypes
import errno
import gc
import select
import time
from collections.abc import Iterator

import pytest

from npubox.core import reaper
from npubox.core.node import Node
from npubox.core.sw_sync import SwSyncFile
from npubox.uapi import sw_sync, sync_file
from tests.core.descriptors import open_descriptors
from tests.core.refaccel import call, create, fails
from tests.core.syncobjs import SwSync, attach, export_fence, info, merge, readable
from tests.core.syncobjs import create as create_syncobj


@pytest.fixture
def timeline() -> Iterator[SwSync]:
    with SwSync("tester") as opened:
        yield opened
    reaper.drain()


def test_a_fence_is_readable_once_the_timeline_is_there(timeline: SwSync) -> None:
    fd = timeline.fence(2)
    assert not readable(fd)
    timeline.advance(1)
    assert not readable(fd)
    timeline.advance(1)
    assert readable(fd)
    file = timeline.adopt(fd)
    assert file.poll() == select.POLLIN
    file.close()
    past = timeline.fence(2)
    assert readable(past)
    timeline.adopt(past).close()


def test_names_and_times(timeline: SwSync) -> None:
    with timeline.adopt(timeline.fence(7)) as file:
        about, fences = info(file)
        assert about.name.startswith(b"sw_sync-tester")
        assert about.name.endswith(b"-7")
        assert (about.status, about.num_fences) == (0, 1)
        (fence,) = fences
        assert (fence.obj_name, fence.driver_name, fence.status) == (b"tester", b"sw_sync", 0)
        before = time.monotonic_ns()
        timeline.advance(7)
        about, fences = info(file)
        assert about.name == b"detached-driver-signaled-timeli"
        (fence,) = fences
        assert (fence.obj_name, fence.driver_name) == (b"signaled-timeline", b"detached-driver")
        assert before <= fence.timestamp_ns <= time.monotonic_ns()


def test_info_refuses(timeline: SwSync) -> None:
    other = timeline.fence(2)
    with timeline.adopt(merge(timeline, timeline.fence(1), other)) as file:
        about, _ = info(file, room=0)
        assert (about.num_fences, about.status, about.name) == (1, 0, b"merged")
    with SwSync() as second, timeline.adopt(merge(timeline, second.fence(1), other)) as file:
        with fails(errno.EINVAL):
            info(file, room=1)
        assert len(info(file, room=2)[1]) == 2
        for field in ("flags", "pad"):
            with fails(errno.EINVAL):
                call(file, sync_file.FILE_INFO, **{field: 1})
        with fails(errno.EFAULT):
            call(file, sync_file.FILE_INFO, num_fences=2, sync_fence_info=8)
        for request in (sync_file.FILE_INFO.number ^ 0x1_0000, 0x6400):
            with fails(errno.ENOTTY):
                file.ioctl(request, 0)
    timeline.adopt(other).close()


def test_merge_keeps_the_later_of_a_timeline(timeline: SwSync) -> None:
    other = timeline.fence(5)
    with timeline.adopt(merge(timeline, timeline.fence(3), other)) as file:
        timeline.advance(3)
        assert file.poll() == 0
        assert info(file)[0].num_fences == 1
        timeline.advance(2)
        assert file.poll() == select.POLLIN
    timeline.adopt(other).close()


def test_merge_of_timelines_waits_for_all(timeline: SwSync) -> None:
    with SwSync("second") as second:
        theirs = second.fence(1)
        fd = merge(timeline, timeline.fence(1), theirs, b"a name of more than thirty-one bytes"[:32])
        timeline.advance(1)
        assert not readable(fd)
        with timeline.adopt(fd) as file:
            about, fences = info(file)
            assert [fence.status for fence in fences] == [1, 0]
            assert (about.status, about.name) == (0, b"a name of more than thirty-one ")
            second.advance(1)
            assert info(file)[0].status == 1
            assert file.poll() == select.POLLIN
        timeline.adopt(theirs).close()


def test_merge_refuses(timeline: SwSync) -> None:
    with timeline.adopt(timeline.fence(1)) as file:
        for fd in (-1, 0):
            with fails(errno.ENOENT):
                call(file, sync_file.MERGE, fd2=fd)
        for field in ("flags", "pad"):
            with fails(errno.EINVAL):
                call(file, sync_file.MERGE, **{field: 1})


def test_whoever_cannot_be_told_gets_no_descriptor(timeline: SwSync) -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, 4096, 1, 0x22, -1, 0)
    before = open_descriptors()
    with fails(errno.EFAULT):
        timeline.ioctl(sw_sync.CREATE_FENCE, page)
    assert open_descriptors() == before
    libc.munmap(ctypes.c_void_p(page), 4096)


def test_the_end_of_a_timeline_is_an_error_of_its_fences() -> None:
    with SwSync() as timeline:
        fd = timeline.fence(1)
    assert readable(fd)
    with timeline.adopt(fd) as file:
        about, (fence,) = info(file)
        assert (about.status, fence.status) == (-errno.ENOENT, -errno.ENOENT)
        assert info(file, room=0)[0].status == -errno.ENOENT


def test_the_counter_wraps_and_takes_big_steps(timeline: SwSync) -> None:
    early, late = timeline.fence(0x7FFF_FFFF), timeline.fence(5)
    timeline.advance(0xFFFF_FFFE)
    assert readable(early)
    assert readable(late)
    wrapped = timeline.fence(3)
    assert not readable(wrapped)
    timeline.advance(4)
    assert not readable(wrapped)
    timeline.advance(1)
    assert readable(wrapped)
    for fd in (early, late, wrapped):
        timeline.adopt(fd).close()


def test_deadlines(timeline: SwSync, node: Node) -> None:
    fd = timeline.fence(9)
    with fails(errno.ENOENT):
        call(timeline, sw_sync.GET_DEADLINE, fence_fd=fd)
    with fails(errno.EINVAL):
        call(timeline, sw_sync.GET_DEADLINE, fence_fd=-1)
    with SwSync() as second:
        theirs = second.fence(1)
        with timeline.adopt(merge(timeline, fd, theirs)) as both:
            for deadline in (50, 30, 40):
                call(both, sync_file.SET_DEADLINE, deadline_ns=deadline)
            with fails(errno.EINVAL):
                call(both, sync_file.SET_DEADLINE, pad=1)
        for mine in (theirs,):
            assert call(second, sw_sync.GET_DEADLINE, fence_fd=mine).deadline_ns == 30
            second.adopt(mine).close()
    handle = create_syncobj(node)
    attach(node, handle, timeline.fence(3), 4)
    exported = export_fence(node, handle, 4)
    with fails(errno.EINVAL):
        call(timeline, sw_sync.GET_DEADLINE, fence_fd=exported)
    node.adopt(exported).close()


def test_forgotten_fences_are_not_kept(timeline: SwSync) -> None:
    assert isinstance(timeline.file, SwSyncFile)
    for _ in range(1000):
        timeline.adopt(timeline.fence(1 << 20)).close()
    gc.collect()
    assert len(timeline.file.timeline._waiting) <= 200


def test_other_files_ioctls_are_not_its_own(timeline: SwSync, node: Node) -> None:
    for file in (timeline, node):
        with fails(errno.ENOTTY):
            call(file, sync_file.SET_DEADLINE)
    assert create(node, 4096).handle == 1
