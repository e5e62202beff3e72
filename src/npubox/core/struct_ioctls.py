# SPDX-License-Identifier: Apache-2.0
"""ioctls of files outside DRM, which go by the exact number and copy the exact struct.

Unlike DRM's dispatch (`npubox.core.drm.ioctl`) they copy nothing back when they fail.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from typing import Any

from npubox.core.caller import Caller
from npubox.core.pending import Pending
from npubox.uapi.ioctl import NUMBER_MASK, Dir, Ioctl, ioc_dir

Handler = Callable[[Any, Any, Caller], int | Pending | None]


class Ioctls:
    """A table of declarations with the methods that answer them: `method(file, args, caller)`."""

    def __init__(self, *rows: tuple[Ioctl[Any], Handler]) -> None:
        self._rows = {declaration.number: (declaration, handler) for declaration, handler in rows}

    def call(self, file: object, request: int, address: int, caller: Caller) -> int | Pending:
        """Carry out one ioctl; OSError ENOTTY for a number that is not in the table, EFAULT."""
        row = self._rows.get(request & NUMBER_MASK)
        if row is None:
            raise OSError(errno.ENOTTY, f"ioctl {request & NUMBER_MASK:#010x} is not one of this file's")
        declaration, handler = row
        size, direction, memory = (
            ctypes.sizeof(declaration.struct),
            ioc_dir(declaration.number),
            caller.memory,
        )
        data = memory.read(address, size) if direction & Dir.WRITE else bytes(size)
        if direction & Dir.READ:
            # Whoever cannot be told the number of a new descriptor must not get the descriptor.
            memory.write(address, data)
        args = declaration.struct.from_buffer_copy(data)
        result = handler(file, args, caller)
        if isinstance(result, Pending):
            return result
        if direction & Dir.READ:
            memory.write(address, bytes(args))
        return result or 0
