# SPDX-License-Identifier: Apache-2.0
"""Who makes a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from npubox.core.usermem import UserMemory

if TYPE_CHECKING:
    from npubox.core.file import OpenFile

CAP_SYS_ADMIN = 21
INITIAL_USER_NAMESPACE = "user:[4026531837]"


class Descriptors(Protocol):
    """A caller's descriptor table."""

    def install(self, file: OpenFile, flags: int) -> int:
        """A new descriptor for `file`, also where it has some already. `flags`: O_CLOEXEC and the access
        mode. OSError EMFILE."""

    def lookup(self, fd: int) -> OpenFile | None:
        """What stands behind a descriptor; None if it is a file of the host's. OSError EBADF if it is not
        open."""

    def duplicate(self, fd: int) -> int:
        """A descriptor of our own for a file of the host's, for us to close. OSError EBADF, EPERM."""


class Caller(NamedTuple):
    """Process id, whether it has CAP_SYS_ADMIN now (asked only if it matters), memory, descriptors."""

    pid: int
    sys_admin: Callable[[], bool]
    memory: UserMemory
    files: Descriptors
