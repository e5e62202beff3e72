# SPDX-License-Identifier: Apache-2.0
"""The store: one sparse file per device that holds every buffer object.

A buffer object's mmap offset is its place in this file, so a mapping of the file at that offset is the
object, natively, for everybody who has the file. It is a tmpfs file without a name (O_TMPFILE) and not
a memfd because it has to be linkable: each served open gets a name, and so an identity, of its own.
"""

from __future__ import annotations

import errno
import os
import tempfile

from npubox.core import libc
from npubox.core.ranges import PAGE_SIZE, RangeAllocator, page_align

OFFSET_START = 0x1_0000_0000
OFFSET_END = OFFSET_START + 0xF_FFFF * 256 * PAGE_SIZE


def unnamed_file() -> tuple[int, str]:
    """An empty file without a name that can be linked, on tmpfs where there is one, and its directory.
    OSError."""
    candidates = [
        path for path in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()) if path
    ]
    reasons: list[str] = []
    for directory in candidates:
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), directory
        except OSError as error:
            reasons.append(f"{directory}: {error.strerror}")
    raise OSError(
        errno.ENOTSUP,
        "no directory can hold buffer objects; set TMPDIR to one on tmpfs, ext4 or xfs "
        f"({', '.join(reasons)})",
    )


LARGE = 1 << 26
"""Bytes from which an object is held against the host's free memory: a tmpfs may be as large as all of it."""


def memory_left() -> int:
    """Bytes of memory that the host can still give without swapping, as /proc/meminfo estimates them."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        available = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024


def _spare_the_host(size: int) -> None:
    if size >= LARGE and size > memory_left() // 2:
        raise OSError(errno.ENOMEM, f"{size} bytes are more than half of the host's free memory")


def allocate_pages(size: int) -> int:
    """An unnamed file of `size` zero bytes, whole pages, that are there already; OSError ENOMEM."""
    _spare_the_host(size)
    fd, directory = unnamed_file()
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.close(fd)
        raise OSError(
            errno.ENOMEM, f"{directory} has no room for a buffer of {size} bytes ({error.strerror})"
        ) from error
    return fd


class Store:
    """Memory for buffer objects, in pages, zero when fresh. Guarded by its device's lock.

    `fd` is the file: device DMA and mappings name it together with an offset.
    """

    def __init__(self) -> None:
        self.fd, self.directory = unnamed_file()
        try:
            os.ftruncate(self.fd, OFFSET_END)
        except OSError:
            os.close(self.fd)
            raise
        self._offsets = RangeAllocator(OFFSET_START, OFFSET_END)

    def allocate(self, size: int) -> int:
        """The offset of `size` zero bytes, rounded up to pages; OSError ENOMEM when there is no room.

        The pages are there when this returns: a full tmpfs is an error here, not a SIGBUS later.
        """
        size = page_align(size)
        _spare_the_host(size)
        offset = self.reserve(size)
        try:
            os.posix_fallocate(self.fd, offset, size)
        except OSError as error:
            libc.punch_hole(self.fd, offset, size)
            self._offsets.free(offset, size)
            raise OSError(
                errno.ENOMEM,
                f"{self.directory} has no room for a buffer object of {size} bytes ({error.strerror})",
            ) from error
        return offset

    def reserve(self, size: int) -> int:
        """An offset for `size` bytes whose pages are elsewhere; OSError ENOMEM when there is none."""
        try:
            return self._offsets.allocate(size)
        except OSError as error:
            raise OSError(errno.ENOMEM, f"no mmap offsets are left for {size} bytes") from error

    def free(self, offset: int, size: int) -> None:
        """Give the pages back. Only for ranges that nobody has mapped: a hole zeroes live mappings."""
        libc.punch_hole(self.fd, offset, page_align(size))
        self._offsets.free(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self.fd, view, offset)
            view = view[done:]
            offset += done

    @property
    def resident_bytes(self) -> int:
        """Bytes that the file occupies."""
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        """Close the file. Existing mappings of it live on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
