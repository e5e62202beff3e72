# SPDX-License-Identifier: Apache-2.0
"""What the four kinds of open files have in common: reference counts, and dispatch by command number.

    class BufferFile(EthosuFile):
        @command(uapi.BUFFER_SET, Copies.IN)
        def set(self, args: uapi.Buffer, caller: Caller) -> None: ...

A handler runs under the device's lock. It returns None or a result, or a `Pending` to wait without the
lock, or raises OSError. The direction bits of these numbers lie, so each command says what is copied.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.pending import Pending
from npubox.uapi.ioctl import NUMBER_MASK, Ioctl, StructT

if TYPE_CHECKING:
    from npubox.drivers.misc.ethosu.drv import EthosuDevice

FileT = TypeVar("FileT", bound="EthosuFile")
Result = int | None | Pending
Handler = Callable[[FileT, StructT, Caller], Result]


class Policy(StrEnum):
    """How bad calls are answered. `ORIGINAL` answers 0 to unknown commands and to most bad pointers, as
    Arm's driver of 2022.06 does (facts, ethosu-linux.md §1.6); `STRICT` answers ENOTTY and EFAULT."""

    STRICT = "strict"
    ORIGINAL = "original"


class Copies(IntFlag):
    """What is copied of a command's argument; a fault of an `OUT_UNCHECKED` one is 0 in the original."""

    NONE = 0
    IN = 1
    OUT = 2
    OUT_UNCHECKED = 4


@dataclass(frozen=True)
class Command:
    """One row of a kind of file's table."""

    declaration: Ioctl[Any]
    copies: Copies
    handler: Callable[..., Result]


def command(
    declaration: Ioctl[StructT], copies: Copies = Copies.NONE
) -> Callable[[Handler[FileT, StructT]], Handler[FileT, StructT]]:
    """Bind a method of an EthosuFile to a command number."""

    def bind(handler: Handler[FileT, StructT]) -> Handler[FileT, StructT]:
        handler.__ethosu_command__ = Command(declaration, copies, handler)  # type: ignore[attr-defined]
        return handler

    return bind


@dataclass(eq=False)
class Client:
    """An open of the node, and what was made from it: its number, and how many runs it has begun."""

    id: int
    runs: int = 0


class EthosuFile(OpenFile):
    """An object of a device behind a descriptor. It lives until its last reference is dropped: the
    descriptor holds one, and so does whatever else `get`s one, under the device's lock."""

    commands: ClassVar[Mapping[int, Command]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        rows = (getattr(member, "__ethosu_command__", None) for member in vars(cls).values())
        cls.commands = {row.declaration.number: row for row in rows if isinstance(row, Command)}

    def __init__(self, device: EthosuDevice, client: Client) -> None:
        self.device = device
        self.client = client
        self.client_id = client.id
        self._references = 1
        device.get()

    def get(self) -> None:
        self._references += 1

    def put(self) -> None:
        self._references -= 1
        if self._references == 0:
            self.free()
            self.device.put()

    def free(self) -> None:
        """The last reference is gone. Under the device's lock."""

    def release(self) -> None:
        with self.device.lock:
            self.put()

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        row = self.commands.get(request & NUMBER_MASK)
        if row is None:
            return self._bad_call(OSError(errno.ENOTTY, f"{self.link} has no command {request:#010x}"))
        args = row.declaration.struct()
        if row.copies & Copies.IN:
            try:
                args = type(args).from_buffer_copy(caller.memory.read(address, ctypes.sizeof(args)))
            except OSError as error:
                return self._bad_call(error)
        with self.device.lock:
            self.device.check_present()
            result = row.handler(self, args, caller)
        if isinstance(result, Pending):
            result.on_finish(lambda error: None if error else self._copy_out(row, args, address, caller))
            return result
        self._copy_out(row, args, address, caller)
        return result or 0

    def _copy_out(self, row: Command, args: ctypes.Structure, address: int, caller: Caller) -> None:
        if not row.copies & (Copies.OUT | Copies.OUT_UNCHECKED):
            return
        try:
            caller.memory.write(address, bytes(args))
        except OSError as error:
            if row.copies & Copies.OUT:
                raise
            self._bad_call(error)

    def _bad_call(self, error: OSError) -> int:
        """What a call is answered that the original takes without a word."""
        if self.device.policy is Policy.ORIGINAL:
            return 0
        raise error
