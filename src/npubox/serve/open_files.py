# SPDX-License-Identifier: Apache-2.0
"""The open files that programs of a launch hold, known by the text of their /proc links.

What a program holds is a stand-in of a unique name, or the read end of a pipe of a unique number; the kernel
tells of the last close of either. Source: the project's facts (device-nodes.md §5).
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from npubox.core.file import Backing, NodeStandIn, OpenFile, PagesStandIn, SignalStandIn, TokenStandIn
from npubox.core.nodes import NodeInfo
from npubox.core.signal_pipe import SignalPipe
from npubox.core.store import unnamed_file
from npubox.serve.stats import Shown
from npubox.serve.workspace import OpenNames, directory_of

if TYPE_CHECKING:
    from npubox.serve.polling import Mirror

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Served:
    """An open file that programs hold: `path` is what readlink is to tell of it, `flags` its status flags,
    `node` where it is an opened node, `holds` how many stand-ins of it there are, `mirror` what stands for
    it in epoll instances."""

    file: OpenFile
    path: str
    flags: int
    shown: Shown
    node: NodeInfo | None = None
    holds: int = 0
    mirror: Mirror | None = field(default=None, repr=False)
    base: tuple[OpenNames, str] | None = field(default=None, repr=False)


class OpenFiles:
    """`watch` is called with each descriptor that becomes readable when files are closed, `released` with
    each file that nobody holds any more, after its release."""

    def __init__(self, watch: Callable[[int], None], released: Callable[[Served], None]) -> None:
        self._watch = watch
        self._released = released
        self._by_link: dict[str, Served] = {}
        self._by_file: dict[OpenFile, Served] = {}
        self._names: dict[str, OpenNames] = {}
        self._stores: dict[tuple[int, int], tuple[OpenNames, str]] = {}
        self._pipes: dict[int, tuple[str, SignalPipe]] = {}
        self._pipe_ends: select.epoll | None = None

    def __len__(self) -> int:
        return len(self._by_file)

    def find(self, link: str) -> Served | None:
        return self._by_link.get(link)

    def add_node(self, file: OpenFile, node: NodeInfo, flags: int, shown: Shown) -> tuple[str, int]:
        """The name of a node's file and a descriptor to be passed on and closed; the close event of the last
        one releases the file."""
        return self._add(Served(file, node.path, flags & ~os.O_CLOEXEC, shown, node))

    def add(self, file: OpenFile, flags: int) -> tuple[str, int]:
        """As `add_node`, for a file that a handler gives, perhaps once more."""
        served = self._by_file.get(file)
        if served is None:
            served = Served(file, file.link, flags & ~os.O_CLOEXEC, Shown.anonymous(_size(file)))
        return self._add(served)

    def add_mapping(self, served: Served, backing: Backing) -> int:
        """A descriptor to map a file's backing by, to be passed on and closed; the mapping then holds the
        file as its descriptors do, where the backing is a file that can be linked."""
        access = served.flags & os.O_ACCMODE if backing.writable else os.O_RDONLY
        try:
            names, base = self._base_of_store(backing.fd)
            name, fd = names.open(base, access)
        except OSError:
            return os.open(f"/proc/self/fd/{backing.fd}", access | os.O_CLOEXEC)
        served.holds += 1
        self._by_link[name] = served
        return fd

    def discard(self, name: str) -> None:
        """The descriptor of that name could not be passed on: its file is not released for that."""
        served = self._by_link.pop(name)
        served.holds -= 1
        if not served.holds:
            self._forget(served)

    def note_closed(self) -> None:
        """Release what nobody holds any more."""
        for names in self._names.values():
            for name in names.closed() if names.any_closed else ():
                self._closed(name)
        if self._pipes:
            self._note_closed_pipes()

    def close(self) -> None:
        """Nobody is left: release everything."""
        self.note_closed()
        for served in list(self._by_file.values()):
            self._release(served)
        self._by_link.clear()
        for _, pipe in self._pipes.values():
            pipe.close()
        self._pipes.clear()
        if self._pipe_ends is not None:
            self._pipe_ends.close()
        for names in self._names.values():
            names.close()

    def _add(self, served: Served) -> tuple[str, int]:
        stand_in = served.file.stand_in
        if isinstance(stand_in, SignalStandIn):
            name, fd = self._add_pipe(SignalPipe(stand_in.completion))
        else:
            names, base = self._base(served, stand_in)
            name, fd = names.open(base, served.flags)
        served.holds += 1
        self._by_link[name] = self._by_file[served.file] = served
        return name, fd

    def _base(
        self, served: Served, stand_in: NodeStandIn | PagesStandIn | TokenStandIn
    ) -> tuple[OpenNames, str]:
        """The names to open a stand-in by. That of a store lasts, as every open of its device needs it."""
        if isinstance(stand_in, NodeStandIn):
            return self._base_of_store(stand_in.fd)
        if served.base is None:
            if isinstance(stand_in, PagesStandIn):
                names = self._names_beside(stand_in.fd)
                served.base = names, names.link(stand_in.fd)
            else:
                names = self._names_anywhere()
                served.base = names, names.token(stand_in.size)
        return served.base

    def _base_of_store(self, fd: int) -> tuple[OpenNames, str]:
        about = os.fstat(fd)
        key = about.st_dev, about.st_ino
        if key not in self._stores:
            names = self._names_beside(fd)
            self._stores[key] = names, names.link(fd)
        return self._stores[key]

    def _names_beside(self, fd: int) -> OpenNames:
        return self._names_in(directory_of(fd))

    def _names_anywhere(self) -> OpenNames:
        for names in self._names.values():
            return names
        fd, directory = unnamed_file()
        os.close(fd)
        return self._names_in(directory)

    def _names_in(self, directory: str) -> OpenNames:
        if directory not in self._names:
            self._names[directory] = OpenNames(directory, self._watch)
        return self._names[directory]

    def _add_pipe(self, pipe: SignalPipe) -> tuple[str, int]:
        if self._pipe_ends is None:
            self._pipe_ends = select.epoll()
            self._watch(self._pipe_ends.fileno())
        self._pipe_ends.register(pipe.writer, 0)  # which leaves EPOLLERR: no reader is left
        name = os.readlink(f"/proc/self/fd/{pipe.reader}")
        self._pipes[pipe.writer] = name, pipe
        return name, pipe.reader

    def _note_closed_pipes(self) -> None:
        assert self._pipe_ends is not None
        for writer, _ in self._pipe_ends.poll(0):
            name, pipe = self._pipes.pop(writer)
            self._pipe_ends.unregister(writer)
            pipe.close()
            self._closed(name)

    def _closed(self, name: str) -> None:
        served = self._by_link.pop(name, None)
        if served is not None:
            served.holds -= 1
            if not served.holds:
                self._release(served)

    def _release(self, served: Served) -> None:
        self._forget(served)
        if served.mirror is not None:
            served.mirror.close()
        try:
            served.file.release()
        except Exception:
            _log.exception("releasing %s failed", served.path)
        self._released(served)

    def _forget(self, served: Served) -> None:
        del self._by_file[served.file]
        if served.base is not None:
            names, base = served.base
            names.drop(base)
            served.base = None


def _size(file: OpenFile) -> int:
    return file.stand_in.size if isinstance(file.stand_in, TokenStandIn) else 0
