# SPDX-License-Identifier: Apache-2.0
"""A guest of one program, in an initramfs with busybox, booted by QEMU without KVM (qemu-vfio-user.md §3)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.vm.packages import Packages

LIMIT = 300
"""Seconds after which a guest counts as stuck; it takes about 10."""
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/probe
/bin/busybox poweroff -f
"""
DIRECTORY, PROGRAM = 0o040755, 0o100755


def initramfs(busybox: bytes, probe: bytes) -> bytes:
    """A "newc" archive, uncompressed."""
    entries = [(name, DIRECTORY, b"") for name in ("bin", "dev", "proc", "sys")]
    entries += [("bin/busybox", PROGRAM, busybox), ("probe", PROGRAM, probe), ("init", PROGRAM, INIT)]
    archive = b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))
    return archive + _entry(0, "TRAILER!!!", 0, b"")


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def boot(packages: Packages, directory: Path, probe: Path, sockets: list[Path]) -> str:
    """Boot with a vfio-user device for each socket; what the guest wrote to its console."""
    initrd = directory / "initrd"
    initrd.write_bytes(initramfs(packages.busybox.read_bytes(), probe.read_bytes()))
    command = [
        *packages.qemu(),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-machine", "q35,accel=tcg,memory-backend=m0", "-m", "512M", "-smp", "1"),
        *("-object", "memory-backend-memfd,id=m0,size=512M,share=on"),
        *("-kernel", str(packages.kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 panic=-1 quiet"),
    ]
    for socket in sockets:
        device = {"driver": "vfio-user-pci", "socket": {"path": str(socket), "type": "unix"}}
        command += ["-device", json.dumps(device)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout
