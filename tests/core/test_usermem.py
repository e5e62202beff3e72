# SPDX-License-Identifier: Apache-2.0
"""User memory: bytes come and go, protections hold, and no address can crash the process."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

import pytest

from npubox.core import libc
from npubox.core.usermem import CHUNK, OwnMemory
from tests.core.refaccel import fails

PAGE = mmap.PAGESIZE
PROT_NONE = 0


def forbid(pid: int, address: int, buffer: object) -> int:
    raise OSError(errno.EPERM, "as a sandbox would")


@pytest.fixture(params=["process_vm", "forbidden"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OwnMemory:
    if request.param == "forbidden":
        monkeypatch.setattr(libc, "process_vm_read", forbid)
        monkeypatch.setattr(libc, "process_vm_write", forbid)
    return OwnMemory()


@pytest.fixture
def pages() -> Iterator[tuple[mmap.mmap, int]]:
    """Three pages: writable, read-only, without access."""
    area = mmap.mmap(-1, 3 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    protect = ctypes.CDLL(None).mprotect
    assert protect(ctypes.c_void_p(start + PAGE), PAGE, mmap.PROT_READ) == 0
    assert protect(ctypes.c_void_p(start + 2 * PAGE), PAGE, PROT_NONE) == 0
    yield area, start
    assert protect(ctypes.c_void_p(start), 3 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_round_trip(memory: OwnMemory) -> None:
    buffer = ctypes.create_string_buffer(2 * CHUNK + 5)
    data = bytes(range(256)) * (len(buffer) // 256) + b"12345"
    memory.write(ctypes.addressof(buffer), data)
    assert buffer.raw == data
    assert memory.read(ctypes.addressof(buffer), len(data)) == data
    assert memory.read(8, 0) == b""
    memory.write(8, b"")


def test_protections(memory: OwnMemory, pages: tuple[mmap.mmap, int]) -> None:
    area, start = pages
    assert memory.read(start, 2 * PAGE) == bytes(2 * PAGE)
    with fails(errno.EFAULT):
        memory.read(start + PAGE, PAGE + 1)
    for address in (start + PAGE, start + 2 * PAGE, start + PAGE - 2):
        with fails(errno.EFAULT):
            memory.write(address, b"word")
    assert area[PAGE : 2 * PAGE] == bytes(PAGE)


@pytest.mark.parametrize("address", [0, 8, 1 << 47, 1 << 63, (1 << 64) - 2, -1])
def test_wild_addresses(memory: OwnMemory, address: int) -> None:
    with fails(errno.EFAULT):
        memory.read(address, 4)
    with fails(errno.EFAULT):
        memory.write(address, b"word")


@pytest.mark.parametrize("address", [-1, 1 << 64, (1 << 64) - 8])
def test_a_window_sees_no_address_beyond_64_bits(address: int) -> None:
    window = libc.Window()
    assert window.read(os.getpid(), address, 16) is None
    assert not window.write(os.getpid(), address, bytes(16))
