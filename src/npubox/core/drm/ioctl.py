# SPDX-License-Identifier: Apache-2.0
"""ioctl dispatch of a DRM node, step by step as the kernel does it (accel-core.md §2.2)."""

from __future__ import annotations

import ctypes
import errno
import functools
from collections.abc import Callable
from typing import NamedTuple

from npubox.core.caller import Caller
from npubox.core.drm import core_ioctls
from npubox.core.drm.driver import DrmDriver
from npubox.core.drm.file import DrmFile
from npubox.core.pending import Pending
from npubox.uapi.drm import COMMAND_BASE, COMMAND_END, DRM, Flag
from npubox.uapi.ioctl import NUMBER_MASK, Dir, Empty, ioc_dir, ioc_nr, ioc_size, ioc_type

_NEEDS = int(Flag.AUTH | Flag.MASTER | Flag.ROOT_ONLY)


class _Plan(NamedTuple):
    """Everything that a number alone decides; sizes in bytes. `needs` are the flags that are checked."""

    copy_in: int
    copy_out: int
    size: int
    needs: int
    struct: type[ctypes.Structure]
    handler: Callable[..., int | Pending | None]
    of_driver: bool


def dispatch(file: DrmFile, request: int, address: int, caller: Caller) -> int | Pending:
    """Carry out one ioctl. `address` points to its argument in the caller's memory.

    Returns the result, or a Pending whose `finish` copies the argument out; raises OSError.
    """
    device, memory = file.device, caller.memory
    _check_plugged(file)
    plan = _plan(type(device.driver), request & NUMBER_MASK)  # type: ignore[arg-type]
    data = memory.read(address, plan.copy_in) if plan.copy_in else b""
    buffer = bytearray(data.ljust(plan.size, b"\0"))
    args = plan.struct.from_buffer(buffer)
    failure: OSError | None = None
    with device.lock:
        _check_plugged(file)
        file.pid = caller.pid
        if plan.needs:
            _check_permission(file, Flag(plan.needs), caller)
        try:
            if plan.of_driver:
                result = plan.handler(device.driver, file, args, memory)
            else:
                result = plan.handler(file, args, caller)
        except OSError as error:
            failure = error
        else:
            if isinstance(result, Pending):
                device.add_wait(result)
                result.lend = device.driver.lend
                if plan.copy_out:
                    result.on_finish(lambda _: memory.write(address, bytes(buffer[: plan.copy_out])))
                return result
    if plan.copy_out:
        memory.write(address, bytes(buffer[: plan.copy_out]))
    if failure is not None:
        raise failure
    return result or 0


def _check_plugged(file: DrmFile) -> None:
    if file.device.unplugged:
        raise OSError(errno.ENODEV, f"{file.device.name} was unplugged")


@functools.lru_cache(maxsize=1024)
def _plan(driver: type[DrmDriver], request: int) -> _Plan:
    if ioc_type(request) != DRM:
        raise OSError(errno.ENOTTY, f"ioctl {request:#010x} is not a DRM ioctl")
    nr = ioc_nr(request)
    if COMMAND_BASE <= nr < COMMAND_END:
        row = driver.ioctls.get(nr)
        if row is None:
            raise OSError(errno.EINVAL, f"driver {driver.name} has no ioctl with nr {nr:#x}")
        number, flags = row.declaration.number, row.flags
        struct, handler = row.declaration.struct, row.handler
    else:
        core = core_ioctls.TABLE.get(nr)
        if core is None:
            raise OSError(errno.EINVAL, f"the DRM core has no ioctl with nr {nr:#x}")
        number, flags = core.number, core.flags
        struct, handler = core.struct or Empty, core.handler
    common, user_size = ioc_dir(request) & ioc_dir(number), ioc_size(request)
    copy_in = user_size if common & Dir.WRITE else 0
    copy_out = user_size if common & Dir.READ else 0
    return _Plan(
        copy_in=copy_in,
        copy_out=copy_out,
        size=max(copy_in, copy_out, ioc_size(number), ctypes.sizeof(struct)),
        needs=int(flags) & _NEEDS,
        struct=struct,
        handler=handler,
        of_driver=COMMAND_BASE <= nr < COMMAND_END,
    )


def _check_permission(file: DrmFile, flags: Flag, caller: Caller) -> None:
    if flags & Flag.ROOT_ONLY and not caller.sys_admin():
        raise OSError(errno.EACCES, "this ioctl needs CAP_SYS_ADMIN")
    if flags & Flag.AUTH and not file.authenticated:
        raise OSError(errno.EACCES, "this ioctl needs a file that was opened with CAP_SYS_ADMIN")
    if flags & Flag.MASTER:
        raise OSError(errno.EACCES, "this ioctl needs a DRM master, which an accel node never has")
