# SPDX-License-Identifier: Apache-2.0
"""An accel device: its minor, its open files, its objects, its lock and its store.

Life cycle as in the project's facts (accel-core.md §1.2, §1.7): a minor is taken when the device is
made and freed when the last reference goes; unregister leaves open files working, unplug does not.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from npubox.core import uevent
from npubox.core.caller import Caller
from npubox.core.drm.driver import DrmDriver, check_features
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject
from npubox.core.drm.queue import Event, Job
from npubox.core.idr import Idr
from npubox.core.lock import DeviceLock
from npubox.core.pending import Pending
from npubox.core.store import Store

ACCEL_MAJOR = 261
ACCEL_MAX_MINORS = 256

QueueObserver = Callable[[int, int, str, int], None]


class Minors:
    """The accel minors of one system, lowest free first."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._devices: Idr[DrmDevice] = Idr(0, ACCEL_MAX_MINORS - 1)

    def take(self, device: DrmDevice) -> int:
        with self._guard:
            return self._devices.allocate(device)

    def release(self, minor: int) -> None:
        with self._guard:
            self._devices.remove(minor)

    def lookup(self, minor: int) -> DrmDevice:
        """The registered device with this minor; OSError ENODEV if there is none."""
        with self._guard:
            device = self._devices.get(minor)
        if device is None or not device.registered:
            raise OSError(errno.ENODEV, f"there is no device accel{minor}")
        return device


accel_minors = Minors()


class DrmDevice:
    """`parent` is the kernel's name of the device below, e.g. `4a900000.npu`.

    Raises OSError EINVAL for impossible features and ENOSPC when all minors are taken.
    `queue_observer`, if set, is called with (client id, the client's job number from 0 in the order of
    submission, "queued" | "started" | "finished", errno or 0) under the lock: "started" before the
    hardware is told, "finished" before the job's fence signals. It must not block or call back.
    """

    def __init__(self, driver: DrmDriver, parent: str, *, minors: Minors = accel_minors) -> None:
        check_features(driver)
        self.driver = driver
        self.parent = parent
        self.lock = DeviceLock()
        self.store = Store()
        self.files: list[DrmFile] = []
        self.flink_names: Idr[GemObject] = Idr(1)
        self.registered = False
        self.unplugged = False
        self.queue_observer: QueueObserver | None = None
        self._objects: dict[int, GemObject] = {}
        self._waits: set[Pending] = set()
        self._unplugging = False
        self._references = 1
        self._minors = minors
        try:
            self.minor = minors.take(self)
        except OSError:
            self.store.close()
            raise
        driver.device = self

    @property
    def name(self) -> str:
        return f"accel{self.minor}"

    @property
    def unique(self) -> str:
        return self.parent

    @property
    def object_count(self) -> int:
        """Buffer objects that still hold memory."""
        return len(self._objects)

    def register(self) -> None:
        """From here on the node can be opened."""
        self.registered = True
        self._uevent("add")

    def unregister(self) -> None:
        """Take the node away. Open files live on; with the last of them the device is released."""
        with self.lock:
            if self.registered:
                self.registered = False
                self._uevent("remove")
                self.put()

    def unplug(self) -> None:
        """The device is gone: every later call on an open file is ENODEV, every job ends with ENODEV.

        When it returns the driver no longer touches the port or the SRAM, except to unmap buffers.
        """
        with self.lock:
            if self._unplugging:
                return
            self._unplugging = True
            self.lose()
            self.driver.unplug()
        self.driver.join()
        self.unregister()

    def lose(self) -> None:
        """Under the lock: the hardware is known not to answer any more. Later calls are ENODEV, and so are
        those that wait: their fences end with ENODEV, which the ABI would hide from a wait."""
        self.unplugged = True
        for wait in list(self._waits):
            wait.cancel(errno.ENODEV)

    def add_wait(self, wait: Pending) -> None:
        """Under the lock: a call that blocks on this device."""
        self._waits.add(wait)
        wait.on_done(lambda: self._waits.discard(wait))

    def open(self, flags: int, caller: Caller) -> DrmFile:
        """A new open file; OSError EBUSY with O_EXCL, ENODEV when the node is gone."""
        if flags & os.O_EXCL:
            raise OSError(errno.EBUSY, f"{self.name} cannot be opened with O_EXCL")
        with self.lock:
            if self.unplugged or not self.registered:
                raise OSError(errno.ENODEV, f"{self.name} is gone")
            file = DrmFile(self, caller)
            self.driver.open(file)
            self.get()
            self.files.insert(0, file)
        return file

    def _uevent(self, action: str) -> None:
        properties = {
            "DEVPATH": f"/devices/platform/{self.parent}/accel/{self.name}",
            "SUBSYSTEM": "accel",
            "MAJOR": str(ACCEL_MAJOR),
            "MINOR": str(self.minor),
            "DEVNAME": f"accel/{self.name}",
            "DEVTYPE": "accel_minor",
        }
        uevent.send(action, self.name, properties)

    def get(self) -> None:
        """Under the lock: a file or an object needs the device."""
        self._references += 1

    def put(self) -> None:
        """Under the lock: drop a reference; with the last one the device is released."""
        self._references -= 1
        if self._references == 0:
            self.driver.release()
            self.store.close()
            self._minors.release(self.minor)

    def observe(self, job: Job, event: Event) -> None:
        """The observer of this device's job queues; it tells `queue_observer`."""
        if self.queue_observer is not None:
            self.queue_observer(job.entity.client_id, job.sequence, event, job.error)

    def add_object(self, item: GemObject) -> None:
        self.get()
        self._objects[item.offset] = item

    def remove_object(self, item: GemObject) -> None:
        del self._objects[item.offset]

    def object_at(self, offset: int) -> GemObject | None:
        """The object whose mmap offset is exactly `offset`."""
        return self._objects.get(offset)
