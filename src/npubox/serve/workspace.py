# SPDX-License-Identifier: Apache-2.0
"""The directories of a launch: names for open files, and the tree of what its programs see.

Each served open gets a hard link of its own to the device's store, so that the kernel tells it apart
from every other open: by the text of /proc/TID/fd/N, and by one close event when the last descriptor
and the last mapping are gone. Source: the project's facts (device-nodes.md §5).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from npubox.serve import linux

PREFIX = "npubox-launch-"
YOUNG = 10.0  # seconds
DELETED = " (deleted)"
_EVENT = struct.Struct("<iIII")
_FIONREAD = 0x541B
_NOTHING = bytes(4)


def _claim(directory: str) -> int:
    """Hold the directory's lock, by which everybody sees that its launch lives."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def temporary_directory() -> str:
    """Where temporary files go."""
    return os.environ.get("TMPDIR") or "/tmp"


def remove(directory: str | Path) -> None:
    """Remove a directory with all in it, unless something is mounted below: that is not ours to empty."""
    with contextlib.suppress(OSError):
        own = os.lstat(directory).st_dev
        if all(os.lstat(path).st_dev == own for path, _, _ in os.walk(directory)):
            from shutil import rmtree  # a launch that has ended may take its time

            rmtree(directory)


def make_directory(parent: str) -> tuple[str, int]:
    """A directory for this launch and the descriptor that holds it; those of dead launches go."""
    for entry in os.scandir(parent):
        if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < YOUNG:
                continue  # its launch may not have claimed it yet
            with contextlib.suppress(OSError):
                fd = _claim(entry.path)
                remove(entry.path)
                os.close(fd)
    directory = f"{parent}/{PREFIX}{os.urandom(8).hex()}"
    os.mkdir(directory, 0o700)
    return directory, _claim(directory)


class Tree:
    """What the launch's programs see below /dev and /sys: a directory that goes with the launch, in memory
    where that can be: it is made of some fifty files."""

    def __init__(self) -> None:
        try:
            directory, self._lock = make_directory("/dev/shm")
        except OSError:
            directory, self._lock = make_directory(temporary_directory())
        self.path = Path(directory)
        self.path.chmod(0o755)

    def close(self) -> None:
        remove(self.path)
        os.close(self._lock)


class Anchor:
    """A lasting name of an unnamed file, so that any number of launches can link it, one after the other
    too."""

    def __init__(self, fd: int) -> None:
        self._directory, self._lock = make_directory(directory_of(fd))
        _name(fd, f"{self._directory}/store", self._lock)

    def close(self) -> None:
        remove(self._directory)
        os.close(self._lock)


def directory_of(fd: int) -> str:
    """Where an unnamed file is."""
    return os.path.dirname(os.readlink(f"/proc/self/fd/{fd}"))


def _name(fd: int, path: str, directory: int) -> None:
    """Name an unnamed file, or one that has another name still."""
    # With a directory descriptor, if only to be ignored, Python calls linkat(2), which follows.
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=directory, follow_symlinks=True)


class _Shard:
    """A watched directory of names: of fewer than the 16384 events that the kernel queues."""

    MOST = 8192

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.live = 0
        os.mkdir(directory)
        self.events = linux.inotify(directory, linux.IN_CLOSE_WRITE | linux.IN_CLOSE_NOWRITE)
        self._pending = bytearray(4)

    @property
    def any_closed(self) -> bool:
        fcntl.ioctl(self.events, _FIONREAD, self._pending, True)
        return self._pending != _NOTHING

    def closed(self) -> Iterator[str]:
        while self.any_closed:
            data = os.read(self.events, 1 << 16)
            at = 0
            while at < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, at)
                if mask & linux.IN_Q_OVERFLOW:
                    raise OSError(errno.EOVERFLOW, "the kernel dropped close events")
                name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0").decode()
                at += _EVENT.size + length
                if name:
                    self.live -= 1
                    yield f"{self.directory}/{name}{DELETED}"


class OpenNames:
    """The names of open files in one file system, in watched directories below `parent`.

    `watch` is called with each descriptor that becomes readable when files are closed.
    """

    def __init__(self, parent: str, watch: Callable[[int], None]) -> None:
        self._directory, self._lock = make_directory(parent)
        self._serial = itertools.count()
        self._watch = watch
        self._shards: list[_Shard] = []
        try:
            self._add_shard()
        except OSError:
            remove(self._directory)
            os.close(self._lock)
            raise

    def link(self, fd: int) -> str:
        """A base for `open`: a lasting name of the unnamed file `fd`, until `drop`."""
        base = self._new_base()
        _name(fd, base, self._lock)
        return base

    def token(self, size: int) -> str:
        """A base for `open`: an empty file of its own that is `size` bytes long, until `drop`."""
        base = self._new_base()
        os.mknod(base, stat.S_IFREG | 0o600)
        if size:
            os.truncate(base, size)
        return base

    def drop(self, base: str) -> None:
        os.unlink(base)

    def open(self, base: str, flags: int) -> tuple[str, int]:
        """A new open file of a base: its name and our descriptor, to be passed on and closed."""
        shard = next((shard for shard in self._shards if shard.live < shard.MOST), None) or self._add_shard()
        name = f"{shard.directory}/{next(self._serial)}"
        os.link(base, name)
        try:
            keep = os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND
            fd = os.open(name, flags & keep | os.O_CLOEXEC)
        finally:
            os.unlink(name)
        shard.live += 1
        return name + DELETED, fd

    @property
    def any_closed(self) -> bool:
        """Whether `closed` has something to tell. It is asked before each call, so it has to be fast."""
        return any(shard.any_closed for shard in self._shards)

    def closed(self) -> Iterator[str]:
        """The names whose last descriptor and mapping are gone since the last look. Never blocks."""
        for shard in self._shards:
            yield from shard.closed()

    def close(self) -> None:
        for shard in self._shards:
            os.close(shard.events)
        remove(self._directory)
        os.close(self._lock)

    def _new_base(self) -> str:
        return f"{self._directory}/base-{next(self._serial)}"

    def _add_shard(self) -> _Shard:
        shard = _Shard(f"{self._directory}/{len(self._shards)}")
        self._shards.append(shard)
        self._watch(shard.events)
        return shard
