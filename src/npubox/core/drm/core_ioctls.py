# SPDX-License-Identifier: Apache-2.0
"""The DRM core's own ioctls as an accel node answers them (accel-core.md §2.3 to §2.8)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from npubox.core.caller import Caller
from npubox.core.dma_buf import DmaBuf
from npubox.core.drm import syncobj_ioctls
from npubox.core.drm.driver import Feature
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import create_handle, delete_handle, lookup
from npubox.core.drm.prime import export_handle, import_buffer
from npubox.core.pending import Pending
from npubox.uapi import drm
from npubox.uapi.drm import Cap, Flag
from npubox.uapi.drm_numbers import MODESET_MASTER_NUMBERS, MODESET_NUMBERS, NUMBERS
from npubox.uapi.ioctl import Ioctl, ioc_nr

OVERFLOW_UID = 65534
Handler = Callable[[DrmFile, Any, Caller], Pending | None]


@dataclass(frozen=True)
class CoreIoctl:
    """One row of the core's table; `struct` None where no handler looks at the argument."""

    number: int
    flags: Flag
    struct: type[ctypes.Structure] | None
    handler: Handler


def _version(file: DrmFile, args: drm.Version, caller: Caller) -> None:
    driver = file.device.driver
    args.version_major, args.version_minor, args.version_patchlevel = driver.version
    for field, text in (("name", driver.name), ("date", driver.date), ("desc", driver.desc)):
        data = text.encode()
        capacity, pointer = getattr(args, f"{field}_len"), getattr(args, field)
        setattr(args, f"{field}_len", len(data))
        if capacity and pointer:
            caller.memory.write(pointer, data[:capacity])


def _get_unique(file: DrmFile, args: drm.Unique, caller: Caller) -> None:
    # The kernel crashes here on an accel node; a node without a unique name answers like this.
    args.unique_len = 0


def _get_magic(file: DrmFile, args: drm.Auth, caller: Caller) -> None:
    raise OSError(errno.EACCES, "GET_MAGIC: an accel node has no master to authenticate with")


def _get_client(file: DrmFile, args: drm.Client, caller: Caller) -> None:
    if args.idx != 0:
        raise OSError(errno.EINVAL, f"GET_CLIENT knows client 0, the caller, but not {args.idx}")
    args.auth = int(file.authenticated)
    args.pid = file.pid
    args.uid = OVERFLOW_UID
    args.magic = 0
    args.iocs = 0


def _nothing(file: DrmFile, args: object, caller: Caller) -> None:
    """GET_STATS has only zeros to give and FINISH nothing to do since DRM lost its own DMA."""


def _gem_close(file: DrmFile, args: drm.GemClose, caller: Caller) -> None:
    _need_gem(file)
    delete_handle(file, args.handle)


def _gem_flink(file: DrmFile, args: drm.GemFlink, caller: Caller) -> None:
    _need_gem(file)
    item = lookup(file, args.handle)
    if not item.flink_name:
        item.flink_name = file.device.flink_names.allocate(item)
    args.name = item.flink_name


def _gem_open(file: DrmFile, args: drm.GemOpen, caller: Caller) -> None:
    _need_gem(file)
    item = file.device.flink_names.get(args.name)
    if item is None:
        raise OSError(errno.ENOENT, f"no buffer object has the name {args.name}")
    args.handle = create_handle(file, item)
    args.size = item.size


def _prime_handle_to_fd(file: DrmFile, args: drm.PrimeHandle, caller: Caller) -> None:
    if args.flags & ~(os.O_CLOEXEC | os.O_RDWR):
        raise OSError(errno.EINVAL, f"PRIME_HANDLE_TO_FD knows CLOEXEC and RDWR, not {args.flags:#x}")
    buffer = export_handle(file, args.handle, args.flags & os.O_ACCMODE)
    args.fd = caller.files.install(buffer, buffer.access | args.flags & os.O_CLOEXEC)


def _prime_fd_to_handle(file: DrmFile, args: drm.PrimeHandle, caller: Caller) -> None:
    buffer = caller.files.lookup(args.fd)
    if not isinstance(buffer, DmaBuf):
        raise OSError(errno.EINVAL, f"descriptor {args.fd} is no dma-buf")
    args.handle = import_buffer(file, buffer)


def _get_cap(file: DrmFile, args: drm.GetCap, caller: Caller) -> None:
    args.value = 0
    match args.capability:
        case Cap.PRIME:
            args.value = drm.PRIME_CAP_IMPORT | drm.PRIME_CAP_EXPORT
        case Cap.TIMESTAMP_MONOTONIC:
            args.value = 1
        case Cap.SYNCOBJ:
            args.value = int(Feature.SYNCOBJ in file.device.driver.features)
        case Cap.SYNCOBJ_TIMELINE:
            args.value = int(Feature.SYNCOBJ_TIMELINE in file.device.driver.features)
        case unknown:
            raise OSError(errno.EOPNOTSUPP, f"GET_CAP: no capability {unknown:#x} without MODESET")


def _set_client_name(file: DrmFile, args: drm.SetClientName, caller: Caller) -> None:
    if args.name_len > drm.CLIENT_NAME_MAX_LEN:
        raise OSError(errno.EINVAL, f"a client name has at most {drm.CLIENT_NAME_MAX_LEN} bytes")
    name = caller.memory.read(args.name, args.name_len) if args.name_len else b""
    if not all(0x21 <= byte <= 0x7E for byte in name):
        raise OSError(errno.EINVAL, "a client name is printable ASCII without spaces")
    file.name = name.decode("ascii") or None


def _master(file: DrmFile, args: object, caller: Caller) -> None:
    if not caller.sys_admin():
        raise OSError(errno.EACCES, "becoming master needs CAP_SYS_ADMIN")
    raise OSError(errno.EINVAL, "an accel node has no master")


def _need_gem(file: DrmFile) -> None:
    if Feature.GEM not in file.device.driver.features:
        raise OSError(errno.EOPNOTSUPP, f"driver {file.device.driver.name} has no GEM")


def _refuse(error: int, reason: str) -> Handler:
    def handler(file: DrmFile, args: object, caller: Caller) -> None:
        raise OSError(error, reason)

    return handler


_HANDLERS: tuple[tuple[Ioctl[Any], Handler], ...] = (
    (drm.VERSION, _version),
    (drm.GET_UNIQUE, _get_unique),
    (drm.GET_MAGIC, _get_magic),
    (drm.GET_CLIENT, _get_client),
    (drm.GET_STATS, _nothing),
    (drm.GEM_CLOSE, _gem_close),
    (drm.GEM_FLINK, _gem_flink),
    (drm.GEM_OPEN, _gem_open),
    (drm.GET_CAP, _get_cap),
    (drm.SET_CLIENT_CAP, _refuse(errno.EOPNOTSUPP, "SET_CLIENT_CAP needs MODESET")),
    (drm.SET_MASTER, _master),
    (drm.DROP_MASTER, _master),
    (drm.FINISH, _nothing),
    (drm.PRIME_HANDLE_TO_FD, _prime_handle_to_fd),
    (drm.PRIME_FD_TO_HANDLE, _prime_fd_to_handle),
    (drm.SET_CLIENT_NAME, _set_client_name),
    *syncobj_ioctls.HANDLERS,
)


def _without_handler(name: str) -> Handler:
    if name.endswith("_DUMB"):
        return _refuse(errno.ENOSYS, f"{name}: no accel driver has dumb buffers")
    return _refuse(errno.EINVAL, f"{name} does nothing on an accel node")


def _build() -> dict[int, CoreIoctl]:
    rows = [
        CoreIoctl(
            declaration.number, NUMBERS[declaration.name.removeprefix("DRM_IOCTL_")][1], declaration.struct, h
        )
        for declaration, h in _HANDLERS
    ]
    known = {row.number for row in rows}
    rows += [
        CoreIoctl(number, flags, None, _without_handler(name))
        for name, (number, flags) in NUMBERS.items()
        if number not in known
    ]
    rows += [
        CoreIoctl(number, Flag.NONE, None, _refuse(errno.EOPNOTSUPP, f"{name} needs MODESET"))
        for name, number in MODESET_NUMBERS.items()
    ]
    rows += [
        CoreIoctl(number, Flag.MASTER, None, _refuse(errno.EOPNOTSUPP, f"{name} needs MODESET"))
        for name, number in MODESET_MASTER_NUMBERS.items()
    ]
    return {ioc_nr(row.number): row for row in rows}


TABLE = _build()
"""By nr, which is all the kernel looks at."""
