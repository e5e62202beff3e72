# SPDX-License-Identifier: Apache-2.0
"""PRIME and dma-bufs, as a real kernel answered (accel-core.md §2.7)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.drm.driver import DrmDriver
from npubox.core.node import Node, adopt
from npubox.core.sync_file import SyncFile
from npubox.uapi import dma_buf, drm
from tests.core.refaccel import RefAccel, call, create, driver_of, fails, make_device, open_node, raw
from tests.core.syncobjs import SwSync, readable

CLOEXEC_RDWR = os.O_CLOEXEC | os.O_RDWR
READ, WRITE, END = dma_buf.SyncFlag.READ, dma_buf.SyncFlag.WRITE, dma_buf.SyncFlag.END


def export(node: Node, handle: int, flags: int = CLOEXEC_RDWR) -> int:
    return int(call(node, drm.PRIME_HANDLE_TO_FD, handle=handle, flags=flags, fd=-1).fd)


def import_(node: Node, fd: int) -> int:
    return int(call(node, drm.PRIME_FD_TO_HANDLE, fd=fd, flags=0xFFFF).handle)


@pytest.fixture
def buffer(node: Node) -> Iterator[Node]:
    """The dma-buf of the node's handle 1, two pages."""
    with adopt(export(node, create(node, 5000).handle)) as exported:
        yield exported


@contextmanager
def another_device() -> Iterator[Node]:
    device = make_device(Minors())
    with open_node(device) as node:
        yield node
    device.unregister()
    assert driver_of(device).released


def test_the_same_file_again(node: Node, buffer: Node) -> None:
    fd = export(node, 1, 0)
    assert os.get_inheritable(fd)
    with adopt(fd) as again:
        assert again.file is buffer.file
        again.mmap(4096).close()  # the access mode is that of the first export
    with fails(errno.EINVAL):
        export(node, 1, 4)
    with fails(errno.ENOENT):
        export(node, 99)


def test_it_lives_as_long_as_the_handle(node: Node) -> None:
    create(node, 4096)
    with adopt(export(node, 1)) as exported:
        name = ctypes.create_string_buffer(b"kept")
        raw(exported, dma_buf.SET_NAME_B.number, name)
    with adopt(export(node, 1)) as again:
        assert again.file.link == "/dmabuf:kept"


def test_import_into_the_same_file_and_another(node: Node, device: DrmDevice) -> None:
    fd = export(node, create(node, 4096).handle)
    assert import_(node, fd) == 1
    with open_node(device) as other:
        assert import_(other, fd) == 1
        assert import_(other, fd) == 1
        call(node, drm.GEM_CLOSE, handle=1)
        assert import_(node, fd) == 1
    adopt(fd).close()


def test_a_handle_by_name_is_not_the_buffers(node: Node) -> None:
    create(node, 4096)
    opened = call(node, drm.GEM_OPEN, name=call(node, drm.GEM_FLINK, handle=1).name)
    fd = export(node, 1)
    assert import_(node, fd) == 1
    call(node, drm.GEM_CLOSE, handle=1)
    assert import_(node, fd) == 1
    assert opened.handle == 2
    adopt(fd).close()


def test_import_refuses(node: Node) -> None:
    for fd, error in ((-1, errno.EBADF), (0, errno.EINVAL)):
        with fails(error):
            import_(node, fd)
    with SwSync() as timeline:
        fence = timeline.fence(1)
        with fails(errno.EINVAL):
            import_(node, fence)
        timeline.adopt(fence).close()


def test_pages_are_the_objects(node: Node, buffer: Node, device: DrmDevice) -> None:
    item = device.object_at(0x1_0000_0000)
    assert item is not None
    with node.mmap(8192, offset=item.offset) as mine, buffer.mmap(8192) as shared:
        mine[4096:4100] = b"data"
        assert shared[4096:4100] == b"data"
        with buffer.mmap(4096, offset=4096) as second:
            assert second[:4] == b"data"
        call(node, drm.GEM_CLOSE, handle=1)
        shared[:2] = b"ok"
        assert mine[:2] == b"ok"


@pytest.mark.parametrize(
    ("length", "flags", "offset"),
    [
        (12288, mmap.MAP_SHARED, 0),
        (8192, mmap.MAP_SHARED, 4096),
        (4096, mmap.MAP_SHARED, 8192),
        (4096, mmap.MAP_SHARED, 1),
        (4096, mmap.MAP_PRIVATE, 0),
    ],
)
def test_mmap_refuses(buffer: Node, length: int, flags: int, offset: int) -> None:
    with fails(errno.EINVAL):
        buffer.mmap(length, flags=flags, offset=offset)


def test_a_buffer_exported_read_only(node: Node) -> None:
    with adopt(export(node, create(node, 4096).handle, 0)) as exported:
        exported.mmap(4096, mmap.PROT_READ).close()
        with fails(errno.EACCES):
            exported.mmap(4096)


def test_position_and_bytes(buffer: Node) -> None:
    assert buffer.lseek(0, os.SEEK_END) == 8192
    assert buffer.lseek(0, os.SEEK_SET) == 0
    for offset, whence in ((5, os.SEEK_SET), (0, os.SEEK_CUR), (-1, os.SEEK_END)):
        with fails(errno.EINVAL):
            buffer.lseek(offset, whence)
    with fails(errno.EINVAL):
        buffer.read(16)
    with fails(errno.EINVAL):
        buffer.write(b"x")


def test_names(buffer: Node) -> None:
    for number in (dma_buf.SET_NAME_A.number, dma_buf.SET_NAME_B.number):
        raw(buffer, number, ctypes.create_string_buffer(b"n" * 31))
        assert buffer.file.link == "/dmabuf:" + "n" * 31
    assert buffer.fdinfo().endswith("exp_name:\tdrm\nname:\t" + "n" * 31 + "\n")
    assert "size:\t8192\n" in buffer.fdinfo()
    with fails(errno.EINVAL):
        raw(buffer, dma_buf.SET_NAME_B.number, ctypes.create_string_buffer(b"n" * 32))
    with fails(errno.EFAULT):
        buffer.ioctl(dma_buf.SET_NAME_B, 8)
    page = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    page[mmap.PAGESIZE - 3 : mmap.PAGESIZE] = b"at\0"
    buffer.ioctl(dma_buf.SET_NAME_B, address + mmap.PAGESIZE - 3)
    assert buffer.file.link == "/dmabuf:at"


def test_sync_refuses(buffer: Node) -> None:
    for flags in (0, END, 0x10, READ | 8):
        with fails(errno.EINVAL):
            call(buffer, dma_buf.SYNC, flags=flags)
    for flags in (READ, WRITE, READ | WRITE | END):
        call(buffer, dma_buf.SYNC, flags=flags)
    with fails(errno.ENOTTY):
        buffer.ioctl(0x6209, 0)


def add_fence(buffer: Node, fd: int, flags: int) -> None:
    call(buffer, dma_buf.IMPORT_SYNC_FILE, flags=flags, fd=fd)


def test_fences_of_devices(buffer: Node) -> None:
    assert buffer.poll() == select.POLLIN | select.POLLOUT
    with SwSync() as timeline:
        first, second = timeline.fence(1), timeline.fence(2)
        add_fence(buffer, first, WRITE)
        assert buffer.poll() == 0
        with SwSync() as reader:
            read = reader.fence(1)
            add_fence(buffer, read, READ)
            timeline.advance(1)
            assert buffer.poll() == select.POLLIN
            call(buffer, dma_buf.SYNC, flags=READ)
            threading.Timer(0.02, reader.advance, (1,)).start()
            call(buffer, dma_buf.SYNC, flags=WRITE)
            assert buffer.poll() == select.POLLIN | select.POLLOUT
            timeline.adopt(read).close()
        for fd in (first, second):
            timeline.adopt(fd).close()


def test_poll_tells_of_the_first_change(buffer: Node) -> None:
    with SwSync() as writer, SwSync() as reader:
        write, read = writer.fence(1), reader.fence(1)
        add_fence(buffer, write, WRITE)
        add_fence(buffer, read, READ)
        changes, told = buffer.file.poll_changes(), threading.Event()
        assert changes is not None
        assert changes.add_callback(told.set)
        writer.advance(1)
        assert told.is_set()
        assert buffer.poll() == select.POLLIN
        again = buffer.file.poll_changes()
        assert again is not None
        assert again.add_callback(told.clear)
        assert again.remove_callback(told.clear)
        reader.advance(1)
        assert told.is_set()
        assert buffer.file.poll_changes() is None
        for fd in (write, read):
            writer.adopt(fd).close()


def exported_fence(buffer: Node, flags: int) -> int:
    return int(call(buffer, dma_buf.EXPORT_SYNC_FILE, flags=flags, fd=-1).fd)


def test_export_of_fences(buffer: Node) -> None:
    idle = exported_fence(buffer, READ)
    assert readable(idle)
    with SwSync() as timeline, SwSync() as reader:
        write, read = timeline.fence(1), reader.fence(1)
        add_fence(buffer, write, WRITE)
        add_fence(buffer, read, READ)
        writers, everybody = exported_fence(buffer, READ), exported_fence(buffer, WRITE)
        timeline.advance(1)
        assert readable(writers)
        assert not readable(everybody)
        reader.advance(1)
        assert readable(everybody)
        for fd in (idle, writers, everybody, write, read):
            file = timeline.adopt(fd)
            assert isinstance(file.file, SyncFile)
            file.close()
    for flags in (0, 4, READ | 8):
        for declaration in (dma_buf.EXPORT_SYNC_FILE, dma_buf.IMPORT_SYNC_FILE):
            with fails(errno.EINVAL):
                call(buffer, declaration, flags=flags)
    for fd in (-1, 0):
        with fails(errno.EINVAL):
            add_fence(buffer, fd, READ)


def test_a_buffer_goes_to_another_device(node: Node, buffer: Node) -> None:
    fd = export(node, 1)
    with another_device() as other:
        handle = import_(other, fd)
        assert import_(other, fd) == handle
        item = other.device.object_at(0x1_0000_0000)
        assert item is not None
        assert item.size == 8192
        with other.mmap(8192, offset=item.offset) as theirs, buffer.mmap(8192) as mine:
            mine[:6] = b"shared"
            assert theirs[:6] == b"shared"
        again = export(other, handle)
        with adopt(again) as forwarded:
            assert forwarded.file is buffer.file
        assert "drm-shared-memory:\t8 KiB\n" in other.fdinfo()
        call(other, drm.GEM_CLOSE, handle=handle)
    adopt(fd).close()


def test_a_driver_without_the_hook_takes_no_foreign_buffer(node: Node, buffer: Node) -> None:
    class Alone(RefAccel):
        import_buffer = DrmDriver.import_buffer

    device = DrmDevice(Alone(), "alone.0", minors=Minors())
    device.register()
    fd = export(node, 1)
    with open_node(device) as other, fails(errno.EINVAL):
        import_(other, fd)
    adopt(fd).close()
    device.unregister()


def test_memory_goes_with_the_last_user(device: DrmDevice) -> None:
    with open_node(device) as node:
        fd = export(node, create(node, 4096).handle)
    assert device.object_count == 1
    exported = adopt(fd)
    with exported.mmap(4096) as mapping:
        mapping[:4] = b"here"
        exported.close()
        assert (device.object_count, mapping[:4]) == (1, b"here")
    assert device.object_count == 0


def test_unplug_leaves_buffers_usable(device: DrmDevice) -> None:
    with open_node(device) as node:
        fd = export(node, create(node, 4096).handle)
        device.unplug()
        with fails(errno.ENODEV):
            export(node, 1)
        with adopt(fd) as exported:
            exported.mmap(4096).close()
            assert exported.lseek(0, os.SEEK_END) == 4096


def test_fdinfo_counts_exported_objects_as_shared(node: Node, buffer: Node) -> None:
    create(node, 4096)
    assert "drm-total-memory:\t12 KiB\n" in node.fdinfo()
    assert "drm-shared-memory:\t8 KiB\n" in node.fdinfo()
