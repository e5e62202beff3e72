# SPDX-License-Identifier: Apache-2.0
"""The host's nodes: the system calls arrive. No NPU is at hand here, so an ordinary file stands in."""

from __future__ import annotations

import ctypes
import errno
import mmap
from pathlib import Path

import pytest

from npubox.client.node import HostNode, open_node
from npubox.errors import DeviceError

FIONREAD = 0x541B  # on a file: the bytes from the position to its end
UNKNOWN = 0xC010_6440


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "node"
    file.write_bytes(bytes(8192))
    return file


def test_ioctl_takes_an_address(path: Path) -> None:
    node = HostNode.open(str(path))
    left = ctypes.c_int()
    assert node.ioctl(FIONREAD, ctypes.addressof(left)) == 0
    assert left.value == 8192
    with pytest.raises(OSError, match="Inappropriate ioctl") as caught:
        node.ioctl(UNKNOWN, ctypes.addressof(left))
    assert caught.value.errno == errno.ENOTTY
    with pytest.raises(OSError, match="Bad address"):
        node.ioctl(FIONREAD, 8)
    node.close()
    node.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        node.ioctl(FIONREAD, ctypes.addressof(left))


def test_mapping_outlives_the_node(path: Path) -> None:
    node = HostNode.open(str(path))
    mapping = node.mmap(4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, 4096)
    node.close()
    mapping[:4] = b"bits"
    assert path.read_bytes()[4096:4100] == b"bits"


def test_unknown_node() -> None:
    with pytest.raises(DeviceError, match="accel77"):
        open_node("/dev/accel/accel77")
