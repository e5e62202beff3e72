# SPDX-License-Identifier: Apache-2.0
"""Debian's packages, unpacked without being installed.

apt runs with state of its own, from the mirror that this machine's apt already uses; nothing needs root.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NETWORK_PATIENCE = 20
"""Seconds that apt waits for a mirror which does not answer."""


class Unavailable(Exception):  # noqa: N818 - a state of affairs, which skips
    """Why the packages are not to be had here."""


def cache_directory(name: str) -> Path:
    """Where what was unpacked stays."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "npubox" / name


def unpacked(
    cache: Path,
    suites: Sequence[str],
    packages: Sequence[str],
    *,
    wanted: Callable[[Path], bool] = lambda archive: True,
    architecture: str = "amd64",
) -> Path:
    """The directory with the packages and all that they depend on, as far as `wanted`, downloaded unless that
    was done before; `versions` beside it lists their files. The last of `suites` is preferred.

    Raises Unavailable.
    """
    if platform.machine() != "x86_64":
        raise Unavailable(f"the packages are for x86-64, this machine is {platform.machine()}")
    root = cache / "root"
    complete = cache / "complete"
    if not complete.exists():
        shutil.rmtree(cache, ignore_errors=True)
        root.mkdir(parents=True)
        archives = _download(cache / "apt", suites, packages, architecture)
        for archive in filter(wanted, archives):
            _run(["dpkg-deb", "-x", str(archive), str(root)])
        (cache / "versions").write_text("".join(f"{archive.stem}\n" for archive in archives))
        shutil.rmtree(cache / "apt")
        complete.touch()
    return root


def version(cache: Path, package: str) -> str:
    """The version of an unpacked package."""
    for line in (cache / "versions").read_text().splitlines():
        name, version_, _ = line.split("_")
        if name == package:
            return version_.replace("%3a", ":")
    raise Unavailable(f"{package} is not among the packages in {cache}")


def through_loader(root: Path, program: Path) -> list[str]:
    """How to start a program of unpacked packages: through the loader and the libraries it was built for."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    return [
        *(str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path"),
        *(f"{libraries}:{libraries}/pulseaudio", str(program)),
    ]


def _download(apt: Path, suites: Sequence[str], packages: Sequence[str], architecture: str) -> list[Path]:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"there is no {tool}")
    if not KEYRING.exists():
        raise Unavailable(f"there is no {KEYRING}: Debian's packages cannot be checked")
    for directory in ("lists/partial", "archives/partial"):
        (apt / directory).mkdir(parents=True)
    (apt / "status").touch()
    mirror = _mirror()
    lines = "".join(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in suites)
    (apt / "sources.list").write_text(lines)
    settings = {
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": NETWORK_PATIENCE,
        "Acquire::Retries": 1,
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "--error-on=any", "update"])
    options += ["-y", "--no-install-recommends", "--download-only", "-t", suites[-1]]
    _run(["apt-get", *options, "install", *packages])
    return sorted((apt / "archives").glob("*.deb"))


def _mirror() -> str:
    """Where this machine's apt gets Debian's own packages from."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]).split()
    if not listed:
        raise Unavailable("apt knows no Debian mirror here: run apt-get update")
    return listed[0]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
