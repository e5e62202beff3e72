# SPDX-License-Identifier: Apache-2.0
"""QEMU 11, stock kernels and an aarch64 Python from Debian's packages, unpacked without being installed
(qemu-vfio-user.md §3).

What was unpacked stays in ~/.cache/npubox/vm and vm-aarch64 ($NPUBOX_VM_CACHE).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.debian import Unavailable, cache_directory, through_loader, unpacked

SUITES = ("trixie", "trixie-backports")
PACKAGES = ("qemu-system-x86", "linux-image-cloud-amd64", "busybox-static")
ARM_HOST_PACKAGES = ("qemu-system-arm",)
ARM_GUEST_PACKAGES = ("linux-image-cloud-arm64", "busybox-static", "python3")
KERNEL_PACKAGES = ("linux-binary-", "linux-image-")


@dataclass(frozen=True)
class Packages:
    """Where things are: the unpacked file system with QEMU in it, the kernel, busybox."""

    root: Path
    kernel: Path

    @property
    def busybox(self) -> Path:
        return self.root / "usr/bin/busybox"

    def qemu(self) -> list[str]:
        """The start of QEMU's command line."""
        share = self.root / "usr/share"
        return [
            *through_loader(self.root, self.root / "usr/bin/qemu-system-x86_64"),
            *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
        ]


@dataclass(frozen=True)
class ArmPackages:
    """QEMU's unpacked file system, the guest's, its kernel."""

    host: Path
    guest: Path
    kernel: Path

    def qemu(self) -> list[str]:
        """The start of QEMU's command line."""
        return through_loader(self.host, self.host / "usr/bin/qemu-system-aarch64")


def obtain() -> Packages:
    """Download and unpack, unless that was done before. Raises Unavailable."""
    root = unpacked(_cache("vm"), SUITES, PACKAGES, wanted=_wanted)
    return Packages(root, _kernel(root))


def obtain_arm() -> ArmPackages:
    """As `obtain`, for a guest that runs Python on aarch64."""
    cache = _cache("vm-aarch64")
    host = unpacked(cache / "host", SUITES, ARM_HOST_PACKAGES)
    guest = unpacked(cache / "guest", SUITES[:1], ARM_GUEST_PACKAGES, wanted=_wanted, architecture="arm64")
    return ArmPackages(host, guest, _kernel(guest))


def _cache(name: str) -> Path:
    given = os.environ.get("NPUBOX_VM_CACHE")
    return cache_directory(name) if given is None else Path(given, name)


def _kernel(root: Path) -> Path:
    kernels = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
    if not kernels:
        raise Unavailable(f"the packages in {root} hold no kernel")
    return kernels[0]


def _wanted(archive: Path) -> bool:
    """Not the modules and the like, which are large."""
    return archive.name.startswith(KERNEL_PACKAGES) or not archive.name.startswith("linux-")
