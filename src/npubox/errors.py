# SPDX-License-Identifier: Apache-2.0
"""What npubox raises at its users: every message is one sentence that names the thing and what to do.

Errors of the ABI itself stay `OSError` with the kernel's errno; these classes are what the client,
the compiler, the file formats and the machines raise above it.
"""

from __future__ import annotations

from typing import Any


class NpuboxError(Exception):
    """Base of every error npubox raises on purpose above the ABI."""


class ModelError(NpuboxError):
    """A model file is missing, damaged, not quantised, or compiled for something else."""


class InputError(NpuboxError):
    """An input has the wrong shape, dtype or number, or cannot be read."""


class DeviceError(NpuboxError):
    """A device, preset or node does not exist or cannot be opened."""


class JobFailed(NpuboxError):  # noqa: N818 - it is the job that failed, as in Arm's and DRM's terms
    """The hardware did not finish a job.

    `command`, `offset` (bytes into the command stream), `address` (device address, if a DMA faulted)
    and `reason` come from the control channel of a virtual machine; on real hardware they are None.
    """

    def __init__(
        self,
        reason: str,
        *,
        command: str | None = None,
        offset: int | None = None,
        address: int | None = None,
    ) -> None:
        self.reason = reason
        self.command = command
        self.offset = offset
        self.address = address
        parts = ["the NPU did not finish the job"]
        if command is not None:
            parts.append(f"at {command}" + (f" (stream offset {offset:#x})" if offset is not None else ""))
        if address is not None:
            parts.append(f"address {address:#x}")
        super().__init__(", ".join(parts) + f": {reason}")


class InferenceFailed(JobFailed):
    """An inference of a subsystem did not succeed: `status` is "error", "rejected" or "aborted"."""

    def __init__(self, status: str, reason: str | None = None, **where: Any) -> None:
        self.status = status
        told = f"the inference's status is {status}"
        super().__init__(told if reason is None else f"{told}: {reason}", **where)


class WaitTimeout(NpuboxError, TimeoutError):  # noqa: N818 - a time-out is no failure
    """A wait ended before the job did; the job goes on."""


class CancelUnsupported(NpuboxError):  # noqa: N818 - reads as a statement
    """The ABI behind this device has no way to cancel a job."""
