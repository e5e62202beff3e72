# SPDX-License-Identifier: Apache-2.0
"""A thread's alarm clock: putting it off costs a system call and wakes nobody."""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_NANOSECONDS = 10**9

_libc = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


_libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Spec), ctypes.c_void_p)


class Alarm:
    """One timer of the host, timerfd_create(2), for one thread that waits. The last word to it counts; after
    `close` it hears none."""

    def __init__(self, delay: int) -> None:
        """`delay`, in nanoseconds, is what `ring_later` means."""
        self._fd = _checked(_libc.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC))
        self._now = _Spec(0, 0, 0, 1)
        self._later = _Spec(0, 0, *divmod(max(1, delay), _NANOSECONDS))

    def ring(self) -> None:
        """Wake the thread now, or as soon as it waits."""
        self._set(self._now)

    def ring_later(self) -> None:
        """Wake the thread after the delay, unless something is said before."""
        self._set(self._later)

    def wait(self) -> None:
        """Sleep until it rings."""
        os.read(self._fd, 8)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, spec: _Spec) -> None:
        if self._fd >= 0:
            _checked(_libc.timerfd_settime(self._fd, 0, spec, None))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
