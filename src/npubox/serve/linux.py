# SPDX-License-Identifier: Apache-2.0
"""The Linux calls a supervisor needs and Python does not wrap. Each raises OSError with the call's name."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_ulong, c_void_p

from npubox.serve.syscalls import native

CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
MS_RDONLY, MS_NOSUID, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 0x1000, 0x4000, 0x4_0000
PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 38, 36
SECCOMP_SET_MODE_FILTER = 1
FILTER_FLAG_NEW_LISTENER, FILTER_FLAG_WAIT_KILLABLE_RECV = 8, 32
IN_CLOEXEC, IN_NONBLOCK = 0o2000000, 0o4000
IN_CLOSE_WRITE, IN_CLOSE_NOWRITE, IN_Q_OVERFLOW = 0x8, 0x10, 0x4000
SFD_CLOEXEC = 0o2000000
OPENAT2, PIDFD_OPEN, PIDFD_GETFD = 437, 434, 438  # the same on every architecture
RESOLVE_IN_ROOT = 0x10
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = c_long
_libc.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_libc.signalfd.argtypes = (c_int, c_void_p, c_int)


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", c_char_p))


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def install_filter(program: bytes, *, killable: bool = True) -> int:
    """Put a seccomp filter on this thread and what it starts; the listener's descriptor."""
    flags = FILTER_FLAG_NEW_LISTENER | (FILTER_FLAG_WAIT_KILLABLE_RECV if killable else 0)
    fprog = _FilterProgram(len(program) // 8, program)
    arguments = (c_long(SECCOMP_SET_MODE_FILTER), c_long(flags), ctypes.byref(fprog))
    return _check(_libc.syscall(c_long(native().seccomp), *arguments), "seccomp")


def no_new_privileges() -> None:
    _check(_libc.prctl(c_int(PR_SET_NO_NEW_PRIVS), c_ulong(1), c_ulong(0), c_ulong(0), c_ulong(0)), "prctl")


def become_subreaper() -> None:
    """Orphans below this process become its children."""
    _check(
        _libc.prctl(c_int(PR_SET_CHILD_SUBREAPER), c_ulong(1), c_ulong(0), c_ulong(0), c_ulong(0)), "prctl"
    )


def unshare(flags: int) -> None:
    _check(_libc.unshare(c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() if kind else None, flags, (data or "").encode()
        ),
        f"mount on {target}",
    )


def inotify(directory: str, mask: int) -> int:
    """A non-blocking inotify descriptor with one watch."""
    fd = _check(_libc.inotify_init1(c_int(IN_CLOEXEC | IN_NONBLOCK)), "inotify_init1")
    try:
        _check(
            _libc.inotify_add_watch(c_int(fd), directory.encode(), ctypes.c_uint32(mask)), "inotify_add_watch"
        )
    except OSError:
        os.close(fd)
        raise
    return fd


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2) that resolves `path`, absolute links too, inside the directory `root`."""
    how = _OpenHow(flags, 0, RESOLVE_IN_ROOT)
    arguments = (c_long(root), path.encode(), ctypes.byref(how), c_long(ctypes.sizeof(how)))
    return _check(_libc.syscall(c_long(OPENAT2), *arguments), f"openat2 of {path}")


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of another process's descriptor."""
    return _check(_libc.syscall(c_long(PIDFD_GETFD), c_long(pidfd), c_long(fd), c_long(0)), "pidfd_getfd")


def fetch_descriptor(tgid: int, fd: int) -> int:
    """Our own copy of a process's descriptor, to be closed. OSError where the kernel does not let us."""
    pidfd = os.pidfd_open(tgid)
    try:
        return pidfd_getfd(pidfd, fd)
    finally:
        os.close(pidfd)


def signal_descriptor(signals: frozenset[int]) -> int:
    """signalfd(2) for signals that are blocked already; it yields struct signalfd_siginfo, 128 bytes."""
    mask = sum(1 << (number - 1) for number in signals).to_bytes(128, "little")
    return _check(_libc.signalfd(-1, mask, SFD_CLOEXEC), "signalfd")


def send_to_thread(tid: int, signal: int) -> None:
    """tkill(2)."""
    _check(_libc.syscall(c_long(native().tkill), c_long(tid), c_long(signal)), "tkill")
