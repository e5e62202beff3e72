# SPDX-License-Identifier: Apache-2.0
"""stat, access and readlink of paths, for launches whose programs cannot find what is served themselves."""

from __future__ import annotations

import errno
import os
import stat

from npubox.core import libc
from npubox.core.ranges import PAGE_SIZE
from npubox.serve import linux
from npubox.serve.caller import CallMemory
from npubox.serve.listener import Call, Listener
from npubox.serve.paths import Found, Namespaced, Resolver, absolute
from npubox.serve.stats import Shown, pack_stat, pack_statx
from npubox.serve.supervisor import PROCEED, Handler, Result
from npubox.serve.syscalls import Arch

AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
GLANCE = 256  # bytes: few paths are longer


class PathCalls:
    """Answers from the supervisor's side of the paths."""

    def __init__(self, listener: Listener, resolver: Resolver, arch: Arch, names: frozenset[str]) -> None:
        self._listener = listener
        self._resolver = resolver
        self._arch = arch
        self._names = names
        self._plain_names = frozenset(map(os.fsencode, names))
        self._window = libc.Window()

    def table(self) -> dict[str, Handler]:
        here = linux.AT_FDCWD
        return {
            "stat": lambda call: self.stat(call, here, call.args[0], call.args[1], 0),
            "lstat": lambda call: self.stat(call, here, call.args[0], call.args[1], AT_SYMLINK_NOFOLLOW),
            "access": lambda call: self._access(call, here, call.args[0], call.args[1]),
            "faccessat": lambda call: self._access(call, call.args[0], call.args[1], call.args[2]),
            "faccessat2": lambda call: self._access(call, call.args[0], call.args[1], call.args[2]),
            "readlink": lambda call: self._readlink(call, here, call.args[0], call.args[1], call.args[2]),
            "readlinkat": lambda call: self._readlink(call, *call.args[:4]),
        }

    def may_be_ours(self, path: str) -> bool:
        """Whether a path is worth resolving: that costs more than a look at its last name, and a link of
        another name to a node is rarely read or asked about."""
        return not isinstance(self._resolver, Namespaced) or os.path.basename(path) in self._names

    def glance(self, tid: int, pointer: int) -> bool:
        """Whether a path's last name tells that it is neither a node nor an open descriptor, from a single
        look: that is all that most opens of most programs cost."""
        if not isinstance(self._resolver, Namespaced):
            return False
        text = self._window.read(tid, pointer, min(GLANCE, PAGE_SIZE - pointer % PAGE_SIZE))
        end = -1 if text is None else text.find(0)
        if text is None or end < 0:
            return False
        name = text[text.rfind(b"/", 0, end) + 1 : end]
        return not (name in self._plain_names or name.isdigit())

    def find(self, call: Call, directory: int, pointer: int, follow: bool) -> Found | None:
        """What is ours at the path that a call names."""
        try:
            path = os.fsdecode(CallMemory(self._listener, call).read_string(pointer))
            if not path or not self.may_be_ours(path):
                return None
            return self._resolver.find(call.tid, absolute(call.tid, signed(directory), path), follow)
        except OSError:
            return None  # the kernel finds the words for it

    def stat(
        self, call: Call, directory: int, path: int, buffer: int, flags: int, *, extended: bool = False
    ) -> Result:
        found = self.find(call, directory, path, not flags & AT_SYMLINK_NOFOLLOW)
        if found is None:
            return PROCEED
        shown = Shown.of(found.stat, found.node)
        data = pack_statx(shown) if extended else pack_stat(self._arch, shown)
        CallMemory(self._listener, call).write(buffer, data)
        return 0

    def _access(self, call: Call, directory: int, path: int, mode: int) -> Result:
        found = self.find(call, directory, path, True)
        if found is None or found.file is None:
            return PROCEED
        writable = found.node is not None
        runnable = stat.S_ISDIR(found.stat.st_mode)
        if (mode & os.W_OK and not writable) or (mode & os.X_OK and not runnable):
            raise OSError(errno.EACCES, "not allowed")
        return 0

    def _readlink(self, call: Call, directory: int, path: int, buffer: int, size: int) -> Result:
        found = self.find(call, directory, path, False)
        if found is None or found.file is None:
            return PROCEED
        if not stat.S_ISLNK(found.stat.st_mode):
            raise OSError(errno.EINVAL, "no link")
        text = os.fsencode(os.readlink(found.file))[: signed(size)]
        CallMemory(self._listener, call).write(buffer, text)
        return len(text)


def signed(value: int) -> int:
    """An int argument: the kernel takes the low 32 bits."""
    low = value & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low
