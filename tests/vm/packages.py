# SPDX-License-Identifier: Apache-2.0
"""QEMU 11 and a stock kernel from Debian's packages, unpacked without being installed (qemu-vfio-user.md §3).

What was unpacked stays in ~/.cache/npubox/vm ($NPUBOX_VM_CACHE).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.debian import Unavailable, cache_directory, through_loader, unpacked

SUITES = ("trixie", "trixie-backports")
PACKAGES = ("qemu-system-x86", "linux-image-cloud-amd64", "busybox-static")
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


def obtain() -> Packages:
    """Download and unpack, unless that was done before. Raises Unavailable."""
    cache = Path(os.environ.get("NPUBOX_VM_CACHE", cache_directory("vm")))
    root = unpacked(cache, SUITES, PACKAGES, wanted=_wanted)
    kernels = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
    if not kernels:
        raise Unavailable(f"the packages in {cache} hold no kernel")
    return Packages(root, kernels[0])


def _wanted(archive: Path) -> bool:
    """Not the modules and the like, which are large."""
    return archive.name.startswith(KERNEL_PACKAGES) or not archive.name.startswith("linux-")
