# SPDX-License-Identifier: Apache-2.0
"""An open device node in this process: the system calls of the upper waist as methods.

The same core answers as behind a served node; only the way is short: user memory is our own, a call
that blocks blocks the calling thread, and a mapping is a mapping of the store at the object's offset.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import operator
import os
import threading
import weakref
from collections.abc import Callable
from typing import SupportsIndex

from npubox.core import reaper
from npubox.core.caller import CAP_SYS_ADMIN, INITIAL_USER_NAMESPACE, Caller
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject
from npubox.core.drm.ioctl import dispatch
from npubox.core.drm.mmap import find_mappable
from npubox.core.pending import Pending
from npubox.core.usermem import OwnMemory

FIONBIO = 0x5421
O_LARGEFILE = 0o100000


def has_sys_admin() -> bool:
    """Whether this process has CAP_SYS_ADMIN in the initial user namespace, as the kernel's capable()."""
    try:
        if os.readlink("/proc/self/ns/user") != INITIAL_USER_NAMESPACE:
            return False
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


class Mapping(mmap.mmap):
    """A mapping of a buffer object. The object, and the file it was made through, live until the
    mapping is closed or collected; arrays that view it keep it alive."""

    _file: DrmFile
    _item: GemObject
    _unmapped: weakref.finalize[..., Mapping]

    def resize(self, newsize: int) -> None:
        """A mapping of a device does not grow; and Python's resize would truncate the store."""
        raise OSError(errno.EINVAL, "a mapping of a buffer object cannot be resized")

    def close(self) -> None:
        """Unmap; BufferError while somebody still views the memory. May be called twice."""
        super().close()
        if self._unmapped.detach() is not None:
            _unmap(self._file, self._item)

    def __exit__(self, *exc: object) -> None:
        self.close()


class Node:
    """An open file of an accel device. Methods raise OSError with the kernel's errno."""

    def __init__(self, file: DrmFile, flags: int) -> None:
        self._file = file
        self._flags = flags
        self._closed = False
        self._guard = threading.Lock()
        reaper.start()
        self._release = weakref.finalize(self, _later, _put_file, file)
        self._release.atexit = False

    @classmethod
    def open(cls, device: DrmDevice, flags: int = os.O_RDWR, *, sys_admin: bool | None = None) -> Node:
        """Open the device. `sys_admin` overrides whether the opener counts as privileged."""
        return cls(device.open(flags, _caller(sys_admin)), flags)

    @property
    def device(self) -> DrmDevice:
        return self._file.device

    @property
    def client_id(self) -> int:
        return self._file.client_id

    @property
    def closed(self) -> bool:
        return self._closed

    def ioctl(self, request: SupportsIndex, address: int, *, sys_admin: bool | None = None) -> int:
        """ioctl(2): `address` is that of the argument, in this process. Blocks as the ABI does."""
        file = self._use()
        try:
            caller = _caller(sys_admin)
            number = operator.index(request)
            if number == FIONBIO:
                return self._set_nonblocking(address, caller)
            result = dispatch(file, number, address, caller)
            return result.wait() if isinstance(result, Pending) else result
        finally:
            self._done()

    def mmap(
        self,
        length: int,
        prot: int = mmap.PROT_READ | mmap.PROT_WRITE,
        flags: int = mmap.MAP_SHARED,
        offset: int = 0,
    ) -> Mapping:
        """mmap(2) with the checks of a DRM node: EINVAL, EACCES, ENODEV."""
        file = self._use()
        try:
            item = self._mappable(length, prot, flags, offset)
            return _map(file, item, length, prot, flags)
        finally:
            self._done()

    def poll(self) -> int:
        """The poll(2) events that are set: none, as no modelled accel driver queues DRM events."""
        self._use()
        self._done()
        return 0

    def read(self, size: int) -> bytes:
        """read(2) of DRM events: there are none, so EAGAIN with O_NONBLOCK, else it sleeps."""
        self._use()
        try:
            if self._flags & os.O_NONBLOCK:
                raise OSError(errno.EAGAIN, "no DRM event is queued")
            Pending([Fence(new_context(), 1)]).wait()
        finally:
            self._done()
        raise AssertionError("a DRM event that nobody sent")

    def write(self, data: bytes) -> int:
        """write(2): EINVAL, a DRM node takes none."""
        self._use()
        self._done()
        raise OSError(errno.EINVAL, f"{self.device.name} cannot be written to")

    def lseek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """lseek(2): accepted and always 0."""
        self._use()
        self._done()
        return 0

    def fdinfo(self) -> str:
        """The text of /proc/PID/fdinfo/FD."""
        file = self._use()
        try:
            with file.device.lock:
                lines = file.fdinfo()
            with open(f"/proc/self/fdinfo/{file.device.store.fd}", encoding="ascii") as own:
                generic = [line for line in own if line.startswith(("mnt_id:", "ino:"))]
            return f"pos:\t0\nflags:\t0{self._flags | O_LARGEFILE:o}\n" + "".join(generic) + lines
        finally:
            self._done()

    def close(self) -> None:
        """close(2). Handles and queued jobs go when the last mapping made through this file is gone too."""
        with self._guard:
            self._closed = True
        if self._release.detach() is not None:
            _put_file(self._file)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _use(self) -> DrmFile:
        # A system call keeps the file open until it returns, whatever other threads close meanwhile.
        with self._guard:
            if self._closed:
                raise OSError(errno.EBADF, "this node is closed")
            with self._file.device.lock:
                self._file.get()
        return self._file

    def _done(self) -> None:
        with self._file.device.lock:
            self._file.put()

    def _set_nonblocking(self, address: int, caller: Caller) -> int:
        on = ctypes.c_int.from_buffer_copy(caller.memory.read(address, ctypes.sizeof(ctypes.c_int))).value
        self._flags = self._flags | os.O_NONBLOCK if on else self._flags & ~os.O_NONBLOCK
        return 0

    def _mappable(self, length: int, prot: int, flags: int, offset: int) -> GemObject:
        device, file = self._file.device, self._file
        with device.lock:
            item = find_mappable(file, self._flags, length, prot, flags, offset)
            item.get()
            file.get()
        return item


def _map(file: DrmFile, item: GemObject, length: int, prot: int, flags: int) -> Mapping:
    try:
        mapping = Mapping(file.device.store.fd, length, flags=flags, prot=prot, offset=item.offset)
    except BaseException:
        _unmap(file, item)
        raise
    mapping._file, mapping._item = file, item
    mapping._unmapped = weakref.finalize(mapping, _later, _unmap, file, item)
    mapping._unmapped.atexit = False
    return mapping


def _later(release: Callable[..., None], *what: object) -> None:
    reaper.post(lambda: release(*what))


def _unmap(file: DrmFile, item: GemObject) -> None:
    with file.device.lock:
        item.put()
        file.put()


def _put_file(file: DrmFile) -> None:
    with file.device.lock:
        file.put()


def _caller(sys_admin: bool | None) -> Caller:
    capable = has_sys_admin if sys_admin is None else lambda: sys_admin
    return Caller(os.getpid(), capable, OwnMemory())
