# SPDX-License-Identifier: Apache-2.0
"""`npubox exec`: a program and its supervisor, from the first fork to the last release."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from npubox.core.nodes import ACCEL_CLASS, NodeInfo
from npubox.errors import DeviceError
from npubox.serve import launch, syscalls
from npubox.serve.front import SIGNALS, Front
from npubox.serve.handlers import NodeHandlers
from npubox.serve.launch import Wish
from npubox.serve.listener import Listener
from npubox.serve.machine import ServedMachine
from npubox.serve.numbers import Numbers
from npubox.serve.paths import Namespaced, Rewritten
from npubox.serve.supervisor import Observer, Supervisor
from npubox.serve.sysfs import LiveAttributes, write_tree
from npubox.serve.workspace import Tree


@dataclass(frozen=True)
class Launched:
    """The parts of a launch, for whoever watches it."""

    listener: Listener
    supervisor: Supervisor
    handlers: NodeHandlers
    machine: ServedMachine


@dataclass(frozen=True)
class Request:
    """What to run on what. `machine` and `watch` are called in the supervisor's process."""

    command: Sequence[str]
    machine: Callable[[], ServedMachine]
    wish: Wish = field(default_factory=Wish)
    watch: Callable[[Launched], Observer] | None = None


def execute(request: Request) -> int:
    """Run the program to its end; its exit code. Does not return where a signal kills it."""
    arch = syscalls.native()
    if launch.inside():
        # The outer launch serves this program as well; a second supervisor is not possible.
        os.execvp(request.command[0], list(request.command))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    supervisor = os.fork()
    if supervisor == 0:
        ours.close()
        _supervise(request, arch, theirs)
    theirs.close()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    return Front(ours, supervisor).run()


def _supervise(request: Request, arch: syscalls.Arch, front: socket.socket) -> None:
    """In the supervisor's process: never returns."""
    status = 1
    try:
        _serve(request, arch, front)
        status = 0
    except (DeviceError, OSError) as error:
        print(f"npubox: {error}", file=sys.stderr)
        _tell(front, ended=launch.NOT_EXECUTABLE << 8)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _serve(request: Request, arch: syscalls.Arch, front: socket.socket) -> None:
    machine = request.machine()
    tree = Tree()
    try:
        write_tree(tree.path, machine.nodes)
        machine.attribute_watcher = LiveAttributes(tree.path).update
        shown = {node: node for node in machine.nodes}
        if request.wish.card0:
            shown |= _card0(machine.nodes)
        nodes = tuple(shown)
        program = launch.start(request.command, tree.path, nodes, arch, request.wish)
        _tell(front, pid=program.pid)
        _settle()
        listener = Listener(program.listener)
        child = _Child(program, front)
        supervisor = Supervisor(
            listener,
            {
                child.descriptor: child.changed,
                program.failure.fileno(): child.failed,
                front.fileno(): child.orphaned,
            },
        )
        seccomp_only = program.tier is launch.Tier.SECCOMP
        resolver = Rewritten(nodes, tree.path) if seccomp_only else Namespaced(nodes)
        path_calls = program.tier is not launch.Tier.NAMESPACE
        handlers = NodeHandlers(
            listener,
            supervisor,
            machine,
            shown,
            arch,
            resolver,
            path_calls,
            Numbers(listener, request.wish.files),
        )
        watch = request.watch
        supervisor.use(handlers, watch(Launched(listener, supervisor, handlers, machine)) if watch else None)
        events = machine.events()
        if events is not None:
            supervisor.attend(*events)
        supervisor.run()
        child.failed()
        child.reap()
        handlers.close()
    finally:
        machine.close()
        tree.close()


def _card0(nodes: Sequence[NodeInfo]) -> dict[NodeInfo, NodeInfo]:
    """The first accel node under the name of a DRM card."""
    accel = next((node for node in nodes if node.subsystem == ACCEL_CLASS), None)
    if accel is None:
        raise DeviceError("the machine has no accel node to show as /dev/dri/card0")
    return {replace(accel, path="/dev/dri/card0"): accel}


def _settle() -> None:
    """Terminal and pipes are the program's; only its errors are ours to write. We need descriptors."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        # A program's calls wait for us: not for our turn among the host's other processes too. Threads and
        # processes that we start are ordinary again.
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _tell(front: socket.socket, **message: int) -> None:
    (what,) = message.items()
    with contextlib.suppress(OSError):
        front.send("{} {}".format(*what).encode())


class _Child:
    """The launched program as its parent sees it."""

    def __init__(self, program: launch.Program, front: socket.socket) -> None:
        self._program = program
        self._front = front
        self._ended = False
        self.descriptor, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.write(self._writer, b"\0")  # it may have ended before anybody listened

    def changed(self) -> bool:
        """SIGCHLD: tell the front. The supervisor goes on as long as anybody is left to serve."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        while not self._ended:
            pid, status = os.waitpid(self._program.pid, os.WNOHANG | os.WUNTRACED)
            if not pid:
                break
            if os.WIFSTOPPED(status):
                _tell(self._front, stopped=os.WSTOPSIG(status))
            else:
                self._end(status)
        return not self._ended

    def failed(self) -> bool:
        """The program could not be executed, or (end of file) was."""
        message = b""
        with contextlib.suppress(BlockingIOError):
            message = self._program.failure.recv(4096, socket.MSG_DONTWAIT)
        if message:
            print(f"npubox: {message.decode()}", file=sys.stderr, flush=True)
        return False

    def orphaned(self) -> bool:
        """The front was killed, so its program shall be."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._program.pid, signal.SIGKILL)
        return False

    def reap(self) -> None:
        if not self._ended:
            self._end(os.waitpid(self._program.pid, 0)[1])

    def _end(self, status: int) -> None:
        self.failed()  # perhaps at the same time; and standard error is ours no longer
        self._ended = True
        _tell(self._front, ended=status)
        os.dup2(0, 2)
