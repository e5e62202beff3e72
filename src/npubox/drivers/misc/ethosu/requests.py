# SPDX-License-Identifier: Apache-2.0
"""Messages that the firmware answers by their id, and the calls that wait for such an answer."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from npubox.core.drm.fence import Fence, new_context
from npubox.core.pending import Pending
from npubox.drivers.misc.ethosu.deadline import Deadline
from npubox.hw.ethosu import core_interface as core

if TYPE_CHECKING:
    from npubox.drivers.misc.ethosu.file import EthosuFile

AnswerT = TypeVar("AnswerT", bound=ctypes.LittleEndianStructure)


class Request(Generic[AnswerT]):
    """One message without an answer yet. Everything under the device's lock; `id` is set when it is sent."""

    kind: ClassVar[core.MessageType]
    answer: ClassVar[core.MessageType]
    id: int = -1

    def payload(self) -> ctypes.LittleEndianStructure:
        """The message; made anew when it is sent again."""
        raise NotImplementedError

    def answered(self, answer: AnswerT) -> None:
        """The firmware's answer has come."""
        raise NotImplementedError

    def failed(self, error: int) -> None:
        """It never will: errno ENODEV when the device is gone, EFAULT for a firmware that does not start."""
        raise NotImplementedError

    def survives_restart(self) -> bool:
        """Whether it shall be sent again to a firmware that was reset; if not it has ended itself."""
        return True

    def released(self) -> None:
        """It is over, one way or the other."""


class Call(Request[AnswerT]):
    """A request that a system call on `file` waits for, at most `timeout` nanoseconds of device time. It
    holds the file while it is in progress."""

    def __init__(self, file: EthosuFile, timeout: int, timeout_errno: int = errno.ETIME) -> None:
        self.firmware = firmware = file.device.firmware
        self._file = file
        self._timeout = timeout
        self._timeout_errno = timeout_errno
        self._done = Fence(new_context(), 1)
        self._reason: str | None = None
        self._deadline = Deadline(firmware.clock, firmware.lock, self._timed_out)

    def wait(self) -> Pending:
        """Send it. The wait ends with OSError of what went wrong, or after `accept` took the answer."""
        self.firmware.submit(self)
        self._file.get()
        self._deadline.set(self._timeout)
        pending = Pending([self._done])
        pending.on_done(lambda: self.firmware.lock.post(lambda: self.firmware.forget(self)))
        pending.on_finish(self._raise)
        return pending

    def end(self, error: int = 0, reason: str | None = None) -> None:
        self._reason = reason
        self._done.signal(error)

    def answered(self, answer: AnswerT) -> None:
        try:
            self.accept(answer)
        except OSError as error:
            self.end(error.errno or errno.EIO, error.strerror)
        else:
            self.end()

    def accept(self, answer: AnswerT) -> None:
        """Take the answer; OSError fails the call."""
        raise NotImplementedError

    def failed(self, error: int) -> None:
        self.end(error)

    def released(self) -> None:
        self._deadline.clear()
        self._file.put()

    def _timed_out(self) -> None:
        self.firmware.forget(self)
        self.end(self._timeout_errno)

    def _raise(self, _: OSError | None) -> None:
        if self._done.error:
            raise OSError(self._done.error, self._reason or os.strerror(self._done.error))


AnyRequest = Request[Any]
