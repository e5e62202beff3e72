# SPDX-License-Identifier: Apache-2.0
"""What a program does with device nodes, call by call, like strace but decoded: `npubox trace`.

One event is one call, one end of an open file, one job that the device finished, or one fault of
a device. Times are seconds since the trace began and host time; a job's are device time.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from npubox.tools.ioctls import Read, decode, name_of

RESTARTS = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}
"""What a tracer sees of a call that a signal interrupts; the program sees EINTR, or that it begins anew."""
ERRNO_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EAGAIN: "EAGAIN", **RESTARTS}
OPEN_FLAGS = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY")
ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")


@dataclass
class Event:
    """One line. `about` says what of; `fields` are the argument as the call began and `after` as it ended.
    `result` is the call's value, an errno's name, or None where the kernel carried it out."""

    time: float
    pid: int
    call: str
    about: dict[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    result: int | str | None = None
    microseconds: float | None = None

    def to_json(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value not in ({}, None)})

    def to_text(self) -> str:
        about = ", ".join(map(str, self.about.values()))
        if "fd" in self.about:
            about = about.replace(", ", "<", 1).replace(self.about["node"], self.about["node"] + ">", 1)
        line = f"{self.time:9.6f} [{self.pid}] {self.call}({about}{_braced(self.fields)})"
        if self.result is not None:
            line += f" = {self.result}"
        changed = {key: value for key, value in self.after.items() if self.fields.get(key) != value}
        if changed:
            line += f" →{_braced(changed).removeprefix(',')}"
        if self.microseconds is not None:
            line += f" <{self.microseconds:.0f} µs>"
        return line


class Tracer:
    """Turns calls into events and writes them, as text or as JSON lines."""

    def __init__(self, output: TextIO, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json
        self._start = time.monotonic()

    def now(self) -> float:
        return round(time.monotonic() - self._start, 6)

    def ioctl(self, pid: int, fd: int, node: str, request: int, address: int, read: Read) -> Event:
        fields = decode(request, address, read, ending=False)
        return Event(self.now(), pid, "ioctl", {"fd": fd, "node": node, "request": name_of(request)}, fields)

    def open(self, pid: int, path: str, flags: int) -> Event:
        names = [ACCESS[flags & os.O_ACCMODE], *(name for name in OPEN_FLAGS if _has(flags, name))]
        return Event(self.now(), pid, "open", {"path": path, "flags": "|".join(names)})

    def mmap(self, pid: int, fd: int, node: str, length: int, prot: int, flags: int, offset: int) -> Event:
        rights = [name for name in ("READ", "WRITE", "EXEC") if prot & getattr(mmap, f"PROT_{name}")]
        kind = "MAP_SHARED" if flags & mmap.MAP_SHARED else "MAP_PRIVATE"
        fields = {
            "length": length,
            "prot": "|".join(rights) or "NONE",
            "flags": kind,
            "offset": f"{offset:#x}",
        }
        return Event(self.now(), pid, "mmap", {"fd": fd, "node": node}, fields)

    def poll(self, pid: int, nodes: list[str]) -> Event:
        return Event(self.now(), pid, "poll", {"nodes": ", ".join(nodes)})

    def close(self, pid: int, fd: int, node: str) -> Event:
        return Event(self.now(), pid, "close", {"fd": fd, "node": node})

    def finish(self, event: Event, result: int | None, error: int) -> None:
        """The event is complete: write it."""
        event.result = ERRNO_NAMES.get(error, str(error)) if error else result
        event.microseconds = round((self.now() - event.time) * 1e6, 1)
        self.write(event)

    def released(self, path: str, client_id: int) -> None:
        self.write(Event(self.now(), 0, "release", {"node": path, "client": client_id}))

    def job(self, client_id: int, sequence: int, error: int, report: dict[str, Any] | None) -> None:
        """A job is over: what the device did, as the fields of a `JobReport`."""
        fields: dict[str, Any] = {"error": ERRNO_NAMES.get(error, error) if error else 0}
        if report is not None:
            start, end = report["start_ns"], report["end_ns"]
            fields |= {"cycles": report["cycles"], "device_start_ns": start, "device_ns": end - start}
            fields |= {"npu": report["npu"]} if "npu" in report else {}
            if report["fault"] is not None:
                fields["fault"] = report["fault"]
        self.write(Event(self.now(), 0, "job", {"client": client_id, "job": sequence}, fields))

    def message(self, node: str, sent: bool, name: str, fields: dict[str, Any]) -> None:
        """A message of a mailbox, between driver and firmware."""
        way = "to the firmware" if sent else "from the firmware"
        self.write(Event(self.now(), 0, "message", {"node": node, "way": way, "message": name}, fields))

    def fault(self, node: str, what: str, reason: str) -> None:
        """A part of a device stopped, which no call tells."""
        self.write(Event(self.now(), 0, "fault", {"node": node, "what": what, "reason": reason}))

    def note(self, text: str) -> None:
        self.write(Event(self.now(), 0, "note", {"text": text}))

    def write(self, event: Event) -> None:
        self._output.write((event.to_json() if self._as_json else event.to_text()) + "\n")
        self._output.flush()


def _has(flags: int, name: str) -> bool:
    bit = getattr(os, name)
    return bool(flags & bit == bit)


def _braced(fields: dict[str, Any]) -> str:
    return f", {_shown(fields)}" if fields else ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return "NULL" if value is None else str(value)
