# SPDX-License-Identifier: Apache-2.0
"""What a pointer in an ioctl's argument leads to."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass


@dataclass(frozen=True)
class Pointer:
    """`count` names the field with the number of elements, None for one. `struct` None is text or bytes.

    `written` says that the driver fills it: then it is shown as the call ends, else as it begins.
    """

    struct: type[ctypes.Structure] | None
    count: str | None
    written: bool = False
    text: bool = False
