# SPDX-License-Identifier: Apache-2.0
"""Short ways to call the ioctls on sync objects, sync files and timelines."""

from __future__ import annotations

import ctypes
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from ctypes import addressof

from npubox.core.node import Node
from npubox.core.sw_sync import SwSyncFile
from npubox.uapi import drm_syncobj as uapi
from npubox.uapi import sw_sync, sync_file
from npubox.uapi.drm_syncobj import CreateFlag, QueryFlag, ToFdFlag, WaitFlag
from tests.core.refaccel import call

MS = 1_000_000
SECOND = 1000 * MS
EVER = (1 << 63) - 1


def once_waiting(node: Node, action: Callable[..., object], *arguments: object) -> threading.Thread:
    """Have `action` done on another thread as soon as a call blocks on the node's device."""

    def run() -> None:
        while not node.device._waits:
            time.sleep(0.001)
        action(*arguments)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def u32s(values: Sequence[int]) -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * len(values))(*values)


def u64s(values: Sequence[int]) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * len(values))(*values)


def create(node: Node, *, signalled: bool = False) -> int:
    flags = CreateFlag.SIGNALED if signalled else 0
    return int(call(node, uapi.SYNCOBJ_CREATE, flags=flags).handle)


def destroy(node: Node, handle: int) -> None:
    call(node, uapi.SYNCOBJ_DESTROY, handle=handle)


def reset(node: Node, *handles: int) -> None:
    array = u32s(handles)
    call(node, uapi.SYNCOBJ_RESET, handles=addressof(array), count_handles=len(handles))


def signal(node: Node, *handles: int) -> None:
    array = u32s(handles)
    call(node, uapi.SYNCOBJ_SIGNAL, handles=addressof(array), count_handles=len(handles))


def signal_point(node: Node, handle: int, point: int) -> None:
    handles, points = u32s([handle]), u64s([point])
    call(
        node,
        uapi.SYNCOBJ_TIMELINE_SIGNAL,
        handles=addressof(handles),
        points=addressof(points),
        count_handles=1,
    )


def query(node: Node, *handles: int, last_submitted: bool = False) -> list[int]:
    array, points = u32s(handles), u64s([77] * len(handles))
    flags = QueryFlag.LAST_SUBMITTED if last_submitted else 0
    call(
        node,
        uapi.SYNCOBJ_QUERY,
        handles=addressof(array),
        points=addressof(points),
        count_handles=len(handles),
        flags=flags,
    )
    return list(points)


def wait(
    node: Node,
    handles: Sequence[int],
    points: Sequence[int] | None = None,
    *,
    timeout: int = 0,
    flags: int = 0,
    deadline: int = 0,
) -> int:
    """`timeout` is from now, in ns; 0 and less poll. The index that the ABI reports; OSError."""
    array = u32s(handles)
    values = u64s(points or [])
    until = min(time.monotonic_ns() + timeout, EVER) if timeout > 0 else timeout
    fields = {
        "handles": addressof(array),
        "timeout_nsec": until,
        "count_handles": len(handles),
        "flags": flags,
        "first_signaled": 0x55,
        "deadline_nsec": deadline,
    }
    if points is None:
        return int(call(node, uapi.SYNCOBJ_WAIT, **fields).first_signaled)
    timeline = call(node, uapi.SYNCOBJ_TIMELINE_WAIT, points=addressof(values), **fields)
    return int(timeline.first_signaled)


def transfer(node: Node, source: int, source_point: int, target: int, point: int, flags: int = 0) -> None:
    call(
        node,
        uapi.SYNCOBJ_TRANSFER,
        src_handle=source,
        dst_handle=target,
        src_point=source_point,
        dst_point=point,
        flags=flags,
    )


def to_fd(node: Node, handle: int, flags: int = 0, point: int = 0) -> int:
    return int(call(node, uapi.SYNCOBJ_HANDLE_TO_FD, handle=handle, flags=flags, fd=-1, point=point).fd)


def from_fd(node: Node, fd: int, flags: int = 0, handle: int = 0, point: int = 0) -> int:
    fields = {"handle": handle, "flags": flags, "fd": fd, "point": point}
    return int(call(node, uapi.SYNCOBJ_FD_TO_HANDLE, **fields).handle)


def export_fence(node: Node, handle: int, point: int | None = None) -> int:
    """The sync_file of what is in the slot, or of a point."""
    flags = ToFdFlag.EXPORT_SYNC_FILE | (0 if point is None else ToFdFlag.TIMELINE)
    return to_fd(node, handle, flags, point or 0)


def import_fence(node: Node, handle: int, fd: int, point: int = 0) -> None:
    from_fd(node, fd, uapi.ToHandleFlag.IMPORT_SYNC_FILE | uapi.ToHandleFlag.TIMELINE, handle, point)


def attach(node: Node, handle: int, fd: int, point: int = 0) -> None:
    """Put the fence of a sync_file into a sync object and close the file."""
    import_fence(node, handle, fd, point)
    node.adopt(fd).close()


def watch(node: Node, handle: int, point: int, fd: int, *, available: bool = False) -> None:
    flags = WaitFlag.AVAILABLE if available else 0
    call(node, uapi.SYNCOBJ_EVENTFD, handle=handle, flags=flags, point=point, fd=fd)


def count(eventfd: int) -> int:
    """What is in a non-blocking eventfd."""
    try:
        return os.eventfd_read(eventfd)
    except BlockingIOError:
        return 0


class SwSync(Node):
    """An open /dev/sw_sync."""

    def __init__(self, name: str = "test") -> None:
        super().__init__(SwSyncFile(name))

    def __enter__(self) -> SwSync:
        return self

    def fence(self, value: int) -> int:
        """A sync_file that signals at `value`."""
        return int(call(self, sw_sync.CREATE_FENCE, value=value).fence)

    def advance(self, increment: int) -> None:
        call(self, sw_sync.INC, value=increment)


def info(file: Node, room: int = 8) -> tuple[sync_file.FileInfo, list[sync_file.FenceInfo]]:
    fences = (sync_file.FenceInfo * max(room, 1))()
    about = call(file, sync_file.FILE_INFO, num_fences=room, sync_fence_info=addressof(fences))
    return about, list(fences)[: about.num_fences if room else 0]


def merge(node: Node, fd: int, other: int, name: bytes = b"merged") -> int:
    file = node.adopt(fd)
    return int(call(file, sync_file.MERGE, name=name, fd2=other).fence)


def readable(fd: int, timeout: float = 0) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
