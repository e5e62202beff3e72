# SPDX-License-Identifier: Apache-2.0
"""Cache maintenance: what each side sees of a cacheable mapping, in process and over a socket."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from npubox.bus.host import DeviceHost
from npubox.bus.incoherent import IncoherentSpace
from npubox.bus.port import DmaSpace, Prot
from npubox.bus.remote import RemoteLink, RemotePort
from npubox.bus.virtual import AddressSpace

PAGE = mmap.PAGESIZE
ADDRESS = 0x10000
CACHED = Prot.READ | Prot.WRITE | Prot.CACHED


class NoDevice:
    def read32(self, offset: int) -> int:
        return 0

    def write32(self, offset: int, value: int) -> None:
        raise AssertionError("nobody writes")


@contextmanager
def local(space: AddressSpace) -> Iterator[DmaSpace]:
    yield space


@contextmanager
def remote(space: AddressSpace) -> Iterator[DmaSpace]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    host = DeviceHost(theirs)
    thread = threading.Thread(target=host.run, args=(NoDevice(), space, lambda order: None), daemon=True)
    thread.start()
    link = RemoteLink(ours, lambda report: None)
    yield RemotePort(link).dma
    link.close()
    thread.join(5)
    host.clock.close()


@pytest.fixture
def memory() -> Iterator[tuple[int, mmap.mmap]]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 2 * PAGE)
    yield fd, mmap.mmap(fd, 2 * PAGE)
    os.close(fd)


Way = Callable[[AddressSpace], AbstractContextManager[DmaSpace]]
WAYS = pytest.mark.parametrize("way", [local, remote])


@WAYS
def test_each_side_sees_the_other_as_of_the_last_sync(way: Way, memory: tuple[int, mmap.mmap]) -> None:
    fd, host = memory
    space = IncoherentSpace()
    host[:4] = b"old!"
    with way(space) as dma:
        dma.map(ADDRESS, fd, 0, 2 * PAGE, CACHED)
        dma.sync_for_cpu(ADDRESS + PAGE, PAGE)
        device = space.find(ADDRESS, 2 * PAGE).memory
        assert device[:4] == b"old!", "the caches start clean"
        host[:4] = b"new!"
        assert device[:4] == b"old!"
        dma.sync_for_device(ADDRESS, 2)
        assert device[:4] == b"ned!", "only what was flushed"
        device[PAGE : PAGE + 4] = b"done"
        assert host[PAGE : PAGE + 4] == bytes(4)
        dma.sync_for_cpu(ADDRESS + PAGE, 4)
        assert host[PAGE : PAGE + 4] == b"done"
        dma.unmap(ADDRESS, 2 * PAGE)


@pytest.mark.parametrize(
    ("space", "prot"), [(IncoherentSpace, Prot.READ | Prot.WRITE), (AddressSpace, CACHED)]
)
def test_other_mappings_are_the_very_pages(
    space: type[AddressSpace], prot: Prot, memory: tuple[int, mmap.mmap]
) -> None:
    fd, host = memory
    made = space()
    made.map(ADDRESS, fd, 0, PAGE, prot)
    host[:4] = b"seen"
    assert made.find(ADDRESS, 4).memory[:4] == b"seen"
    made.sync_for_device(ADDRESS, PAGE)
    made.sync_for_cpu(ADDRESS, PAGE)


@WAYS
@pytest.mark.parametrize("space", [AddressSpace, IncoherentSpace])
@pytest.mark.parametrize(("address", "size"), [(ADDRESS - 1, 1), (ADDRESS + PAGE, 1), (ADDRESS, PAGE + 1)])
def test_what_is_not_mapped_is_enoent(
    way: Way, space: type[AddressSpace], memory: tuple[int, mmap.mmap], address: int, size: int
) -> None:
    with way(space()) as dma:
        dma.map(ADDRESS, memory[0], 0, PAGE, CACHED)
        for sync in (dma.sync_for_cpu, dma.sync_for_device):
            with pytest.raises(OSError, match="no DMA mapping") as raised:
                sync(address, size)
            assert raised.value.errno == errno.ENOENT
