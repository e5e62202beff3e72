# SPDX-License-Identifier: Apache-2.0
"""What a driver declares: its name, version, features, ioctls and hooks, like the kernel's drm_driver.

    class Example(DrmDriver):
        name, desc, version = "example", "An example", (1, 0, 0)
        features = Feature.COMPUTE_ACCEL | Feature.GEM

        @ioctl(uapi.BO_CREATE)
        def bo_create(self, file: DrmFile, args: uapi.BoCreate, memory: UserMemory) -> None: ...

A handler runs under the device's lock. It changes `args`, which is copied back whatever happens, and
returns None or 0, or a `Pending` to wait without the lock, or raises OSError. Pointers inside `args`
are reached through `memory` alone.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from npubox.core.pending import Pending
from npubox.core.usermem import UserMemory
from npubox.uapi.drm import COMMAND_BASE, COMMAND_END, Flag
from npubox.uapi.ioctl import Ioctl, ioc_nr

if TYPE_CHECKING:
    from npubox.core.dma_buf import DmaBuf
    from npubox.core.drm.device import DrmDevice
    from npubox.core.drm.file import DrmFile
    from npubox.core.drm.gem import GemObject

StructT = TypeVar("StructT", bound=ctypes.Structure)
DriverT = TypeVar("DriverT", bound="DrmDriver")
Result = int | None | Pending
Handler = Callable[[DriverT, "DrmFile", StructT, UserMemory], Result]


class Feature(IntFlag):
    """Feature bits of a driver (accel-core.md §1.1)."""

    GEM = 1 << 0
    MODESET = 1 << 1
    RENDER = 1 << 3
    ATOMIC = 1 << 4
    SYNCOBJ = 1 << 5
    SYNCOBJ_TIMELINE = 1 << 6
    COMPUTE_ACCEL = 1 << 7
    GEM_GPUVA = 1 << 8
    CURSOR_HOTSPOT = 1 << 9


@dataclass(frozen=True)
class DriverIoctl:
    """One row of a driver's table."""

    declaration: Ioctl[Any]
    flags: Flag
    handler: Callable[..., Result]


def ioctl(
    declaration: Ioctl[StructT], flags: Flag = Flag.NONE
) -> Callable[[Handler[DriverT, StructT]], Handler[DriverT, StructT]]:
    """Bind a method of a DrmDriver to an ioctl of its header."""
    nr = ioc_nr(declaration.number)
    if not COMMAND_BASE <= nr < COMMAND_END:
        raise ValueError(f"{declaration.name} has nr {nr:#x}, which is not a driver's")

    def bind(handler: Handler[DriverT, StructT]) -> Handler[DriverT, StructT]:
        handler.__drm_ioctl__ = DriverIoctl(declaration, flags, handler)  # type: ignore[attr-defined]
        return handler

    return bind


class DrmDriver:
    """One driver bound to one device; `device` is set when the device is made."""

    name: ClassVar[str]
    desc: ClassVar[str]
    version: ClassVar[tuple[int, int, int]]
    date: ClassVar[str] = "0"
    features: ClassVar[Feature]
    shows_fdinfo: ClassVar[bool] = False
    ioctls: ClassVar[Mapping[int, DriverIoctl]] = {}
    device: DrmDevice

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        table = dict(cls.ioctls)
        for member in vars(cls).values():
            row = getattr(member, "__drm_ioctl__", None)
            if isinstance(row, DriverIoctl):
                table[ioc_nr(row.declaration.number)] = row
        cls.ioctls = table

    def open(self, file: DrmFile) -> None:
        """A file was opened; OSError refuses it."""

    def postclose(self, file: DrmFile) -> None:
        """A file is gone, its handles are closed."""

    def import_buffer(self, buffer: DmaBuf) -> GemObject:
        """An object for a dma-buf of another device; here OSError EINVAL, as without the kernel's hook."""
        raise OSError(errno.EINVAL, f"driver {self.name} takes no buffers of other devices")

    def show_fdinfo(self, file: DrmFile) -> list[tuple[str, str]]:
        """Where `shows_fdinfo`: the driver's lines on a file, as (key, value), made of what
        `npubox.core.drm.fdinfo` has. Under the lock."""
        return []

    def unplug(self) -> None:
        """The device was pulled out: end all work with ENODEV. Under the lock."""

    def join(self) -> None:
        """After `unplug`, without the lock: return when nothing of the driver's touches the port any more."""

    def lend(self, deadline: int | None) -> bool:
        """A thread waits for the device in a call of its own, without the lock; see `Port.lend`."""
        return False

    def release(self) -> None:
        """The last reference to the device is gone."""


def check_features(driver: DrmDriver) -> None:
    """OSError EINVAL for features that no accel device can have."""
    features = driver.features
    if Feature.COMPUTE_ACCEL not in features:
        raise OSError(errno.EINVAL, f"driver {driver.name} lacks COMPUTE_ACCEL, so it has no accel node")
    if features & (Feature.RENDER | Feature.MODESET):
        raise OSError(
            errno.EINVAL,
            f"driver {driver.name} asks for COMPUTE_ACCEL together with RENDER or MODESET: a device is "
            "either a compute accelerator or graphics; split it into two drivers joined by the auxiliary bus",
        )
