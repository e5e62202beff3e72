# SPDX-License-Identifier: Apache-2.0
"""The ioctls on sync objects, with each check in the kernel's order (accel-core.md §2.8)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from npubox.core.caller import Caller
from npubox.core.drm.driver import Feature
from npubox.core.drm.fence import signalled_fence
from npubox.core.drm.file import DrmFile
from npubox.core.drm.syncobj import Syncobj
from npubox.core.drm.syncobj_file import SyncobjFile
from npubox.core.drm.syncobj_wait import EventfdWatch, PointsWait
from npubox.core.pending import Pending
from npubox.core.sync_file import SyncFile, fence_of
from npubox.uapi import drm_syncobj as uapi
from npubox.uapi.drm_syncobj import CreateFlag, QueryFlag, ToFdFlag, ToHandleFlag, WaitFlag
from npubox.uapi.ioctl import Ioctl

LARGEST_ARRAY = 4 << 20
"""Bytes of an array of handles or points; the kernel allocates no more for one."""
SUBMIT_TIMEOUT = 5_000_000_000
EVENTFD_LINK = "anon_inode:[eventfd]"

Handler = Callable[[DrmFile, Any, Caller], Pending | None]


def _create(file: DrmFile, args: uapi.SyncobjCreate, caller: Caller) -> None:
    _check_flags(args.flags, CreateFlag.SIGNALED)
    signalled = bool(args.flags & CreateFlag.SIGNALED)
    args.handle = file.syncobjs.allocate(Syncobj(signalled_fence() if signalled else None))


def _destroy(file: DrmFile, args: uapi.SyncobjDestroy, caller: Caller) -> None:
    _check_pad(args)
    syncobj = file.syncobj(args.handle, errno.EINVAL)
    file.syncobjs.remove(args.handle)
    syncobj.put()


def _handle_to_fd(file: DrmFile, args: uapi.SyncobjHandle, caller: Caller) -> None:
    _check_pad(args)
    _check_flags(args.flags, ToFdFlag.EXPORT_SYNC_FILE | ToFdFlag.TIMELINE)
    if args.flags & ToFdFlag.EXPORT_SYNC_FILE:
        point = args.point if args.flags & ToFdFlag.TIMELINE else 0
        fence = file.syncobj(args.handle).find(point)
        args.fd = caller.files.install(SyncFile(fence), os.O_CLOEXEC | os.O_RDWR)
        return
    _check_no_point(args)
    exported = SyncobjFile(file.syncobj(args.handle, errno.EINVAL))
    args.fd = caller.files.install(exported, os.O_CLOEXEC | os.O_RDONLY)


def _fd_to_handle(file: DrmFile, args: uapi.SyncobjHandle, caller: Caller) -> None:
    _check_pad(args)
    _check_flags(args.flags, ToHandleFlag.IMPORT_SYNC_FILE | ToHandleFlag.TIMELINE)
    if args.flags & ToHandleFlag.IMPORT_SYNC_FILE:
        point = args.point if args.flags & ToHandleFlag.TIMELINE else 0
        _import_sync_file(file, args, point, caller)
        return
    _check_no_point(args)
    try:
        found = caller.files.lookup(args.fd)
    except OSError as error:
        raise OSError(errno.EINVAL, f"descriptor {args.fd} is not open") from error
    if not isinstance(found, SyncobjFile):
        raise OSError(errno.EINVAL, f"descriptor {args.fd} is no sync object")
    found.syncobj.get()
    args.handle = file.syncobjs.allocate(found.syncobj)


def _import_sync_file(file: DrmFile, args: uapi.SyncobjHandle, point: int, caller: Caller) -> None:
    fence = fence_of(caller.files, args.fd)
    file.syncobj(args.handle).take_over(point, fence)


def _wait(file: DrmFile, args: uapi.SyncobjWait, caller: Caller) -> Pending | None:
    _check_flags(args.flags, WaitFlag.ALL | WaitFlag.FOR_SUBMIT | WaitFlag.DEADLINE)
    if not args.count_handles:
        return None
    syncobjs = _lookup_all(file, args, caller)
    return _wait_for([(syncobj, 0) for syncobj in syncobjs], args)


def _timeline_wait(file: DrmFile, args: uapi.SyncobjTimelineWait, caller: Caller) -> Pending | None:
    _check_flags(args.flags, WaitFlag.ALL | WaitFlag.FOR_SUBMIT | WaitFlag.AVAILABLE | WaitFlag.DEADLINE)
    if not args.count_handles:
        return None
    syncobjs = _lookup_all(file, args, caller)
    return _wait_for(list(zip(syncobjs, _points(args, caller), strict=True)), args)


def _wait_for(
    points: Sequence[tuple[Syncobj, int]], args: uapi.SyncobjWait | uapi.SyncobjTimelineWait
) -> Pending | None:
    flags = WaitFlag(args.flags)
    available = WaitFlag.AVAILABLE in flags
    wait = PointsWait(
        points,
        need_all=WaitFlag.ALL in flags,
        available=available,
        patient=available or WaitFlag.FOR_SUBMIT in flags,
    )
    if wait.over:
        args.first_signaled = wait.first
        return None
    if WaitFlag.DEADLINE in flags:
        wait.set_deadline(args.deadline_nsec)
    if args.timeout_nsec <= time.monotonic_ns():
        raise OSError(errno.ETIME, "not signalled, and the time is over")

    def finish(error: OSError | None) -> None:
        if error is None:
            args.first_signaled = wait.first

    wait.start()
    pending = Pending([wait], args.timeout_nsec)
    pending.on_finish(finish)
    return pending


def _reset(file: DrmFile, args: uapi.SyncobjArray, caller: Caller) -> None:
    _check_pad(args)
    for syncobj in _lookup_some(file, args, caller):
        syncobj.replace(None)


def _signal(file: DrmFile, args: uapi.SyncobjArray, caller: Caller) -> None:
    _check_pad(args)
    for syncobj in _lookup_some(file, args, caller):
        syncobj.replace(signalled_fence())


def _timeline_signal(file: DrmFile, args: uapi.SyncobjTimelineArray, caller: Caller) -> None:
    _check_flags(args.flags, 0)
    syncobjs = _lookup_some(file, args, caller)
    for syncobj, point in zip(syncobjs, _points(args, caller), strict=True):
        syncobj.add_point(point, signalled_fence())


def _query(file: DrmFile, args: uapi.SyncobjTimelineArray, caller: Caller) -> None:
    _check_flags(args.flags, QueryFlag.LAST_SUBMITTED)
    syncobjs = _lookup_some(file, args, caller)
    values = [syncobj.query(bool(args.flags & QueryFlag.LAST_SUBMITTED)) for syncobj in syncobjs]
    caller.memory.write(args.points, struct.pack(f"<{len(values)}Q", *values))


def _transfer(file: DrmFile, args: uapi.SyncobjTransfer, caller: Caller) -> Pending | None:
    _check_pad(args)
    source, target = file.syncobj(args.src_handle), file.syncobj(args.dst_handle)
    _check_flags(args.flags, WaitFlag.FOR_SUBMIT)
    submitted = PointsWait([(source, args.src_point)], available=True, patient=bool(args.flags))
    if submitted.over:
        target.take_over(args.dst_point, submitted.found(0))
        return None

    def finish(error: OSError | None) -> None:
        if error is None:
            target.take_over(args.dst_point, submitted.found(0))

    submitted.start()
    pending = Pending([submitted], time.monotonic_ns() + SUBMIT_TIMEOUT)
    pending.on_finish(finish)
    return pending


def _eventfd(file: DrmFile, args: uapi.SyncobjEventfd, caller: Caller) -> None:
    _check_flags(args.flags, WaitFlag.AVAILABLE)
    _check_pad(args)
    syncobj = file.syncobj(args.handle)
    if caller.files.lookup(args.fd) is not None:
        raise OSError(errno.EINVAL, f"descriptor {args.fd} is no eventfd")
    fd = caller.files.duplicate(args.fd)
    if os.readlink(f"/proc/self/fd/{fd}") != EVENTFD_LINK:
        os.close(fd)
        raise OSError(errno.EINVAL, f"descriptor {args.fd} is no eventfd")
    EventfdWatch(syncobj, args.point, fd, bool(args.flags & WaitFlag.AVAILABLE))


def _lookup_some(
    file: DrmFile, args: uapi.SyncobjArray | uapi.SyncobjTimelineArray, caller: Caller
) -> list[Syncobj]:
    if not args.count_handles:
        raise OSError(errno.EINVAL, "an array of no handles")
    return _lookup_all(file, args, caller)


def _lookup_all(file: DrmFile, args: Any, caller: Caller) -> list[Syncobj]:
    handles = _read_array(args.handles, args.count_handles, "I", caller)
    return [file.syncobj(handle) for handle in handles]


def _points(args: uapi.SyncobjTimelineArray | uapi.SyncobjTimelineWait, caller: Caller) -> Sequence[int]:
    if not args.points:
        return [0] * args.count_handles
    return _read_array(args.points, args.count_handles, "Q", caller)


def _read_array(address: int, count: int, letter: str, caller: Caller) -> Sequence[int]:
    layout = f"<{count}{letter}"
    size = struct.calcsize(layout)
    if size > LARGEST_ARRAY:
        raise OSError(errno.ENOMEM, f"an array of {count} elements is too long")
    return struct.unpack(layout, caller.memory.read(address, size))


def _check_flags(flags: int, allowed: int) -> None:
    # ~ of an IntFlag keeps to its members.
    if flags & ~int(allowed):
        raise OSError(errno.EINVAL, f"flags {flags:#x}: only {int(allowed):#x} are known")


def _check_pad(args: Any) -> None:
    if args.pad:
        raise OSError(errno.EINVAL, "pad is not zero")


def _check_no_point(args: uapi.SyncobjHandle) -> None:
    if args.point:
        raise OSError(errno.EINVAL, "a sync object itself has no point")


def _needs(feature: Feature, handler: Handler) -> Handler:
    def checked(file: DrmFile, args: ctypes.Structure, caller: Caller) -> Pending | None:
        driver = file.device.driver
        if feature not in driver.features:
            raise OSError(errno.EOPNOTSUPP, f"driver {driver.name} has no {feature.name}")
        return handler(file, args, caller)

    return checked


def _rows(feature: Feature, *rows: tuple[Ioctl[Any], Handler]) -> tuple[tuple[Ioctl[Any], Handler], ...]:
    return tuple((declaration, _needs(feature, handler)) for declaration, handler in rows)


HANDLERS: tuple[tuple[Ioctl[Any], Handler], ...] = (
    *_rows(
        Feature.SYNCOBJ,
        (uapi.SYNCOBJ_CREATE, _create),
        (uapi.SYNCOBJ_DESTROY, _destroy),
        (uapi.SYNCOBJ_HANDLE_TO_FD, _handle_to_fd),
        (uapi.SYNCOBJ_FD_TO_HANDLE, _fd_to_handle),
        (uapi.SYNCOBJ_WAIT, _wait),
        (uapi.SYNCOBJ_RESET, _reset),
        (uapi.SYNCOBJ_SIGNAL, _signal),
    ),
    *_rows(
        Feature.SYNCOBJ_TIMELINE,
        (uapi.SYNCOBJ_TIMELINE_WAIT, _timeline_wait),
        (uapi.SYNCOBJ_TRANSFER, _transfer),
        (uapi.SYNCOBJ_EVENTFD, _eventfd),
        (uapi.SYNCOBJ_QUERY, _query),
        (uapi.SYNCOBJ_TIMELINE_SIGNAL, _timeline_signal),
    ),
)
