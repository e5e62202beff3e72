# SPDX-License-Identifier: Apache-2.0
"""Sync objects, row by row as a real kernel answered (accel-core.md §2.8)."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from collections.abc import Iterator

import pytest

from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.drm.driver import Feature
from npubox.core.node import Node
from npubox.uapi import drm_syncobj as uapi
from npubox.uapi.drm_syncobj import NO_INDEX, ToFdFlag, WaitFlag
from npubox.uapi.ioctl import Dir, encode
from tests.core.descriptors import open_descriptors
from tests.core.refaccel import RefAccel, call, fails, open_node, raw
from tests.core.syncobjs import (
    EVER,
    MS,
    SECOND,
    SwSync,
    attach,
    count,
    create,
    destroy,
    export_fence,
    from_fd,
    import_fence,
    once_waiting,
    query,
    reset,
    signal,
    signal_point,
    to_fd,
    transfer,
    u32s,
    wait,
    watch,
)

ALL, FOR_SUBMIT, AVAILABLE = WaitFlag.ALL, WaitFlag.FOR_SUBMIT, WaitFlag.AVAILABLE


@pytest.fixture
def timeline() -> Iterator[SwSync]:
    with SwSync() as opened:
        yield opened


def test_handles_are_the_lowest_free(node: Node) -> None:
    assert [create(node) for _ in range(3)] == [1, 2, 3]
    destroy(node, 2)
    assert create(node) == 2
    for handle in (0, 9):
        with fails(errno.EINVAL):
            destroy(node, handle)
    with fails(errno.EINVAL):
        call(node, uapi.SYNCOBJ_DESTROY, handle=1, pad=1)
    with fails(errno.EINVAL):
        call(node, uapi.SYNCOBJ_CREATE, flags=2)


def test_arrays_are_checked_before_anything_changes(node: Node) -> None:
    handle = create(node, signalled=True)
    for declaration in (uapi.SYNCOBJ_RESET, uapi.SYNCOBJ_SIGNAL):
        handles = u32s([handle, 99])
        with fails(errno.ENOENT):
            call(node, declaration, handles=ctypes.addressof(handles), count_handles=2)
        with fails(errno.EINVAL):
            call(node, declaration, handles=ctypes.addressof(handles), count_handles=0)
        with fails(errno.EINVAL):
            call(node, declaration, handles=ctypes.addressof(handles), count_handles=1, pad=1)
        with fails(errno.EFAULT):
            call(node, declaration, handles=8, count_handles=1)
        with fails(errno.ENOMEM):
            call(node, declaration, handles=ctypes.addressof(handles), count_handles=0xFFFF_FFFF)
    assert wait(node, [handle]) == 0


def test_an_empty_object_cannot_be_waited_for(node: Node) -> None:
    handle = create(node)
    with fails(errno.EINVAL):
        wait(node, [handle])
    with fails(errno.EINVAL):
        wait(node, [handle], flags=WaitFlag.DEADLINE)
    for timeout in (0, -1):
        with fails(errno.ETIME):
            wait(node, [handle], timeout=timeout, flags=FOR_SUBMIT)


def test_time_is_absolute_and_never_early(node: Node) -> None:
    handle = create(node)
    start = time.monotonic_ns()
    with fails(errno.ETIME):
        wait(node, [handle], timeout=50 * MS, flags=FOR_SUBMIT)
    assert time.monotonic_ns() - start >= 50 * MS


def test_wait_refuses(node: Node) -> None:
    handle = create(node, signalled=True)
    for flags in (AVAILABLE, 16):
        with fails(errno.EINVAL):
            wait(node, [handle], flags=flags)
    with fails(errno.EINVAL):
        wait(node, [handle], [0], flags=16)
    with fails(errno.ENOENT):
        wait(node, [99])
    with fails(errno.EFAULT):
        call(node, uapi.SYNCOBJ_WAIT, count_handles=1)
    handles = u32s([handle])
    with fails(errno.EFAULT):
        call(
            node,
            uapi.SYNCOBJ_TIMELINE_WAIT,
            handles=ctypes.addressof(handles),
            points=8,
            count_handles=1,
        )


def test_the_index_that_is_reported(node: Node) -> None:
    empty, ready = create(node), create(node, signalled=True)
    assert wait(node, []) == 0x55
    assert wait(node, [empty, ready], flags=FOR_SUBMIT) == 1
    assert wait(node, [ready, ready], flags=ALL) == 0
    with fails(errno.EINVAL):
        wait(node, [ready, empty])
    assert call(node, uapi.SYNCOBJ_WAIT, pad=9).pad == 9


def test_all_that_wait_at_first_report_no_index(node: Node, timeline: SwSync) -> None:
    handles = [create(node) for _ in range(3)]
    for handle in handles:
        attach(node, handle, timeline.fence(1))
    once_waiting(node, timeline.advance, 1)
    assert wait(node, handles, timeout=10 * SECOND, flags=ALL) == NO_INDEX


def test_any_reports_who_signalled(node: Node, timeline: SwSync) -> None:
    handles = [create(node) for _ in range(3)]
    for value, handle in zip((5, 3, 9), handles, strict=True):
        attach(node, handle, timeline.fence(value))
    once_waiting(node, timeline.advance, 3)
    assert wait(node, handles, timeout=10 * SECOND) == 1


def test_a_short_struct_of_an_old_program(node: Node) -> None:
    handle = create(node, signalled=True)
    handles = u32s([handle])
    args = uapi.SyncobjWait(handles=ctypes.addressof(handles), count_handles=1, first_signaled=9)
    buffer = ctypes.create_string_buffer(bytes(args)[:32], 32)
    raw(node, encode(Dir.READ | Dir.WRITE, "d", 0xC3, 32), buffer)
    assert uapi.SyncobjWait.from_buffer_copy(buffer.raw + bytes(8)).first_signaled == 0


def test_what_was_found_at_first_is_waited_for(node: Node, timeline: SwSync) -> None:
    handle = create(node)
    attach(node, handle, timeline.fence(1))

    def replace() -> None:
        reset(node, handle)
        timeline.advance(1)

    once_waiting(node, replace)
    assert wait(node, [handle], timeout=10 * SECOND) == 0


def test_a_wait_for_submit_takes_the_first_fence(node: Node, timeline: SwSync) -> None:
    handle = create(node)

    def submit() -> None:
        attach(node, handle, timeline.fence(1))
        reset(node, handle)
        timeline.advance(1)

    once_waiting(node, submit)
    assert wait(node, [handle], timeout=10 * SECOND, flags=FOR_SUBMIT) == 0


def test_a_fence_with_an_error_counts_as_signalled(node: Node) -> None:
    handle = create(node)
    with SwSync() as timeline:
        attach(node, handle, timeline.fence(1))
    assert wait(node, [handle]) == 0


def test_available_asks_for_a_fence_only(node: Node, timeline: SwSync) -> None:
    handle = create(node)
    with fails(errno.ETIME):
        wait(node, [handle], [1], flags=AVAILABLE)
    once_waiting(node, lambda: attach(node, handle, timeline.fence(9), 1))
    assert wait(node, [handle], [1], timeout=10 * SECOND, flags=AVAILABLE) == 0
    with fails(errno.ETIME):
        wait(node, [handle], [1])


def test_query_after_points_in_and_out_of_order(node: Node) -> None:
    handle, binary = create(node), create(node, signalled=True)
    assert query(node, handle, binary) == [0, 0]
    signal_point(node, handle, 5)
    assert query(node, handle) == [5]
    signal_point(node, handle, 3)
    assert query(node, handle) == [5]
    assert query(node, handle, last_submitted=True) == [5]
    signal_point(node, handle, 0)
    assert query(node, handle) == [5]
    handles = u32s([handle])
    for fields, error in (
        ({"flags": 2}, errno.EINVAL),
        ({"count_handles": 0}, errno.EINVAL),
        ({"points": 8}, errno.EFAULT),
    ):
        with fails(error):
            call(
                node,
                uapi.SYNCOBJ_QUERY,
                **{"handles": ctypes.addressof(handles), "points": 8, "count_handles": 1} | fields,
            )


def test_a_timeline_advances_with_its_oldest_point(node: Node, timeline: SwSync) -> None:
    handle = create(node)
    for point, value in ((10, 1), (20, 2), (30, 3)):
        attach(node, handle, timeline.fence(value), point)
    seen = [query(node, handle)]
    for _ in range(3):
        timeline.advance(1)
        seen.append(query(node, handle))
    assert seen == [[0], [10], [20], [30]]
    assert query(node, handle, last_submitted=True) == [30]


def test_points_signal_when_everything_before_them_has(node: Node, timeline: SwSync) -> None:
    handle = create(node)
    attach(node, handle, timeline.fence(2), 1)
    attach(node, handle, timeline.fence(1), 2)
    timeline.advance(1)
    for point in (0, 1, 2):
        with fails(errno.ETIME):
            wait(node, [handle], [point])
    with fails(errno.EINVAL):
        wait(node, [handle], [3])
    timeline.advance(1)
    for point in (0, 1, 2):
        assert wait(node, [handle], [point]) == 0


def test_transfer(node: Node, timeline: SwSync) -> None:
    source, target = create(node), create(node)
    attach(node, source, timeline.fence(1), 5)
    transfer(node, source, 5, target, 0)
    with fails(errno.ETIME):
        wait(node, [target])
    transfer(node, source, 3, target, 7)
    assert query(node, target, last_submitted=True) == [7]
    timeline.advance(1)
    assert wait(node, [target], [7]) == 0
    for arguments, error in (
        ((source, 99, target, 0), errno.EINVAL),
        ((99, 5, target, 0), errno.ENOENT),
        ((source, 5, 99, 0), errno.ENOENT),
        ((source, 5, target, 0, 1), errno.EINVAL),
    ):
        with fails(error):
            transfer(node, *arguments)
    with fails(errno.EINVAL):
        call(node, uapi.SYNCOBJ_TRANSFER, src_handle=99, pad=1)


def test_transfer_of_a_point_still_to_come(node: Node) -> None:
    source, target = create(node), create(node)
    once_waiting(node, signal_point, node, source, 4)
    transfer(node, source, 4, target, 9, FOR_SUBMIT)
    assert query(node, target) == [9]


def test_eventfds(node: Node, timeline: SwSync) -> None:
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    ready, later = create(node, signalled=True), create(node)
    watch(node, ready, 0, eventfd)
    assert count(eventfd) == 1
    watch(node, later, 3, eventfd, available=True)
    watch(node, later, 3, eventfd)
    assert count(eventfd) == 0
    attach(node, later, timeline.fence(1), 3)
    assert count(eventfd) == 1
    timeline.advance(1)
    assert count(eventfd) == 1
    signal_point(node, later, 4)
    assert count(eventfd) == 0
    with fails(errno.ENOENT):
        watch(node, 99, 0, eventfd)
    with fails(errno.EBADF):
        watch(node, ready, 0, -1)
    for wrong in (0, to_fd(node, ready)):
        with fails(errno.EINVAL):
            watch(node, ready, 0, wrong)
    node.adopt(wrong).close()
    for fields in ({"flags": 1}, {"pad": 1}):
        with fails(errno.EINVAL):
            call(node, uapi.SYNCOBJ_EVENTFD, handle=99, fd=eventfd, **fields)
    os.close(eventfd)


def test_an_eventfd_ends_with_its_object(node: Node, timeline: SwSync) -> None:
    before = open_descriptors()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    waiting, empty = create(node), create(node)
    attach(node, waiting, timeline.fence(1))
    watch(node, waiting, 0, eventfd)
    watch(node, empty, 0, eventfd)
    destroy(node, waiting)
    destroy(node, empty)
    timeline.advance(1)
    assert count(eventfd) == 0
    os.close(eventfd)
    assert open_descriptors() == before


def test_a_full_eventfd_does_not_hold_up_the_signaller(node: Node) -> None:
    eventfd = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(eventfd, 0xFFFF_FFFF_FFFF_FFFE)
    watch(node, create(node, signalled=True), 0, eventfd)
    os.close(eventfd)


def test_descriptors_share_the_object(node: Node, device: DrmDevice) -> None:
    handle = create(node)
    fd = to_fd(node, handle)
    again = from_fd(node, fd)
    assert again == 2
    with open_node(device) as other:
        theirs = from_fd(other, fd)
        signal(node, handle)
        assert wait(other, [theirs]) == 0
        assert wait(node, [again]) == 0
        destroy(node, handle)
        reset(other, theirs)
        with fails(errno.EINVAL):
            wait(node, [again])
    file = node.adopt(fd)
    assert file.poll() & (select.POLLIN | select.POLLOUT) == select.POLLIN | select.POLLOUT
    with fails(errno.ENOTTY):
        file.ioctl(0x6400, 0)
    file.close()


def test_descriptors_refuse(node: Node, timeline: SwSync) -> None:
    handle = create(node, signalled=True)
    for flags, point, which, error in (
        (4, 0, handle, errno.EINVAL),
        (0, 1, handle, errno.EINVAL),
        (ToFdFlag.TIMELINE, 1, handle, errno.EINVAL),
        (0, 0, 99, errno.EINVAL),
        (ToFdFlag.EXPORT_SYNC_FILE, 0, 99, errno.ENOENT),
        (ToFdFlag.EXPORT_SYNC_FILE, 0, create(node), errno.EINVAL),
        (ToFdFlag.EXPORT_SYNC_FILE | ToFdFlag.TIMELINE, 1, handle, errno.EINVAL),
    ):
        with fails(error):
            to_fd(node, which, flags, point)
    fence = timeline.fence(1)
    for fd in (-1, 0, fence):
        with fails(errno.EINVAL):
            from_fd(node, fd)
    for fd, target, error in ((0, 99, errno.EINVAL), (fence, 99, errno.ENOENT)):
        with fails(error):
            import_fence(node, target, fd)
    node.adopt(fence).close()
    for declaration in (uapi.SYNCOBJ_HANDLE_TO_FD, uapi.SYNCOBJ_FD_TO_HANDLE):
        with fails(errno.EINVAL):
            call(node, declaration, handle=handle, pad=1)


def test_sync_files_carry_what_was_in_the_slot(node: Node, timeline: SwSync) -> None:
    source, target = create(node), create(node)
    attach(node, source, timeline.fence(1))
    fd = export_fence(node, source)
    reset(node, source)
    import_fence(node, target, fd)
    file = node.adopt(fd)
    assert not file.poll()
    timeline.advance(1)
    assert file.poll() == select.POLLIN
    assert wait(node, [target]) == 0
    file.close()


def test_closing_the_file_releases_its_objects(device: DrmDevice) -> None:
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    before = open_descriptors()
    with open_node(device) as node:
        watch(node, create(node), 0, eventfd)
    assert open_descriptors() == before
    os.close(eventfd)


def test_unplug_ends_waits(device: DrmDevice) -> None:
    with open_node(device) as node:
        handle = create(node)
        once_waiting(node, device.unplug)
        with fails(errno.ENODEV):
            wait(node, [handle], timeout=EVER, flags=FOR_SUBMIT)


def test_without_the_features_nothing_is_supported() -> None:
    class Binary(RefAccel):
        features = RefAccel.features & ~Feature.SYNCOBJ_TIMELINE

    class Neither(RefAccel):
        features = RefAccel.features & ~(Feature.SYNCOBJ_TIMELINE | Feature.SYNCOBJ)

    for driver, number in ((Binary(), 5), (Neither(), len(uapi.IOCTLS))):
        device = DrmDevice(driver, "sync.0", minors=Minors())
        device.register()
        with open_node(device) as node:
            refused = 0
            for declaration in uapi.IOCTLS:
                argument = ctypes.create_string_buffer(64)
                try:
                    raw(node, declaration.number, argument)
                except OSError as error:
                    refused += error.errno == errno.EOPNOTSUPP
            assert refused == number
        device.unregister()
