# SPDX-License-Identifier: Apache-2.0
"""What of this host a launch can use, found out by trying, each thing in a process of its own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from npubox.core import libc
from npubox.core.nodes import accel_node
from npubox.core.store import Store
from npubox.errors import DeviceError
from npubox.serve import bpf, linux, namespace, syscalls
from npubox.serve.listener import NOTIF_SET_FLAGS, SYNC_WAKE_UP
from npubox.serve.sysfs import write_tree
from npubox.serve.workspace import OpenNames

FLOOR, RACE_FREE = (5, 19), (6, 18)
NEVER = (
    "a program that is set-user-id gains nothing where the launch may not gain privileges itself",
    "32-bit and x32 programs are not served: their calls reach the host's kernel",
    "a node opened through io_uring is not served (ENXIO, or a plain file without a namespace)",
    "a descriptor passed to a process outside the launch maps, but its ioctls answer ENOTTY",
    "a program with a seccomp listener of its own cannot run inside a launch (EBUSY)",
    "a program that is not dumpable or not readable is served only by a supervisor of root's",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was tried; `problem` None if it works."""

    name: str
    problem: str | None
    needed: bool = True


def examine() -> Iterator[Finding]:
    """Everything in the order in which a launch needs it."""
    release = os.uname().release
    yield Finding("kernel 5.19 or newer", None if _version(release) >= FLOOR else f"this is {release}")
    yield Finding(
        "no race between an answer and a signal (6.18, or a stable kernel from October 2025 on)",
        None if _version(release) >= RACE_FREE else f"this is {release}: a call may be carried out twice",
        needed=False,
    )
    try:
        arch = syscalls.native()
        yield Finding(f"architecture {arch.name}", None if arch is syscalls.X86_64 else "never tested", False)
    except DeviceError as error:
        yield Finding("architecture", str(error))
        return
    yield Finding("seccomp user notification", _attempt(_listen))
    yield Finding("prompt wake-up of the supervisor (Linux 6.6)", _attempt(_prompt), needed=False)
    yield Finding("a program's memory and descriptors can be reached", _attempt(_reach))
    yield Finding("buffer objects in a file that can be linked and watched", _attempt(_store))
    yield Finding("a mount namespace with overlays of /sys (tier A)", _in_tree(_namespace), needed=False)
    yield Finding("device nodes can be made in it", _in_tree(_nodes), needed=False)


def conclusion(findings: list[Finding]) -> str:
    """Which tier a launch will take, in one sentence."""
    if any(finding.needed and finding.problem for finding in findings):
        return "device nodes cannot be served here; virtual machines within a Python process still work"
    namespaces, nodes = (finding.problem for finding in findings[-2:])
    if namespaces:
        return (
            "launches take tier B: paths are answered by the supervisor, which slows every open and stat down"
        )
    if nodes:
        return "launches take tier A in a user namespace: stat of a path is answered by the supervisor"
    return "launches take tier A: paths are served by a mount namespace"


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release)[:2])


def _attempt(what: Callable[[], None]) -> str | None:
    """Why it fails in a child, None if it does not."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            what()
        except BaseException as error:
            os.write(writer, str(error).encode()[:4000] or b"failed")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as output:
        problem = output.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return problem or None


def _in_tree(what: Callable[[Path], None]) -> str | None:
    """As `_attempt`, with a directory. The child mounts on it, so only its parent may remove it."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        return _attempt(lambda: what(Path(directory)))


def _filter() -> int:
    # No ioctl has this type byte: the child is not stopped by its own filter.
    program = bpf.assemble(bpf.Profile(ioctl_types=(0xFE,)), syscalls.native())
    try:
        return linux.install_filter(program)
    except PermissionError:
        linux.no_new_privileges()
        return linux.install_filter(program)


def _listen() -> None:
    _filter()


def _prompt() -> None:
    fcntl.ioctl(_filter(), NOTIF_SET_FLAGS, SYNC_WAKE_UP)


def _reach() -> None:
    reader, writer = os.pipe()
    secret = ctypes.create_string_buffer(b"npubox")
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        os.readlink(f"/proc/{child}/fd/{reader}")
        os.listdir(f"/proc/{child}/root/")
        window = libc.Window()
        if window.read(child, ctypes.addressof(secret), 6) != b"npubox":
            raise OSError("process_vm_readv is refused")
        if not window.write(child, ctypes.addressof(secret), b"xobupn"):
            raise OSError("process_vm_writev is refused")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _store() -> None:
    store = Store()
    names = OpenNames(store.directory, lambda _: None)
    try:
        name, fd = names.open(names.link(store.fd), os.O_RDWR)
        shown = os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        if shown != name:
            raise OSError(f"an open file is called {shown!r} instead of {name!r}")
        if list(names.closed()) != [name]:
            raise OSError("inotify does not tell of the last close")
    finally:
        names.close()
        store.close()


def _enter(tree: Path) -> None:
    node = accel_node("/dev/accel/accel0", "npubox.doctor", (), "doctor")
    write_tree(tree, [node])
    namespace.enter(tree, [node])


def _namespace(tree: Path) -> None:
    _enter(tree)
    if Path("/sys/class/accel/accel0/dev").read_text() != "261:0\n":
        raise OSError("/sys does not show the node")


def _nodes(tree: Path) -> None:
    _enter(tree)
    if not os.path.exists("/dev/accel/accel0"):
        raise OSError("/dev does not show the node")
    if not Path("/dev/accel/accel0").is_char_device():
        raise OSError("only root may make them")
