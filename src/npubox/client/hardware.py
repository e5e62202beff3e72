# SPDX-License-Identifier: Apache-2.0
"""What every object made from one opened device shares: the node, its control channel, job numbers."""

from __future__ import annotations

import ctypes
import errno
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from npubox.client.ethosu_accel import FOREVER, EthosuAccel, NpuInfo
from npubox.client.lifetime import Uses
from npubox.client.node import NodeFile, Opened, call_ioctl
from npubox.errors import DeviceError, JobFailed
from npubox.uapi import drm
from npubox.uapi.ethosu_accel import DRIVER_NAME

_NS = 1_000_000_000


@dataclass(frozen=True)
class JobResult:
    """What the control channel says of a finished job; None throughout on real hardware."""

    cycles: int | None
    device_time_ns: int | None


class Hardware:
    """An open mainline `ethosu` node. It closes when the last object made from it has gone."""

    def __init__(self, opened: Opened) -> None:
        driver = driver_name(opened.name, opened.node)
        if driver != DRIVER_NAME:
            raise DeviceError(
                f"{opened.name} is driven by {driver!r}: npubox drives nodes of {DRIVER_NAME!r} only"
            )
        self.name = opened.name
        self.accel = EthosuAccel(opened.node)
        self.info: NpuInfo = self.accel.npu_info()
        self.machine = opened.machine
        if self.machine is not None:
            self.machine.control.follow(opened.node.client_id)  # type: ignore[attr-defined]
        self.uses = Uses(opened.close)
        self._node = opened.node
        self._submit_lock = threading.Lock()
        self._submitted = 0

    @property
    def policy(self) -> str | None:
        """The driver's: "mainline" or "hardware"; None on real hardware."""
        return self.machine.info.policy if self.machine is not None else None

    @property
    def vela(self) -> tuple[str | None, str | None]:
        """What Vela calls the machine's system configuration and memory mode; None for unknown."""
        if self.machine is None:
            return None, None
        return self.machine.info.vela_system_config, self.machine.info.vela_memory_mode

    def submit(self, command: int, regions: Sequence[int], sram_size: int) -> int:
        """Queue a job; its number among this open file's jobs, from 0."""
        with self._submit_lock:
            self.accel.submit(command, regions, sram_size)
            self._submitted += 1
            return self._submitted - 1

    def close_handle(self, handle: int) -> None:
        """GEM_CLOSE. A device that was unplugged has closed it already."""
        try:
            self.accel.gem_close(handle)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def forget(self, sequence: int) -> None:
        """Nobody will ask for the result of job `sequence`."""
        if self.machine is not None:
            self.machine.control.forget(self._node.client_id, sequence)  # type: ignore[attr-defined]

    def result(self, sequence: int) -> JobResult:
        """What became of job `sequence` once its wait returned. Raises JobFailed: BO_WAIT never tells."""
        if self.machine is None:
            return JobResult(None, None)
        report = self.machine.control.job(self._node.client_id, sequence)  # type: ignore[attr-defined]
        if report is None:
            raise JobFailed("the wait for the job returned, yet the machine has not finished it")
        if report.fault is not None:
            fault = report.fault
            raise JobFailed(fault.reason, command=fault.command, offset=fault.offset, address=fault.address)
        if report.error:
            raise JobFailed(f"it timed out or was cancelled (errno {report.error})")
        return JobResult(report.cycles, report.end_ns - report.start_ns)


def deadline_ns(timeout: float | None) -> int:
    """`timeout` seconds from now as BO_WAIT wants it; None waits for ever, 0 polls."""
    return FOREVER if timeout is None else time.monotonic_ns() + max(0, int(timeout * _NS))


def driver_name(name: str, node: NodeFile) -> str:
    """The DRM driver behind node `name`, e.g. `ethosu`. Raises DeviceError where there is none."""
    version = drm.Version()
    try:
        call_ioctl(node, drm.VERSION, version)
    except OSError as error:
        raise DeviceError(f"{name} is no DRM device: VERSION answers {error.strerror!r}") from error
    text = ctypes.create_string_buffer(version.name_len)
    again = drm.Version(name_len=len(text), name=ctypes.addressof(text))
    call_ioctl(node, drm.VERSION, again)
    return text.raw.decode()
