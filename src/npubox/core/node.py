# SPDX-License-Identifier: Apache-2.0
"""An open file in this process, of a device or what its ioctls gave: the upper waist's system calls as
methods.

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
from npubox.core.descriptors import Description, Entry, OwnDescriptors, describe, let_go, take
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.open_file import DrmOpenFile
from npubox.core.file import Backing, OpenFile
from npubox.core.pending import Pending
from npubox.core.usermem import OwnMemory

FIONBIO = 0x5421
O_LARGEFILE = 0o100000
Adopted = tuple[int, Entry]


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
    """A mapping of a buffer. The object, and the file it was made through, live until the mapping is closed
    or collected; arrays that view it keep it alive."""

    _description: Description
    _offset: int
    _unmapped: weakref.finalize[..., Mapping]

    def resize(self, newsize: int) -> None:
        """A mapping of a device does not grow; and Python's resize would truncate the store."""
        raise OSError(errno.EINVAL, "a mapping of a buffer object cannot be resized")

    def close(self) -> None:
        """Unmap; BufferError while somebody still views the memory. May be called twice."""
        super().close()
        if self._unmapped.detach() is not None:
            self._description.unmap(self._offset)

    def __exit__(self, *exc: object) -> None:
        self.close()


class Node:
    """An open file of a device. Methods raise OSError with the kernel's errno."""

    def __init__(self, file: OpenFile, flags: int = os.O_RDWR, adopted: Adopted | None = None) -> None:
        """`flags` are those it was opened with; `adopted` a number that stands for it and becomes ours."""
        self._file = file
        self._description = describe(file)
        self._flags = flags
        self._adopted = adopted
        self._closed = False
        self._guard = threading.Lock()
        reaper.start()
        self._release = weakref.finalize(self, _later, _release, self._description, adopted)
        self._release.atexit = False

    @classmethod
    def open(cls, device: DrmDevice, flags: int = os.O_RDWR, *, sys_admin: bool | None = None) -> Node:
        """Open a DRM device. `sys_admin` overrides whether the opener counts as privileged."""
        return cls(DrmOpenFile(device, flags, own_caller(sys_admin)), flags)

    @property
    def file(self) -> OpenFile:
        """What the core has behind it."""
        return self._file

    @property
    def device(self) -> DrmDevice:
        """The DRM device of a DRM node; TypeError for another kind of file."""
        if not isinstance(self._file, DrmOpenFile):
            raise TypeError(f"{self._file.link} is no DRM node")
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
            caller = own_caller(sys_admin)
            number = operator.index(request)
            if number == FIONBIO:
                return self._set_nonblocking(address, caller)
            result = file.ioctl(number, address, caller)
            return result.wait() if isinstance(result, Pending) else result
        finally:
            self._done()

    def adopt(self, fd: int) -> Node:
        """The file behind a descriptor that an ioctl gave; `fd` is its own from then on. OSError EBADF."""
        return adopt(fd)

    def fileno(self) -> int:
        """The number that an ioctl gave for it: it polls as the file does. ValueError for a node."""
        if self._adopted is None:
            raise ValueError("a node that was opened in this process has no descriptor")
        return self._adopted[0]

    def mmap(
        self,
        length: int,
        prot: int = mmap.PROT_READ | mmap.PROT_WRITE,
        flags: int = mmap.MAP_SHARED,
        offset: int = 0,
    ) -> Mapping:
        """mmap(2) with the checks of the file: EINVAL, EACCES, ENODEV."""
        self._use()
        try:
            backing = self._description.mmap(length, prot, flags, offset, own_caller())
            return _map(self._description, backing, length, prot, flags, offset)
        finally:
            self._done()

    def poll(self) -> int:
        """The poll(2) events that are set."""
        file = self._use()
        try:
            return file.poll()
        finally:
            self._done()

    def read(self, size: int) -> bytes:
        """read(2): EAGAIN with O_NONBLOCK where there is nothing yet, else it sleeps."""
        file = self._use()
        try:
            while isinstance(data := file.read(size, bool(self._flags & os.O_NONBLOCK)), Pending):
                data.wait()
            return data
        finally:
            self._done()

    def write(self, data: bytes) -> int:
        """write(2)."""
        file = self._use()
        try:
            return file.write(data)
        finally:
            self._done()

    def lseek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """lseek(2)."""
        file = self._use()
        try:
            return file.lseek(offset, whence)
        finally:
            self._done()

    def fdinfo(self) -> str:
        """The text of /proc/PID/fdinfo/FD."""
        file = self._use()
        try:
            generic = f"pos:\t0\nflags:\t0{self._flags | O_LARGEFILE:o}\n"
            fd = getattr(file.stand_in, "fd", None)
            if fd is not None:
                with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as own:
                    generic += "".join(line for line in own if line.startswith(("mnt_id:", "ino:")))
            return generic + file.fdinfo()
        finally:
            self._done()

    def close(self) -> None:
        """close(2). The file is released when the last mapping made through it is gone too."""
        with self._guard:
            self._closed = True
        if self._release.detach() is not None:
            _release(self._description, self._adopted)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _use(self) -> OpenFile:
        # A system call keeps the file open until it returns, whatever other threads close meanwhile.
        with self._guard:
            if self._closed:
                raise OSError(errno.EBADF, "this node is closed")
            self._description.get()
        return self._file

    def _done(self) -> None:
        self._description.put()

    def _set_nonblocking(self, address: int, caller: Caller) -> int:
        on = ctypes.c_int.from_buffer_copy(caller.memory.read(address, ctypes.sizeof(ctypes.c_int))).value
        self._flags = self._flags | os.O_NONBLOCK if on else self._flags & ~os.O_NONBLOCK
        return 0


def adopt(fd: int) -> Node:
    """The file behind a descriptor that an ioctl of this process gave; `fd` is the node's from then on.
    OSError EBADF where it is none."""
    entry = take(fd)
    return Node(entry.description.file, entry.flags, (fd, entry))


def own_caller(sys_admin: bool | None = None) -> Caller:
    """This process as a caller. `sys_admin` overrides whether it counts as privileged."""
    capable = has_sys_admin if sys_admin is None else lambda: sys_admin
    return Caller(os.getpid(), capable, OwnMemory(), OwnDescriptors())


def _map(
    description: Description, backing: Backing, length: int, prot: int, flags: int, offset: int
) -> Mapping:
    try:
        if not backing.writable:
            prot &= ~mmap.PROT_WRITE
        mapping = Mapping(backing.fd, length, flags=flags, prot=prot, offset=backing.offset)
    except BaseException:
        description.unmap(offset)
        raise
    mapping._description, mapping._offset = description, offset
    mapping._unmapped = weakref.finalize(mapping, _later, description.unmap, offset)
    mapping._unmapped.atexit = False
    return mapping


def _release(description: Description, adopted: Adopted | None) -> None:
    if adopted is not None:
        let_go(*adopted)
    description.put()


def _later(release: Callable[..., None], *what: object) -> None:
    reaper.post(lambda: release(*what))
