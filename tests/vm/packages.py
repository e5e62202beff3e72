# SPDX-License-Identifier: Apache-2.0
"""QEMU 11 and a stock kernel from Debian's packages, unpacked without being installed (qemu-vfio-user.md §3).

apt runs with state of its own, from the mirror that this machine's apt already uses; nothing needs root.
What was unpacked stays in ~/.cache/npubox/vm ($NPUBOX_VM_CACHE).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"
BACKPORTS = "trixie-backports"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("qemu-system-x86", "linux-image-cloud-amd64", "busybox-static")
KERNEL_PACKAGES = ("linux-binary-", "linux-image-")


class Unavailable(Exception):  # noqa: N818 - a state of affairs, which skips
    """Why there is no virtual machine here."""


@dataclass(frozen=True)
class Packages:
    """Where things are: the unpacked file system with QEMU in it, the kernel, busybox."""

    root: Path
    kernel: Path

    @property
    def busybox(self) -> Path:
        return self.root / "usr/bin/busybox"

    def qemu(self) -> list[str]:
        """The start of QEMU's command line: through the loader that it was built for."""
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        share = self.root / "usr/share"
        return [
            str(self.root / "usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path",
            f"{libraries}:{libraries}/pulseaudio",
            str(self.root / "usr/bin/qemu-system-x86_64"),
            *("-L", str(share / "qemu"), "-L", str(share / "seabios")),
        ]


def obtain() -> Packages:
    """Download and unpack, unless that was done before. Raises Unavailable."""
    if platform.machine() != "x86_64":
        raise Unavailable(f"the guest is x86-64, this machine {platform.machine()}")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "npubox/vm"
    cache = Path(os.environ.get("NPUBOX_VM_CACHE", default))
    complete = cache / "complete"
    if not complete.exists():
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        _unpack(_download(cache), cache / "root")
        shutil.rmtree(cache / "apt")
        complete.touch()
    root = cache / "root"
    kernels = [*root.glob("boot/vmlinuz-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
    if not kernels:
        raise Unavailable(f"the packages in {cache} hold no kernel")
    return Packages(root, kernels[0])


def _download(cache: Path) -> list[Path]:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"there is no {tool}")
    if not KEYRING.exists():
        raise Unavailable(f"there is no {KEYRING}: Debian's packages cannot be checked")
    apt = cache / "apt"
    for directory in ("lists/partial", "archives/partial"):
        (apt / directory).mkdir(parents=True)
    (apt / "status").touch()
    mirror = _mirror()
    suites = "".join(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in (SUITE, BACKPORTS))
    (apt / "sources.list").write_text(suites)
    settings = {
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "update"])
    options += ["-y", "--no-install-recommends", "--download-only", "-t", BACKPORTS]
    _run(["apt-get", *options, "install", *PACKAGES])
    return sorted((apt / "archives").glob("*.deb"))


def _mirror() -> str:
    """Where this machine's apt gets Debian's own packages from."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]).split()
    if not listed:
        raise Unavailable("apt knows no Debian mirror here: run apt-get update")
    return listed[0]


def _unpack(archives: list[Path], root: Path) -> None:
    root.mkdir()
    for archive in archives:
        if archive.name.startswith(KERNEL_PACKAGES) or not archive.name.startswith("linux-"):
            _run(["dpkg-deb", "-x", str(archive), str(root)])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
