# SPDX-License-Identifier: Apache-2.0
"""sync_file: a fence as a file, which polls readable once it has signalled (accel-core.md §2.9)."""

from __future__ import annotations

import errno
import os
import select

from npubox.core.caller import Caller, Descriptors
from npubox.core.drm.fence import Fence
from npubox.core.drm.fence_container import merge, unwrap
from npubox.core.file import OpenFile, SignalStandIn
from npubox.core.pending import Completion, Pending
from npubox.core.struct_ioctls import Ioctls
from npubox.uapi import sync_file as uapi


class SyncFile(OpenFile):
    """`name` is what MERGE was given; without one the fence names the file."""

    link = "anon_inode:sync_file"

    def __init__(self, fence: Fence, name: str = "") -> None:
        self.fence = fence
        self.stand_in = SignalStandIn(fence)
        self._name = name

    @property
    def name(self) -> str:
        fence = self.fence
        return self._name or f"{fence.driver_name}-{fence.timeline_name}{fence.context}-{fence.seqno}"

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        return _IOCTLS.call(self, request, address, caller)

    def poll(self) -> int:
        return select.POLLIN if self.fence.signalled else 0

    def poll_changes(self) -> Completion | None:
        return None if self.fence.signalled else self.fence

    def merge(self, args: uapi.MergeData, caller: Caller) -> None:
        if args.flags or args.pad:
            raise OSError(errno.EINVAL, "MERGE with flags or pad set")
        other = fence_of(caller.files, args.fd2, errno.ENOENT)
        merged = SyncFile(merge([self.fence, other]), args.name[: uapi.NAME_LENGTH - 1].decode("latin-1"))
        args.fence = caller.files.install(merged, os.O_CLOEXEC | os.O_RDWR)

    def info(self, args: uapi.FileInfo, caller: Caller) -> None:
        if args.flags or args.pad:
            raise OSError(errno.EINVAL, "FILE_INFO with flags or pad set")
        fences = [_info(fence) for fence in unwrap(self.fence)]
        if not args.num_fences:
            args.status = self.fence.status
        elif args.num_fences < len(fences):
            raise OSError(errno.EINVAL, f"{len(fences)} fences do not fit in {args.num_fences}")
        else:
            args.status = next((fence.status for fence in fences if fence.status <= 0), 1)
            caller.memory.write(args.sync_fence_info, b"".join(map(bytes, fences)))
        args.name = _cut(self.name)
        args.num_fences = len(fences)

    def set_deadline(self, args: uapi.SetDeadline, caller: Caller) -> None:
        if args.pad:
            raise OSError(errno.EINVAL, "SET_DEADLINE with pad set")
        self.fence.set_deadline(args.deadline_ns)


_IOCTLS = Ioctls(
    (uapi.MERGE, SyncFile.merge), (uapi.FILE_INFO, SyncFile.info), (uapi.SET_DEADLINE, SyncFile.set_deadline)
)


def fence_of(files: Descriptors, fd: int, error: int = errno.EINVAL) -> Fence:
    """The fence of a sync_file descriptor; OSError `error` where it is no such thing."""
    try:
        file = files.lookup(fd)
    except OSError:
        file = None
    if not isinstance(file, SyncFile):
        raise OSError(error, f"descriptor {fd} is no sync_file")
    return file.fence


def _info(fence: Fence) -> uapi.FenceInfo:
    return uapi.FenceInfo(
        obj_name=_cut(fence.timeline_name),
        driver_name=_cut(fence.driver_name),
        status=fence.status,
        timestamp_ns=fence.timestamp_ns or 0,
    )


def _cut(name: str) -> bytes:
    return name.encode("latin-1", "replace")[: uapi.NAME_LENGTH - 1]
