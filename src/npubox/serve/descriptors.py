# SPDX-License-Identifier: Apache-2.0
"""The descriptor table of a call's program, for the handlers of the core."""

from __future__ import annotations

import errno
import os

from npubox.core.file import OpenFile
from npubox.serve.caller import CallerGone, Tasks
from npubox.serve.linux import fetch_descriptor
from npubox.serve.listener import Call
from npubox.serve.numbers import Numbers
from npubox.serve.open_files import OpenFiles


class CallDescriptors:
    """`Descriptors` of the program that made one call."""

    def __init__(self, numbers: Numbers, call: Call, tasks: Tasks, files: OpenFiles) -> None:
        self._numbers = numbers
        self._call = call
        self._tasks = tasks
        self._files = files

    def install(self, file: OpenFile, flags: int) -> int:
        name, fd = self._files.add(file, flags)
        try:
            number = self._numbers.add(self._call, fd, bool(flags & os.O_CLOEXEC), answer=False)
            if number is None:
                raise CallerGone
        except OSError:
            self._files.discard(name)
            raise
        finally:
            os.close(fd)
        served = self._files.find(name)
        if served is not None and served.holds == 1:
            file.installed()
        return number

    def lookup(self, fd: int) -> OpenFile | None:
        link = self._tasks.link(self._call.tid, fd)
        if link is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        served = self._files.find(link)
        return None if served is None else served.file

    def duplicate(self, fd: int) -> int:
        return fetch_descriptor(self._tasks.get(self._call.tid).tgid, fd)
