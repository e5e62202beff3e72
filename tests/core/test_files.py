# SPDX-License-Identifier: Apache-2.0
"""Open files, handles and mappings: who keeps what alive, and what goes when the last reference goes."""

from __future__ import annotations

import array
import ctypes
import errno
import gc
import mmap
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from npubox.core import reaper
from npubox.core.drm.device import ACCEL_MAX_MINORS, DrmDevice, Minors
from npubox.core.drm.driver import DrmDriver, Feature
from npubox.core.node import Node
from npubox.core.store import Store
from npubox.uapi import drm
from npubox.uapi.refaccel import CREATE_BO, CreateBo
from tests.core.refaccel import (
    RefAccel,
    call,
    create,
    driver_of,
    fails,
    make_device,
    open_node,
    raw,
)

RW = mmap.PROT_READ | mmap.PROT_WRITE


def test_client_ids_are_never_reused(device: DrmDevice) -> None:
    first = open_node(device)
    first.close()
    second = open_node(device)
    assert second.client_id == first.client_id + 1
    second.close()


def test_open_rules(device: DrmDevice) -> None:
    with fails(errno.EBUSY):
        open_node(device, os.O_RDWR | os.O_EXCL)
    with open_node(device, os.O_RDONLY) as node:
        assert call(node, drm.VERSION).name_len == 8
        assert create(node, 1).handle == 1


def test_handles_and_offsets(node: Node) -> None:
    first = create(node, 5000)
    second = create(node, 1 << 20)
    assert (first.handle, first.offset) == (1, 0x1_0000_0000)
    assert (second.handle, second.offset) == (2, 0x1_0000_2000)
    call(node, drm.GEM_CLOSE, handle=1, pad=9)
    assert (again := create(node, 100)).handle == 1
    assert again.offset == 0x1_0000_0000
    for handle in (0, 3):
        with fails(errno.EINVAL):
            call(node, drm.GEM_CLOSE, handle=handle)
    with fails(errno.EINVAL):
        create(node, 0)


def test_out_of_memory_is_enomem_and_leaves_nothing(node: Node) -> None:
    for size in (1 << 38, 1 << 45, (1 << 64) - 1):
        with fails(errno.ENOMEM):
            create(node, size)
    assert node.device.object_count == 0
    assert node.device.store.resident_bytes == 0


def test_flink(node: Node, device: DrmDevice) -> None:
    bo = create(node, 5000)
    name = call(node, drm.GEM_FLINK, handle=bo.handle).name
    assert name == 1
    assert call(node, drm.GEM_FLINK, handle=bo.handle).name == 1
    opened = call(node, drm.GEM_OPEN, name=name)
    assert (opened.handle, opened.size) == (2, 8192)
    with open_node(device) as other:
        assert call(other, drm.GEM_OPEN, name=name).handle == 1
        call(node, drm.GEM_CLOSE, handle=1)
        call(node, drm.GEM_CLOSE, handle=2)
        assert call(node, drm.GEM_OPEN, name=name).handle == 1
        call(node, drm.GEM_CLOSE, handle=1)
    with fails(errno.ENOENT):
        call(node, drm.GEM_OPEN, name=name)


@pytest.fixture
def bo(node: Node) -> CreateBo:
    return create(node, 5000)


def test_mmap_allows(node: Node, bo: CreateBo) -> None:
    for length, prot in ((8192, RW), (5000, RW), (4096, mmap.PROT_READ), (8192, RW | mmap.PROT_EXEC)):
        with node.mmap(length, prot, mmap.MAP_SHARED, bo.offset) as mapping:
            assert len(mapping) == length


@pytest.mark.parametrize(
    ("length", "shift", "flags", "error"),
    [
        (8193, 0, mmap.MAP_SHARED, errno.EINVAL),
        (4096, 4096, mmap.MAP_SHARED, errno.EINVAL),
        (4096, 1, mmap.MAP_SHARED, errno.EINVAL),
        (4096, -0x1_0000_0000, mmap.MAP_SHARED, errno.EINVAL),
        (4096, 8192, mmap.MAP_SHARED, errno.EINVAL),
        (0, 0, mmap.MAP_SHARED, errno.EINVAL),
        (4096, 0, mmap.MAP_PRIVATE, errno.EINVAL),
    ],
    ids=["too long", "middle", "unaligned", "offset 0", "unused", "empty", "private"],
)
def test_mmap_refuses(node: Node, bo: CreateBo, length: int, shift: int, flags: int, error: int) -> None:
    with fails(error):
        node.mmap(length, RW, flags, bo.offset + shift)


def test_mmap_needs_a_handle_and_write_access(node: Node, bo: CreateBo, device: DrmDevice) -> None:
    with open_node(device) as other:
        with fails(errno.EACCES):
            other.mmap(4096, RW, mmap.MAP_SHARED, bo.offset)
        name = call(node, drm.GEM_FLINK, handle=bo.handle).name
        handle = call(other, drm.GEM_OPEN, name=name).handle
        other.mmap(4096, RW, mmap.MAP_SHARED, bo.offset).close()
        call(other, drm.GEM_CLOSE, handle=handle)
        with fails(errno.EACCES):
            other.mmap(4096, RW, mmap.MAP_SHARED, bo.offset)
    with open_node(device, os.O_RDONLY) as reader:
        mine = create(reader, 4096)
        with fails(errno.EACCES):
            reader.mmap(4096, RW, mmap.MAP_SHARED, mine.offset)
        reader.mmap(4096, mmap.PROT_READ, mmap.MAP_SHARED, mine.offset).close()


def test_two_mappings_are_the_same_pages(node: Node, bo: CreateBo) -> None:
    with (
        node.mmap(8192, RW, mmap.MAP_SHARED, bo.offset) as one,
        node.mmap(4096, RW, mmap.MAP_SHARED, bo.offset) as two,
    ):
        one[:5] = b"hello"
        assert two[:5] == b"hello"


def test_a_mapping_outlives_handle_and_file(device: DrmDevice) -> None:
    node = open_node(device)
    bo = create(node, 8192)
    mapping = node.mmap(8192, RW, mmap.MAP_SHARED, bo.offset)
    mapping[:4] = b"data"
    call(node, drm.GEM_CLOSE, handle=bo.handle)
    node.close()
    assert mapping[:4] == b"data"
    assert device.object_count == 1
    with open_node(device) as other:
        assert create(other, 4096).offset != bo.offset
    mapping.close()
    mapping.close()
    assert device.object_count == 0
    assert device.store.resident_bytes == 0


def test_an_array_keeps_its_mapping(device: DrmDevice) -> None:
    with open_node(device) as node:
        view = np.frombuffer(node.mmap(4096, RW, mmap.MAP_SHARED, create(node, 4096).offset), np.uint8)
    view[:] = 3
    assert device.object_count == 1
    assert int(view.sum()) == 3 * 4096
    mapping = view.base.obj if isinstance(view.base, memoryview) else view.base
    assert isinstance(mapping, mmap.mmap)
    with pytest.raises(BufferError):
        mapping.close()
    del view, mapping
    gc.collect()
    reaper.drain()
    assert device.object_count == 0


def test_a_mapping_cannot_be_resized(node: Node, bo: CreateBo) -> None:
    with node.mmap(4096, RW, mmap.MAP_SHARED, bo.offset) as mapping, fails(errno.EINVAL):
        mapping.resize(8192)


def test_fresh_memory_is_zero_after_reuse(node: Node) -> None:
    bo = create(node, 4096)
    with node.mmap(4096, RW, mmap.MAP_SHARED, bo.offset) as mapping:
        mapping[:] = b"\xff" * 4096
    call(node, drm.GEM_CLOSE, handle=bo.handle)
    again = create(node, 4096)
    assert again.offset == bo.offset
    with node.mmap(4096, RW, mmap.MAP_SHARED, again.offset) as mapping:
        assert mapping[:] == bytes(4096)


def test_close_leaves_nothing(device: DrmDevice) -> None:
    node = open_node(device)
    for _ in range(5):
        create(node, 4096)
    client = node.client_id
    node.close()
    node.close()
    assert device.object_count == 0
    assert device.files == []
    assert driver_of(device).closed == [(client, 0)]
    with fails(errno.EBADF):
        create(node, 4096)


def test_a_forgotten_node_is_closed(device: DrmDevice) -> None:
    create(open_node(device), 4096)
    gc.collect()
    reaper.drain()
    assert device.files == []
    assert device.object_count == 0


def test_a_call_keeps_its_file_open(device: DrmDevice) -> None:
    node = open_node(device)
    inside = threading.Event()

    def blocked() -> None:
        inside.set()
        with fails(errno.EBADF):
            while True:
                call(node, drm.VERSION)

    thread = threading.Thread(target=blocked)
    thread.start()
    inside.wait()
    node.close()
    thread.join(10)
    assert not thread.is_alive()
    assert device.files == []


def test_unregister_leaves_open_files_working() -> None:
    minors = Minors()
    device = make_device(minors)
    node = open_node(device)
    device.unregister()
    with fails(errno.ENODEV):
        open_node(device)
    with fails(errno.ENODEV):
        minors.lookup(0)
    assert create(node, 4096).handle == 1
    second = make_device(minors)
    assert (device.minor, second.minor) == (0, 1)
    node.close()
    assert driver_of(device).released
    third = make_device(minors)
    assert third.minor == 0
    for other in (second, third):
        other.unregister()


def test_unplug(device: DrmDevice) -> None:
    node = open_node(device, os.O_RDWR | os.O_NONBLOCK)
    bo = create(node, 4096)
    mapping = node.mmap(4096, RW, mmap.MAP_SHARED, bo.offset)
    mapping[:4] = b"data"
    device.unplug()
    device.unplug()
    args = drm.GetCap(capability=5)
    for number in (drm.GET_CAP.number, CREATE_BO.number, 0x6500, 0xC01064D3):
        with fails(errno.ENODEV):
            node.ioctl(number, ctypes.addressof(args))
    with fails(errno.ENODEV):
        node.mmap(4096, RW, mmap.MAP_SHARED, bo.offset)
    with fails(errno.EAGAIN):
        node.read(1)
    assert node.poll() == 0
    assert [line.split(":")[0] for line in node.fdinfo().splitlines()] == ["pos", "flags", "mnt_id", "ino"]
    assert mapping[:4] == b"data"
    mapping.close()
    node.close()


def test_nobody_opens_a_device_that_is_being_unplugged(device: DrmDevice) -> None:
    during: list[object] = []

    def join() -> None:  # the driver has let go, the node is still there
        with fails(errno.ENODEV):
            open_node(device)
        during.append(device.registered)

    driver_of(device).join = join  # type: ignore[method-assign]
    device.unplug()
    assert during == [True]


def test_minors_run_out() -> None:
    minors = Minors()
    for _ in range(ACCEL_MAX_MINORS):
        minors.take(DrmDevice.__new__(DrmDevice))
    with fails(errno.ENOSPC):
        make_device(minors)


@pytest.mark.parametrize("extra", [Feature.RENDER, Feature.MODESET])
def test_graphics_and_compute_do_not_mix(extra: Feature) -> None:
    class Both(RefAccel):
        features = RefAccel.features | extra

    with pytest.raises(OSError, match="auxiliary bus") as caught:
        DrmDevice(Both(), "both.0", minors=Minors())
    assert caught.value.errno == errno.EINVAL


def test_a_driver_without_compute_accel_is_refused() -> None:
    class Graphics(RefAccel):
        features = Feature.GEM

    with fails(errno.EINVAL):
        DrmDevice(Graphics(), "graphics.0", minors=Minors())


def test_without_gem() -> None:
    class Bare(DrmDriver):
        name, desc, version, features = "bare", "no GEM", (0, 0, 0), Feature.COMPUTE_ACCEL

    device = DrmDevice(Bare(), "bare.0", minors=Minors())
    device.register()
    with open_node(device) as node:
        for number in (drm.GEM_CLOSE.number, drm.GEM_FLINK.number, drm.GEM_OPEN.number):
            with fails(errno.EOPNOTSUPP):
                raw(node, number, ctypes.create_string_buffer(16))
        with fails(errno.EINVAL):
            create(node, 4096)
    device.unregister()


def test_a_driver_that_refuses_open(device: DrmDevice) -> None:
    class Full(RefAccel):
        def open(self, file: object) -> None:
            raise OSError(errno.ENOMEM, "full")

    full = DrmDevice(Full(), "full.0", minors=Minors())
    full.register()
    with fails(errno.ENOMEM):
        open_node(full)
    full.unregister()
    assert driver_of(full).released


def test_the_store_can_be_linked_and_mapped_natively() -> None:
    store = Store()
    offset = store.allocate(4096)
    store.write(offset, b"native")
    name = f"{store.directory}/npubox-test-{os.getpid()}"
    root = os.open("/", os.O_PATH)  # with a directory Python uses linkat, which follows the link
    os.link(f"/proc/self/fd/{store.fd}", name, src_dir_fd=root)
    os.close(root)
    try:
        with open(name, "r+b") as linked, mmap.mmap(linked.fileno(), 4096, offset=offset) as mapping:
            assert mapping[:6] == b"native"
            mapping[:6] = b"shared"
    finally:
        os.unlink(name)
    assert os.pread(store.fd, 6, offset) == b"shared"
    store.close()


def test_threads_share_a_device(device: DrmDevice) -> None:
    errors: list[BaseException] = []

    def worker(seed: int) -> None:
        try:
            for round_ in range(40):
                with open_node(device) as node:
                    size = 4096 * (1 + (seed + round_) % 5)
                    bo = create(node, size)
                    mapping = node.mmap(size, RW, mmap.MAP_SHARED, bo.offset)
                    pattern = array.array("I", [seed << 16 | round_] * (size // 4)).tobytes()
                    mapping[:] = pattern
                    call(node, drm.GEM_CLOSE, handle=bo.handle)
                    create(node, 4096)
                    assert mapping[:] == pattern
                    if round_ % 2:
                        mapping.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    gc.collect()
    reaper.drain()
    assert errors == []
    assert device.files == []
    assert device.store.resident_bytes == 0


class Interrupted(Exception):  # noqa: N818 - stands for KeyboardInterrupt
    pass


def test_a_signal_ends_a_blocked_read(node: Node) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            node.read(64)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert create(node, 4096).handle == 1


def test_the_store_looks_for_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real, tried = os.open, list[str]()

    def fake(path: str, flags: int, mode: int = 0o777) -> int:
        tried.append(path)
        if path in ("/dev/shm", "/none"):
            raise OSError(errno.ENOENT, "No such file or directory")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", fake)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/none")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    store = Store()
    assert tried == ["/dev/shm", "/none", str(tmp_path)]
    offset = store.allocate(10_000)
    store.free(offset, 10_000)
    store.close()
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/none")
    with pytest.raises(OSError, match="set TMPDIR"):
        Store()
