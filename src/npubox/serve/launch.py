# SPDX-License-Identifier: Apache-2.0
"""Starting a program under a supervisor.

Three processes: the one people see waits and passes signals on (`front`); below it the supervisor, out
of reach of the terminal; below that the program, in the process group of the first, so that terminal,
job control and stdio are its own. The supervisor is the program's ancestor because some hosts let only
an ancestor read a program's memory.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from npubox.core.nodes import NodeInfo
from npubox.errors import DeviceError
from npubox.serve import bpf, linux, namespace
from npubox.serve.syscalls import Arch

NOT_FOUND, NOT_EXECUTABLE = 127, 126
MARK = "NPUBOX_LAUNCH"  # in the environment of programs that are served already


class Tier(Enum):
    """How paths are served."""

    NAMESPACE = "A"
    USER_NAMESPACE = "A, in a user namespace"
    SECCOMP = "B"


@dataclass(frozen=True)
class Program:
    """A program that has been started: its process, its listener, its tier."""

    pid: int
    listener: int
    tier: Tier
    failure: socket.socket
    """Tells why the program could not be executed; closes when it was."""


@dataclass(frozen=True)
class Wish:
    """What a launch asks of the filter beyond its tier's needs; with `card0` the first accel node is
    /dev/dri/card0 as well, for programs that know nothing of accel."""

    all_opens: bool = False
    files: bool = False
    seccomp_only: bool = False
    card0: bool = False


def inside() -> bool:
    """Whether this process is a program of a launch already."""
    if MARK not in os.environ:
        return False
    with open("/proc/self/status", "rb") as status:
        return b"\nSeccomp:\t2" in status.read()


def start(command: Sequence[str], tree: Path, nodes: Sequence[NodeInfo], arch: Arch, wish: Wish) -> Program:
    """Fork, prepare and execute `command`. Raises DeviceError where no filter can be had."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become(command, tree, nodes, arch, wish, theirs)
    theirs.close()
    message, fds, _, _ = socket.recv_fds(ours, 4096, 1)
    if not fds:
        os.waitpid(pid, 0)
        raise DeviceError(message.decode() or "the launch died before its program started")
    # Were the device's process to inherit the listener, callers would go on waiting when we are dead.
    os.set_inheritable(fds[0], False)
    return Program(pid, fds[0], Tier(message.decode()), ours)


def _become(
    command: Sequence[str],
    tree: Path,
    nodes: Sequence[NodeInfo],
    arch: Arch,
    wish: Wish,
    channel: socket.socket,
) -> None:
    """In the child: never returns."""
    try:
        tier = _enter(tree, nodes, wish)
        profile = bpf.Profile(
            ioctl_types=tuple(sorted({type_ for node in nodes for type_ in node.ioctl_types})),
            paths=tier is Tier.SECCOMP,
            path_stat=tier is not Tier.NAMESPACE,
            all_opens=wish.all_opens,
            files=wish.files,
        )
        program = bpf.assemble(profile, arch)
        environment = {**os.environ, MARK: "1"}
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, programs do not
            signal.signal(number, signal.SIG_DFL)
        listener = _install(program)
    except BaseException as error:
        channel.send(_why(error).encode())
        os._exit(NOT_EXECUTABLE)
    # From here on only calls that the filter lets pass: nobody serves before the listener has arrived.
    try:
        channel.sendmsg(
            [tier.value.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))]
        )
        os.close(listener)
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        with contextlib.suppress(OSError):
            channel.send(f"cannot run {command[0]}: {error.strerror}".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _enter(tree: Path, nodes: Sequence[NodeInfo], wish: Wish) -> Tier:
    if wish.seccomp_only:
        return Tier.SECCOMP
    root = os.geteuid() == 0
    try:
        namespace.enter(tree, nodes)
    except OSError:
        return Tier.SECCOMP
    return Tier.NAMESPACE if root else Tier.USER_NAMESPACE


def _install(program: bytes) -> int:
    """With the privilege to do so the program may gain privileges itself; else it must not."""
    try:
        return linux.install_filter(program)
    except PermissionError:
        linux.no_new_privileges()
        return linux.install_filter(program)


def _why(error: BaseException) -> str:
    import errno

    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return (
            "this process already runs under a seccomp supervisor (another `npubox exec`, or a container's "
            "runtime), and the kernel allows one only; `npubox doctor` tells more"
        )
    return f"device nodes cannot be served here: {error}; `npubox doctor` tells why"
