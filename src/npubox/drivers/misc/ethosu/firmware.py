# SPDX-License-Identifier: Apache-2.0
"""The subsystem's firmware as its driver knows it: requests without an answer, a watchdog, resets.

A firmware that does not answer pings, or has lost an inference, is reset. Its oldest inference then fails,
as it is what was running, and all other requests are sent again. All times are device time. Source: the
project's facts (ethosu-linux.md §2.3 to §2.5).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import threading
from collections.abc import Callable

from npubox.bus.port import PlatformDevice
from npubox.core.lock import DeviceLock
from npubox.drivers.misc.ethosu.mailbox import Mailbox, MessageObserver, QueueHeader
from npubox.drivers.misc.ethosu.requests import AnyRequest
from npubox.drivers.misc.ethosu.watchdog import MS, Timeouts, Watchdog
from npubox.hw.ethosu import core_interface as core
from npubox.hw.ethosu.mailbox import MailboxReg, ResetLine

_log = logging.getLogger(__name__)
LAST_ID = 0x7FFF_FFFF


class Firmware:
    """Everything under `lock`, unless it says otherwise."""

    def __init__(
        self, platform: PlatformDevice, lock: DeviceLock, timeouts: Timeouts, header: QueueHeader
    ) -> None:
        self.name = platform.name
        self.lock = lock
        self.clock = platform.port.clock
        self._port = platform.port
        self._mailbox = Mailbox(platform, header)
        self._requests: dict[int, AnyRequest] = {}
        self._next_id = 0
        self._later: list[core.MessageType] = []
        self._gone = False
        self._booting: threading.Thread | None = None
        self._watchdog = Watchdog(self.clock, lock, timeouts, self._silent, self._stuck)

    @property
    def timeouts(self) -> Timeouts:
        """They may be changed at any time, as the original's module parameter: it counts from then on."""
        return self._watchdog.timeouts

    @timeouts.setter
    def timeouts(self, timeouts: Timeouts) -> None:
        self._watchdog.timeouts = timeouts

    def start(self) -> None:
        """Boot the firmware. Without the lock; OSError ETIMEDOUT if it does not come up."""
        self._mailbox.connect(lambda: self.lock.post(self._receive))
        self._hold_in_reset()
        if not self._boot():
            self._mailbox.close()
            raise OSError(errno.ETIMEDOUT, f"{self.name}: the firmware does not start")
        with self.lock:
            self.ping()

    def stop(self) -> None:
        """The device is gone: every request ends with ENODEV and nothing is sent any more."""
        self._gone = True
        self._watchdog.clear()
        self._fail_all(errno.ENODEV)

    def join(self) -> None:
        """After `stop`, without the lock: when it returns nothing of this touches the port any more."""
        if self._booting is not None:
            self._booting.join()
        with self.lock:
            self._port.write32(MailboxReg.RESET, ResetLine.ASSERTED)
            self._mailbox.close()

    def push_mappings(self) -> None:
        """See `Mailbox.push_mappings`."""
        self._mailbox.push_mappings()

    def watch_messages(self, observer: MessageObserver | None) -> None:
        self._mailbox.observer = observer

    def ping(self) -> None:
        self._tell(core.MessageType.PING)

    def ask_version(self) -> None:
        """The answer goes to the log."""
        self._tell(core.MessageType.VERSION_REQ)

    def submit(self, request: AnyRequest) -> None:
        """Send a request under a new id; OSError EINVAL where the queue has no room. While the firmware boots
        it waits until it has."""
        while self._next_id in self._requests:
            self._next_id = (self._next_id + 1) & LAST_ID
        request.id = self._next_id
        self._next_id = (self._next_id + 1) & LAST_ID
        if self._booting is None:
            self._send_request(request)
        self._requests[request.id] = request
        self._watchdog.watch(self._oldest_inference())

    def forget(self, request: AnyRequest) -> None:
        """Nobody waits for its answer any more."""
        self._end(request, lambda: None)

    def _end(self, request: AnyRequest, tell: Callable[[], None]) -> None:
        if self._requests.get(request.id) is request:
            del self._requests[request.id]
            tell()
            request.released()
            self._watchdog.watch(self._oldest_inference())

    def restart(self, victim: AnyRequest | None = None) -> None:
        """Reset the subsystem, fail `victim` and send all other requests again, on a thread of its own."""
        if self._booting is None and not self._gone:
            self._watchdog.clear()
            self._hold_in_reset()
            self._booting = threading.Thread(
                target=self._boot_again, name=f"npubox-{self.name}-reset", daemon=True
            )
            self._booting.start()
        if victim is not None:
            self._end(victim, lambda: victim.failed(errno.ETIMEDOUT))

    # sending

    def _tell(self, kind: core.MessageType) -> None:
        if self._booting is not None:
            self._later.append(kind)
            return
        self._mailbox.send(kind, core.Empty())
        if kind is core.MessageType.PING:
            self._watchdog.count(pings=1)

    def _send_request(self, request: AnyRequest) -> None:
        self._mailbox.send(request.kind, request.payload())
        if request.kind is core.MessageType.INFERENCE_REQ:
            self._watchdog.count(inferences=1)

    # receiving: the bottom half

    def _receive(self) -> None:
        if self._booting is not None or self._gone:
            return
        for kind, payload in self._mailbox.receive():
            self._handle(kind, payload)
            if self._booting is not None:
                return

    def _handle(self, kind: core.MessageType, payload: ctypes.LittleEndianStructure) -> None:
        if kind is core.MessageType.PING:
            self._mailbox.send(core.MessageType.PONG, core.Empty())
        elif kind is core.MessageType.PONG:
            self._watchdog.count(pings=-1)
        elif isinstance(payload, core.VersionRsp):
            self._note_version(payload)
        elif hasattr(payload, "user_arg"):
            if kind is core.MessageType.INFERENCE_RSP:
                self._watchdog.count(inferences=-1)
            request = self._requests.get(payload.user_arg)
            if request is None or request.answer is not kind:
                _log.warning("%s: nobody waits for %s %d", self.name, kind.name, payload.user_arg)
            else:
                self._end(request, functools.partial(request.answered, payload))
        else:
            _log.warning("%s: the subsystem sent a %s", self.name, kind.name)

    def _note_version(self, version: core.VersionRsp) -> None:
        told = (version.major, version.minor, version.patch)
        level = logging.INFO if told[:2] == core.VERSION[:2] else logging.WARNING
        _log.log(level, "%s: the firmware speaks version %d.%d.%d", self.name, *told)

    # watching

    def _oldest_inference(self) -> AnyRequest | None:
        inferences = (
            request for request in self._requests.values() if request.kind is core.MessageType.INFERENCE_REQ
        )
        return next(inferences, None)

    def _silent(self) -> None:
        if not self._watchdog.pings:
            try:
                self.ping()
            except OSError as error:
                _log.warning("%s: cannot ping the firmware: %s", self.name, error)
                self.restart(self._oldest_inference())
        else:
            _log.warning("%s: the firmware does not answer pings; reset", self.name)
            self.restart(self._oldest_inference())

    def _stuck(self) -> None:
        oldest = self._watchdog.oldest
        if oldest is not None:
            _log.warning("%s: inference %d does not end; reset", self.name, oldest.id)
            self.restart(oldest)

    # booting

    def _hold_in_reset(self) -> None:
        self._port.write32(MailboxReg.RESET, ResetLine.ASSERTED)
        self._mailbox.reset()

    def _boot(self) -> bool:
        """Release the reset line and wait. Without the lock."""
        deadline = self.clock.now() + self.timeouts.boot
        self._port.write32(MailboxReg.RESET, 0)
        while not self._mailbox.booted:
            if self.clock.now() >= deadline or self._gone:
                return False
            self.clock.sleep(MS)
        return True

    def _boot_again(self) -> None:
        try:
            booted = self._boot()
        except OSError:  # the device itself is gone
            booted = False
        with self.lock:
            self._booting = None
            self._watchdog.clear()
            later, self._later = self._later, []
            if self._gone:
                return
            try:
                if not booted:
                    raise OSError(errno.ETIMEDOUT, "it does not start")
                self.ping()
                self._send_again()
                for kind in later:
                    self._tell(kind)
            except OSError as error:
                _log.error("%s: the firmware cannot be restarted: %s", self.name, error)
                self._fail_all(errno.EFAULT)

    def _send_again(self) -> None:
        for request in list(self._requests.values()):
            if request.survives_restart():
                self._send_request(request)
            else:
                self.forget(request)

    def _fail_all(self, error: int) -> None:
        for request in list(self._requests.values()):
            self._end(request, functools.partial(request.failed, error))
