# SPDX-License-Identifier: Apache-2.0
"""Between a launch and its tracer: which calls are about a node, and where their arguments are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npubox.serve import paths
from npubox.serve.bpf import MAP_ANONYMOUS
from npubox.serve.caller import CallMemory
from npubox.serve.execute import Launched
from npubox.serve.linux import AT_FDCWD
from npubox.serve.listener import Call
from npubox.serve.path_calls import signed
from npubox.serve.preset import PresetMachine
from npubox.serve.supervisor import Observer
from npubox.serve.syscalls import native
from npubox.tools.ioctls import decode, message_fields
from npubox.tools.trace import Event, Tracer


def watcher(output: Path | None, as_json: bool, mailbox: bool = False) -> Callable[[Launched], Observer]:
    """What makes the observer in the supervisor's process."""

    def make(launched: Launched) -> Observer:
        # The program may close or redirect its stderr; the trace goes where it went at the start.
        file = os.fdopen(os.dup(2), "w") if output is None else output.open("w", encoding="utf-8")
        return LaunchWatcher(launched, Tracer(file, as_json), mailbox)

    return make


class LaunchWatcher:
    """An `Observer`."""

    def __init__(self, launched: Launched, tracer: Tracer, mailbox: bool) -> None:
        self._launched = launched
        self._tracer = tracer
        self._names = {number: name for name, number in native().numbers.items()}
        self._events: dict[int, Event] = {}
        self._prefixes = tuple({f"{os.path.dirname(node.path)}/" for node in launched.machine.nodes})
        launched.machine.job_watcher = self._job_over
        if isinstance(launched.machine, PresetMachine):
            launched.machine.fault_watcher = self._fault
        if mailbox and isinstance(launched.machine, PresetMachine):
            launched.machine.message_watcher = self._message
        elif mailbox:
            tracer.note("a machine of `npubox serve` does not tell of its messages: trace with a preset")

    def received(self, call: Call) -> None:
        event = self._begin(call)
        if event is not None:
            self._events[call.id] = event

    def answering(self, call: Call, result: int | None, error: int) -> None:
        event = self._events.pop(call.id, None)
        if event is None:
            return
        if event.call == "ioctl":
            _, request, address = call.args[:3]
            event.after = decode(request, address, self._memory(call).read, ending=True)
        elif event.call == "open" and result is None and not error:
            event.after = {"by": "the kernel"}
        self._tracer.finish(event, result, error)

    def released(self, path: str, client_id: int) -> None:
        self._tracer.released(path, client_id)

    def _begin(self, call: Call) -> Event | None:
        name = self._names.get(call.number, "")
        match name:
            case "open" | "openat":
                return self._begin_open(call, name)
            case "ioctl":
                fd, request, address = call.args[:3]
                node = self._launched.handlers.node_path(call.tid, fd)
                if node is None:
                    return None
                return self._tracer.ioctl(
                    call.tid, signed(fd), node, request, address, self._memory(call).read
                )
            case "mmap":
                _, length, prot, flags, fd, offset = call.args
                node = None if flags & MAP_ANONYMOUS else self._launched.handlers.node_path(call.tid, fd)
                if node is None:
                    return None
                return self._tracer.mmap(call.tid, signed(fd), node, length, prot, flags, offset)
            case "poll" | "ppoll":
                return self._begin_poll(call)
        return None

    def _begin_open(self, call: Call, name: str) -> Event | None:
        directory, pointer, flags = call.args[:3] if name == "openat" else (AT_FDCWD, *call.args[:2])
        path = os.fsdecode(self._memory(call).read_string(pointer))
        path = paths.absolute(call.tid, signed(directory), path)
        return self._tracer.open(call.tid, path, flags) if path.startswith(self._prefixes) else None

    def _begin_poll(self, call: Call) -> Event | None:
        address, count = call.args[:2]
        data = self._memory(call).read(address, 8 * min(count, 8))
        fds = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 8)]
        ours = [node for fd in fds if (node := self._launched.handlers.node_path(call.tid, fd))]
        return self._tracer.poll(call.tid, ours) if ours else None

    def _message(self, node: str, sent: bool, name: str, payload: Any) -> None:
        """On any thread, under the device's lock: only take note."""
        fields = message_fields(payload)
        self._launched.supervisor.post(lambda: self._tracer.message(node, sent, name, fields))

    def _fault(self, node: str, what: str, reason: str) -> None:
        """On any thread: only take note."""
        self._launched.supervisor.post(lambda: self._tracer.fault(node, what, reason))

    def _memory(self, call: Call) -> CallMemory:
        return CallMemory(self._launched.listener, call)

    def _job_over(self, client_id: int, sequence: int, error: int, report: Any) -> None:
        """On any thread, under the device's lock: only take note."""
        fields = report if report is None or isinstance(report, dict) else asdict(report)
        self._launched.supervisor.post(lambda: self._tracer.job(client_id, sequence, error, fields))
