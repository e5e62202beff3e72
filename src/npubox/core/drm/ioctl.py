# SPDX-License-Identifier: Apache-2.0
"""ioctl dispatch of a DRM node, step by step as the kernel does it (accel-core.md §2.2)."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from npubox.core.drm import core_ioctls
from npubox.core.drm.file import Caller, DrmFile
from npubox.core.pending import Pending
from npubox.uapi.drm import COMMAND_BASE, COMMAND_END, DRM, Flag
from npubox.uapi.ioctl import NUMBER_MASK, Dir, Empty, ioc_dir, ioc_nr, ioc_size, ioc_type


@dataclass(frozen=True)
class _Entry:
    number: int
    flags: Flag
    struct: type[ctypes.Structure]
    call: Callable[[Any], int | Pending | None]


def dispatch(file: DrmFile, request: int, address: int, caller: Caller) -> int | Pending:
    """Carry out one ioctl. `address` points to its argument in the caller's memory.

    Returns the result, or a Pending whose `finish` copies the argument out; raises OSError.
    """
    request &= NUMBER_MASK
    _check_plugged(file)
    if ioc_type(request) != DRM:
        raise OSError(errno.ENOTTY, f"ioctl {request:#010x} is not a DRM ioctl")
    entry = _find(file, ioc_nr(request), caller)
    common = ioc_dir(request) & ioc_dir(entry.number)
    user_size = ioc_size(request)
    copy_in = user_size if common & Dir.WRITE else 0
    copy_out = user_size if common & Dir.READ else 0
    size = max(copy_in, copy_out, ioc_size(entry.number), ctypes.sizeof(entry.struct))
    buffer = bytearray(size)
    if copy_in:
        buffer[:copy_in] = caller.memory.read(address, copy_in)
    with file.device.lock:
        _check_plugged(file)
        file.pid = caller.pid
        _check_permission(file, entry.flags, caller)

        def finish(error: OSError | None) -> None:
            if copy_out:
                caller.memory.write(address, bytes(buffer[:copy_out]))

        try:
            result = entry.call(entry.struct.from_buffer(buffer))
        except OSError as error:
            failure: OSError | None = error
        else:
            failure = None
            if isinstance(result, Pending):
                result.on_finish(finish)
                return result
    finish(failure)
    if failure is not None:
        raise failure
    return result or 0


def _check_plugged(file: DrmFile) -> None:
    if file.device.unplugged:
        raise OSError(errno.ENODEV, f"{file.device.name} was unplugged")


def _find(file: DrmFile, nr: int, caller: Caller) -> _Entry:
    if COMMAND_BASE <= nr < COMMAND_END:
        driver = file.device.driver
        row = driver.ioctls.get(nr)
        if row is None:
            raise OSError(errno.EINVAL, f"driver {driver.name} has no ioctl with nr {nr:#x}")
        handler = row.handler
        return _Entry(
            row.declaration.number,
            row.flags,
            row.declaration.struct,
            lambda args: handler(driver, file, args, caller.memory),
        )
    core = core_ioctls.TABLE.get(nr)
    if core is None:
        raise OSError(errno.EINVAL, f"the DRM core has no ioctl with nr {nr:#x}")
    return _Entry(
        core.number, core.flags, core.struct or Empty, lambda args: core.handler(file, args, caller)
    )


def _check_permission(file: DrmFile, flags: Flag, caller: Caller) -> None:
    if flags & Flag.ROOT_ONLY and not caller.sys_admin():
        raise OSError(errno.EACCES, "this ioctl needs CAP_SYS_ADMIN")
    if flags & Flag.AUTH and not file.authenticated:
        raise OSError(errno.EACCES, "this ioctl needs a file that was opened with CAP_SYS_ADMIN")
    if flags & Flag.MASTER:
        raise OSError(errno.EACCES, "this ioctl needs a DRM master, which an accel node never has")
