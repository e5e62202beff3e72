# SPDX-License-Identifier: Apache-2.0
"""Programs of aarch64 on the nodes of a launch, under a stock Debian kernel in QEMU.

Downloads packages, so only `make test-vm` runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import Unavailable
from tests.serve import test_rules, test_shared_buffers
from tests.serve.conftest import CLIENTS, SOURCE
from tests.vm.guest import Entry, boot_arm, folder, initramfs, link, program, tree
from tests.vm.packages import ArmPackages, obtain_arm

COMPILER = "aarch64-linux-gnu-gcc"
PURE = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "py.py")
"""What tests/ imports of the packages beside it."""
INIT = b"""#!/bin/busybox sh
export PATH=/usr/bin PYTHONPATH=/npubox/src:/npubox/packages
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir /dev/shm
busybox mount -t tmpfs shm /dev/shm
busybox mount -t tmpfs tmp /tmp
cd /npubox
busybox sh commands
busybox poweroff -f
"""
FULL = "--full"
OPTIONS = ("", FULL, "--tier=B")
SHARED = tuple(test_shared_buffers.PRINTED)

pytestmark = pytest.mark.skipif(
    "NPUBOX_TEST_VM" not in os.environ, reason="downloads packages: run make test-vm"
)


@pytest.fixture(scope="module")
def packages() -> ArmPackages:
    try:
        return obtain_arm()
    except Unavailable as why:
        pytest.skip(f"no virtual machine here: {why}")


@pytest.fixture(scope="module")
def outputs(packages: ArmPackages, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each program printed, by its name and option, and what was left of it."""
    directory = tmp_path_factory.mktemp("guest")
    compiled = _compiled(directory)
    named = [
        (f"{what} {FULL}", FULL, f"/usr/bin/python3 tests/clients/shared_buffers.py {what}")
        for what in SHARED
    ]
    if compiled is not None:
        named += [
            (f"rules {option}", option, "./rules full" if option == FULL else "./rules") for option in OPTIONS
        ]
    script = "".join(
        f"echo '@{name}'\n"
        f"python3 -m tests.serve.counted /tmp/report --preset=refaccel {option} -- {command}\n"
        f'echo "@left $? $(busybox cat /tmp/report)"\n'
        for name, option, command in named
    )
    entries = [*_system(packages.guest), program("npubox/commands", script.encode())]
    if compiled is not None:
        entries.append(program("npubox/rules", compiled.read_bytes()))
    initrd = directory / "initrd"
    initrd.write_bytes(initramfs(entries))
    console = boot_arm(packages, initrd).replace("\r\n", "\n")
    found: dict[str, str] = {}
    last = ""
    for title, _, text in (section.partition("\n") for section in f"\n{console}".split("\n@")):
        if title.startswith("left "):
            found[f"left by {last}"] = title.removeprefix("left ")
        else:
            last = title
            found[title] = text
    return found


def _compiled(directory: Path) -> Path | None:
    if shutil.which(COMPILER) is None:
        return None
    target = directory / "rules"
    subprocess.run([COMPILER, "-static", "-O1", "-o", target, CLIENTS / "rules.c"], check=True)
    return target


def _system(guest: Path) -> Iterator[Entry]:
    yield from map(folder, ("dev", "proc", "sys", "tmp", "root", "opt", "npubox"))
    for name in ("bin", "lib", "lib64"):
        yield link(name, f"usr/{name}")
    yield from tree(guest / "usr", "usr", lambda path: path.name not in ("share", "modules", "include"))
    yield from tree(SOURCE, "npubox/src", _no_cache)
    yield from tree(SOURCE.parent / "tests", "npubox/tests", _no_cache)
    packages = Path(pytest.__file__).parents[1]
    yield folder("npubox/packages")
    for name in PURE:
        path = packages / name
        if path.is_dir():
            yield from tree(path, f"npubox/packages/{name}", _no_cache)
        else:
            yield program(f"npubox/packages/{name}", path.read_bytes())
    yield program("init", INIT)


def _no_cache(path: Path) -> bool:
    return path.name != "__pycache__"


@pytest.mark.parametrize("what", SHARED)
def test_dma_bufs(outputs: dict[str, str], what: str) -> None:
    """Mappings of dma-bufs are made by the calling thread itself, led there with ptrace."""
    assert outputs[f"{what} {FULL}"] + "\n" == test_shared_buffers.PRINTED[what]
    assert outputs[f"left by {what} {FULL}"].startswith('0 {"files": 0, "objects": 0, "bytes": 0,')


@pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"needs {COMPILER}: apt install gcc-aarch64-linux-gnu"
)
@pytest.mark.parametrize("option", OPTIONS)
def test_each_call(outputs: dict[str, str], option: str) -> None:
    wanted = (
        test_rules.EXPECTED + test_rules.FULL.lstrip()
        if option == FULL
        else "\n".join(test_rules.by_default())
    )
    # Linux has another number for O_LARGEFILE there.
    wanted = wanted.strip().replace("F_GETFL: 0104002", "F_GETFL: 0404002")
    assert outputs[f"rules {option}"] == wanted
