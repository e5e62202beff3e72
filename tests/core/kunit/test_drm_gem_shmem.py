# SPDX-License-Identifier: Apache-2.0
"""drm_gem_shmem. Objects have their pages from the start, and a range of the store where the kernel's have a
table of pages."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from npubox.core.dma_buf import DmaBuf
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.gem import GemObject
from npubox.core.drm.reservation import Reservation
from npubox.core.file import Backing
from npubox.core.node import Node
from tests.core.refaccel import create

SIZE = 4096 * 256


@pytest.fixture
def shmem(device: DrmDevice) -> Iterator[GemObject]:
    made = GemObject(device, SIZE - 5)
    yield made
    with device.lock:
        made.put()


def test_drm_gem_shmem_test_obj_create(shmem: GemObject) -> None:
    assert (shmem.size, shmem.imported, shmem.refcount, shmem.handle_count) == (SIZE, None, 1, 0)


def test_drm_gem_shmem_test_obj_create_private(device: DrmDevice) -> None:
    foreign = os.memfd_create("foreign", os.MFD_CLOEXEC)
    released: list[int] = []
    buffer = DmaBuf(
        None, SIZE, Backing(foreign, 4096), Reservation(), os.O_RDWR, lambda: released.append(foreign)
    )
    private = GemObject(device, SIZE, buffer)
    assert private.backing == Backing(foreign, 4096)
    assert private.reservation is buffer.reservation
    assert device.store.resident_bytes == 0
    with device.lock:
        private.put()
    assert released == [foreign]
    os.close(foreign)


def test_drm_gem_shmem_test_pin_pages(device: DrmDevice, shmem: GemObject) -> None:
    assert device.store.resident_bytes == SIZE


def test_drm_gem_shmem_test_vmap(node: Node) -> None:
    bo = create(node, SIZE)
    with node.mmap(SIZE, offset=bo.offset) as mapping:
        mapping[:] = b"\xda" * SIZE
        assert mapping[:] == b"\xda" * SIZE


def test_drm_gem_shmem_test_get_pages_sgt(device: DrmDevice, shmem: GemObject) -> None:
    assert shmem.backing == Backing(device.store.fd, shmem.offset)


def test_drm_gem_shmem_test_get_sg_table(device: DrmDevice, shmem: GemObject) -> None:
    """The table covers all of the object: its last byte is a byte of its own."""
    device.store.write(shmem.offset + SIZE - 1, b"z")
    assert os.pread(shmem.backing.fd, SIZE, shmem.backing.offset) == bytes(SIZE - 1) + b"z"
