# SPDX-License-Identifier: Apache-2.0
"""Guests in an initramfs with busybox, booted by QEMU without KVM (qemu-vfio-user.md §3)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.vm.packages import ArmPackages, Packages

LIMIT = 300
"""Seconds after which a guest counts as stuck; it takes about 10, one with Python a minute."""
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/probe
/bin/busybox poweroff -f
"""
DIRECTORY, PROGRAM, LINK = 0o040755, 0o100755, 0o120777
Entry = tuple[str, int, bytes]
"""Path, mode, and contents or a link's target."""


def folder(name: str) -> Entry:
    return name, DIRECTORY, b""


def program(name: str, data: bytes) -> Entry:
    return name, PROGRAM, data


def link(name: str, target: str) -> Entry:
    return name, LINK, target.encode()


def tree(root: Path, name: str, wanted: Callable[[Path], bool] = lambda path: True) -> Iterator[Entry]:
    """A directory as `name`, with what of it is `wanted`."""
    yield folder(name)
    for path in sorted(root.iterdir()):
        inside = f"{name}/{path.name}"
        if not wanted(path):
            continue
        if path.is_symlink():
            yield link(inside, os.readlink(path))
        elif path.is_dir():
            yield from tree(path, inside, wanted)
        else:
            yield program(inside, path.read_bytes())


def initramfs(entries: Iterable[Entry]) -> bytes:
    """A "newc" archive, uncompressed. Directories come before what is in them."""
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
    entries = [folder(name) for name in ("bin", "dev", "proc", "sys")]
    entries.append(program("bin/busybox", packages.busybox.read_bytes()))
    entries += [program("probe", probe.read_bytes()), program("init", INIT)]
    initrd.write_bytes(initramfs(entries))
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
    return _console(command)


def boot_arm(packages: ArmPackages, initrd: Path) -> str:
    """Boot an aarch64 guest; what it wrote to its console."""
    command = [
        *packages.qemu(),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-machine", "virt", "-accel", "tcg", "-cpu", "cortex-a72", "-m", "1500M", "-smp", "2"),
        *("-kernel", str(packages.kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyAMA0 panic=-1 quiet"),
    ]
    return _console(command)


def _console(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout
