# SPDX-License-Identifier: Apache-2.0
"""The dispatch rules and the core's ioctls, as a real kernel answered them on an accel node."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct

import pytest

from npubox.core.drm.device import DrmDevice
from npubox.core.node import FIONBIO, Node
from npubox.uapi import drm
from npubox.uapi.drm_numbers import MODESET_MASTER_NUMBERS, MODESET_NUMBERS, NUMBERS, UNHANDLED_NUMBERS
from npubox.uapi.ioctl import Dir, encode, ioc_size
from npubox.uapi.refaccel import CREATE_BO
from tests.core.refaccel import (
    FAIL_LATE,
    NESTED,
    ROOT_ONLY,
    Word,
    call,
    create,
    fails,
    open_node,
    raw,
)

UNMAPPED = 8
TCGETS, FIONREAD = 0x5401, 0x541B


def test_version_in_two_passes(node: Node) -> None:
    sizes = call(node, drm.VERSION)
    assert (sizes.version_major, sizes.version_minor, sizes.version_patchlevel) == (1, 2, 3)
    assert (sizes.name_len, sizes.date_len, sizes.desc_len) == (8, 1, 15)
    name, date, desc = (ctypes.create_string_buffer(b"#" * 31) for _ in range(3))
    call(
        node,
        drm.VERSION,
        name_len=8,
        name=ctypes.addressof(name),
        date_len=1,
        date=ctypes.addressof(date),
        desc_len=15,
        desc=ctypes.addressof(desc),
    )
    assert (name.raw[:9], date.raw[:2], desc.raw[:16]) == (b"refaccel#", b"0#", b"reference accel#")


def test_version_cuts_but_tells_the_full_length(node: Node) -> None:
    name = ctypes.create_string_buffer(b"#" * 15)
    answer = call(node, drm.VERSION, name_len=3, name=ctypes.addressof(name))
    assert name.raw[:4] == b"ref#"
    assert answer.name_len == 8
    with fails(errno.EFAULT):
        call(node, drm.VERSION, name_len=3, name=UNMAPPED)
    with fails(errno.EFAULT):
        node.ioctl(drm.VERSION, 0)


@pytest.mark.parametrize("capability", range(0x18))
def test_get_cap(node: Node, capability: int) -> None:
    args = drm.GetCap(capability=capability, value=99)
    known = {0x5: 3, 0x6: 1, 0x13: 1, 0x14: 1}
    if capability in known:
        node.ioctl(drm.GET_CAP, ctypes.addressof(args))
    else:
        with fails(errno.EOPNOTSUPP):
            node.ioctl(drm.GET_CAP, ctypes.addressof(args))
    assert args.value == known.get(capability, 0)


def get_cap(node: Node, direction: Dir, size: int, room: int = 48) -> tuple[int, bytes]:
    """GET_CAP of PRIME through a number with another size or direction: errno and the argument after it."""
    argument = ctypes.create_string_buffer(struct.pack("<QQ", 5, 77) + b"\x5a" * 32, room)
    try:
        raw(node, encode(direction, "d", 0x0C, size), argument)
    except OSError as error:
        return error.errno or 0, argument.raw
    return 0, argument.raw


def test_any_size_and_direction_is_served(node: Node) -> None:
    both = Dir.READ | Dir.WRITE
    assert get_cap(node, both, 48) == (0, struct.pack("<QQ", 5, 3) + b"\x5a" * 32)
    assert get_cap(node, both, 8)[1][:16] == struct.pack("<QQ", 5, 77)
    assert get_cap(node, Dir.WRITE, 16)[1][:16] == struct.pack("<QQ", 5, 77)
    error, answer = get_cap(node, Dir.READ, 16)
    assert (error, answer[:16]) == (errno.EOPNOTSUPP, bytes(16))
    assert get_cap(node, Dir.NONE, 0)[0] == errno.EOPNOTSUPP


def test_sign_extended_numbers(node: Node) -> None:
    args = drm.GetCap(capability=drm.Cap.PRIME)
    node.ioctl(drm.GET_CAP.number - (1 << 32), ctypes.addressof(args))
    assert args.value == 3


def test_wrong_type_and_unknown_numbers(node: Node) -> None:
    argument = ctypes.create_string_buffer(256)
    for number in (encode(Dir.NONE, "e", 0, 0), TCGETS, FIONREAD):
        with fails(errno.ENOTTY):
            raw(node, number, argument)
    for nr in (0x0E, 0x0F, 0x2F, 0x3D, 0x3E, 0xD3, 0xFF, 0x41, 0x9F):
        with fails(errno.EINVAL):
            raw(node, encode(Dir.READ | Dir.WRITE, "d", nr, 16), argument)


def test_unknown_number_is_found_before_a_bad_pointer(node: Node) -> None:
    with fails(errno.EINVAL):
        node.ioctl(encode(Dir.READ | Dir.WRITE, "d", 0xD3, 16), UNMAPPED)
    with fails(errno.EFAULT):
        node.ioctl(NUMBERS["SET_VERSION"][0], UNMAPPED)


def answer(node: Node, number: int) -> int:
    argument = ctypes.create_string_buffer(max(1, ioc_size(number)))
    try:
        return raw(node, number, argument)
    except OSError as error:
        return -(error.errno or 0)


ANSWERS: dict[str, tuple[int, int]] = {
    "VERSION": (0, 0),
    "GET_UNIQUE": (0, 0),
    "GET_MAGIC": (-errno.EACCES, -errno.EACCES),
    "GET_CLIENT": (0, 0),
    "GET_STATS": (0, 0),
    "GEM_CLOSE": (-errno.EINVAL, -errno.EINVAL),
    "GEM_FLINK": (-errno.ENOENT, -errno.EACCES),
    "GEM_OPEN": (-errno.ENOENT, -errno.EACCES),
    "GET_CAP": (-errno.EOPNOTSUPP, -errno.EOPNOTSUPP),
    "SET_CLIENT_CAP": (-errno.EOPNOTSUPP, -errno.EOPNOTSUPP),
    "SET_MASTER": (-errno.EINVAL, -errno.EACCES),
    "DROP_MASTER": (-errno.EINVAL, -errno.EACCES),
    "FINISH": (0, -errno.EACCES),
    "PRIME_HANDLE_TO_FD": (-errno.ENOENT, -errno.ENOENT),
    "PRIME_FD_TO_HANDLE": (-errno.EINVAL, -errno.EINVAL),
    "MODE_CREATE_DUMB": (-errno.ENOSYS, -errno.ENOSYS),
    "MODE_MAP_DUMB": (-errno.ENOSYS, -errno.ENOSYS),
    "MODE_DESTROY_DUMB": (-errno.ENOSYS, -errno.ENOSYS),
    "MODE_GETFB2": (-errno.EINVAL, -errno.EINVAL),
    "GEM_CHANGE_HANDLE": (-errno.EINVAL, -errno.EINVAL),
    "SET_CLIENT_NAME": (0, 0),
}
for _name, (_number, _flags) in NUMBERS.items():
    if _name in ("SYNCOBJ_CREATE", "SYNCOBJ_WAIT", "SYNCOBJ_TIMELINE_WAIT"):
        ANSWERS[_name] = (0, 0)
    elif _name in ("SYNCOBJ_TRANSFER", "SYNCOBJ_EVENTFD"):
        ANSWERS[_name] = (-errno.ENOENT, -errno.ENOENT)
    elif _name.startswith("SYNCOBJ_"):
        ANSWERS[_name] = (-errno.EINVAL, -errno.EINVAL)
    elif _flags & drm.Flag.MASTER:
        ANSWERS[_name] = (-errno.EACCES, -errno.EACCES)


@pytest.mark.parametrize("name", NUMBERS)
def test_answers_of_the_core_table(device: DrmDevice, name: str) -> None:
    for root in (True, False):
        with open_node(device, root=root) as node:
            number = NUMBERS[name][0]
            argument = ctypes.create_string_buffer(max(1, ioc_size(number)))
            try:
                got = node.ioctl(number, ctypes.addressof(argument), sys_admin=root)
            except OSError as error:
                got = -(error.errno or 0)
            assert got == ANSWERS[name][0 if root else 1], (name, root)


def test_answers_of_modeset_and_removed_numbers(node: Node, user: Node) -> None:
    for opened in (node, user):
        for numbers, expected in (
            (MODESET_NUMBERS, -errno.EOPNOTSUPP),
            (MODESET_MASTER_NUMBERS, -errno.EACCES),
            (UNHANDLED_NUMBERS, -errno.EINVAL),
        ):
            for name, number in numbers.items():
                assert answer(opened, number) == expected, name


def test_get_client_and_stats(node: Node, user: Node) -> None:
    args = call(node, drm.GET_CLIENT)
    assert (args.auth, args.pid, args.uid, args.magic, args.iocs) == (1, os.getpid(), 65534, 0, 0)
    assert call(user, drm.GET_CLIENT).auth == 0
    with fails(errno.EINVAL):
        call(node, drm.GET_CLIENT, idx=1)
    stats = drm.Stats(count=5)
    node.ioctl(drm.GET_STATS, ctypes.addressof(stats))
    assert bytes(stats) == bytes(248)


def test_get_unique_gives_an_empty_name(node: Node) -> None:
    assert call(node, drm.GET_UNIQUE, unique_len=9, unique=UNMAPPED).unique_len == 0


def set_name(node: Node, name: bytes) -> None:
    buffer = ctypes.create_string_buffer(name)
    call(node, drm.SET_CLIENT_NAME, name_len=len(name), name=ctypes.addressof(buffer))


def test_client_name(node: Node) -> None:
    set_name(node, b"hello")
    assert "drm-client-name:\thello\n" in node.fdinfo()
    for bad in (b"a b", b"a" * 65, b"a\0b", b"\x7f", b"\xc3\xa4"):
        with fails(errno.EINVAL):
            set_name(node, bad)
    with fails(errno.EFAULT):
        call(node, drm.SET_CLIENT_NAME, name_len=3, name=UNMAPPED)
    assert "drm-client-name:\thello\n" in node.fdinfo()
    set_name(node, b"b" * 64)
    call(node, drm.SET_CLIENT_NAME)
    assert "drm-client-name" not in node.fdinfo()


def test_root_only_looks_at_the_caller_now(node: Node, user: Node) -> None:
    args = Word()
    assert user.ioctl(ROOT_ONLY, ctypes.addressof(args), sys_admin=True) == 7
    with fails(errno.EACCES):
        node.ioctl(ROOT_ONLY, ctypes.addressof(args), sys_admin=False)


def test_output_is_copied_back_when_the_handler_fails(node: Node) -> None:
    args = Word(value=41)
    with fails(errno.EIO):
        node.ioctl(FAIL_LATE, ctypes.addressof(args))
    assert args.value == 42


def test_failing_copy_out_replaces_the_result(node: Node) -> None:
    libc = ctypes.CDLL(None)
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    assert libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, mmap.PROT_READ) == 0
    for declaration in (FAIL_LATE, drm.VERSION):
        with fails(errno.EFAULT):
            node.ioctl(declaration, address)
    assert (
        node.ioctl(drm.SET_CLIENT_CAP.number & ~0xFF | 0x06, address) == 0
    )  # GET_STATS, nothing to copy out


@pytest.mark.parametrize("address", [UNMAPPED, 1 << 47, 1 << 63, (1 << 64) - 4])
def test_wild_pointers_are_efault(node: Node, address: int) -> None:
    for declaration in (drm.VERSION, drm.GET_CAP, drm.GEM_CLOSE, CREATE_BO, FAIL_LATE):
        with fails(errno.EFAULT):
            node.ioctl(declaration, address)
    with fails(errno.EFAULT):
        call(node, NESTED, value=address)


def test_fionbio_read_and_the_other_calls(node: Node) -> None:
    on = ctypes.c_int(1)
    assert node.ioctl(FIONBIO, ctypes.addressof(on)) == 0
    for size in (0, 64):
        with fails(errno.EAGAIN):
            node.read(size)
    with fails(errno.EFAULT):
        node.ioctl(FIONBIO, UNMAPPED)
    with fails(errno.EINVAL):
        node.write(b"x")
    assert node.lseek(10) == node.lseek(0, os.SEEK_END) == 0
    assert node.poll() == 0


def test_fdinfo(node: Node, device: DrmDevice) -> None:
    keys = [line.split(":")[0] for line in node.fdinfo().splitlines()]
    assert keys == [
        *("pos", "flags", "mnt_id", "ino", "drm-driver", "drm-client-id"),
        *("drm-total-memory", "drm-shared-memory"),
    ]
    assert "flags:\t0100002\n" in node.fdinfo()
    assert "drm-total-memory:\t0\n" in node.fdinfo()
    first = create(node, 5000)
    create(node, 4096)
    assert "drm-total-memory:\t12 KiB\n" in node.fdinfo()
    name = call(node, drm.GEM_FLINK, handle=first.handle).name
    call(node, drm.GEM_OPEN, name=name)
    assert "drm-total-memory:\t20 KiB\n" in node.fdinfo()
    assert "drm-shared-memory:\t16 KiB\n" in node.fdinfo()
    create(node, (3 << 20) - 20 * 1024)
    assert "drm-total-memory:\t3 MiB\n" in node.fdinfo()
