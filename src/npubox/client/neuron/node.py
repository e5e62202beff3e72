# SPDX-License-Identifier: Apache-2.0
"""Calls on an open /dev/neuron<N>: structs in and out, a DeviceError where the ABI says no."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Any

from npubox.client.node import NodeFile
from npubox.errors import DeviceError
from npubox.uapi.ioctl import Ioctl

RW = mmap.PROT_READ | mmap.PROT_WRITE


class NeuronNode:
    """One open node. `name` is for messages; `stopped` tells of queues, by name, why the virtual chip stopped
    them: a real one does not say."""

    def __init__(self, name: str, file: NodeFile) -> None:
        self.name = name
        self._file = file
        self.stopped: dict[str, str] = {}

    def call(self, ioctl: Ioctl[Any], args: ctypes.Structure | None = None) -> int:
        """One ioctl; its value. Raises DeviceError with the call's name and the kernel's reason."""
        try:
            result = self._file.ioctl(ioctl.number, 0 if args is None else ctypes.addressof(args))
        except OSError as error:
            raise DeviceError(f"{self.name}: {_name(ioctl)}: {_reason(error)}") from error
        if result > 0:
            # The kernel module tells faults of user memory, and one reset too many, by a positive number.
            raise DeviceError(f"{self.name}: {_name(ioctl)} answered {result}")
        return result

    def map(self, address: int, size: int) -> mmap.mmap:
        """Device memory, or host memory by its device address, mapped. Raises DeviceError."""
        try:
            return self._file.mmap(size, RW, mmap.MAP_SHARED, address)
        except OSError as error:
            raise DeviceError(
                f"{self.name}: mmap of {size} bytes at {address:#x}: {_reason(error)}"
            ) from error

    def close(self) -> None:
        self._file.close()


def _name(ioctl: Ioctl[Any]) -> str:
    return ioctl.name.removeprefix("NEURON_IOCTL_")


def _reason(error: OSError) -> str:
    number = error.errno or 0
    text = error.strerror or os.strerror(number)
    return f"{text} ({errno.errorcode.get(number, number)})"
