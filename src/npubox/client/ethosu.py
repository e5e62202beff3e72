# SPDX-License-Identifier: Apache-2.0
"""Arm's library of an Ethos-U subsystem, `/dev/ethosu<N>`, in Python.

    with Device("/dev/ethosu0") as device, device.network(Path("digits.tflite")) as network:
        with device.buffer(network.input_sizes[0]) as image, device.buffer(network.output_sizes[0]) as scores:
            image.fill(pixels)
            network.infer([image], [scores]).wait(timeout=5)
            scores.valid(np.int8)

It speaks the ABI of Arm's 2022.06 (facts, ethosu-linux.md §1, §3.5). A call that the driver refuses raises
OSError with its errno; an inference that does not succeed InferenceFailed with its status.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.client.ethosu_capabilities import Capabilities
from npubox.client.lifetime import Closable, Uses, start_reaper
from npubox.client.node import NodeFile, Opened, call_ioctl, open_node
from npubox.errors import InferenceFailed, InputError, WaitTimeout
from npubox.formats.model import read_model
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi.ethosu_linux import Status

__all__ = ["Buffer", "Capabilities", "Device", "Inference", "Network", "Pmu", "Status"]

MOST_BUFFERS = uapi.FD_MAX


@dataclass(frozen=True)
class Pmu:
    """Performance counters of an inference's last NPU operator: an event number and a count each, and cycles.
    Event 0 is a counter that is off."""

    events: tuple[int, ...]
    counts: tuple[int, ...]
    cycles: int | None


class _Object(Closable):
    """Something behind a descriptor. The device it came from lives as long."""

    def __init__(self, node: NodeFile, device: Uses) -> None:
        self._node = node
        self._device_uses = device
        device.hold()
        super().__init__(Uses(self._free))

    def fileno(self) -> int:
        """The descriptor, for select, asyncio or ioctls of one's own."""
        self._check_open()
        return self._node.fileno()

    def _free(self) -> None:
        self._node.close()
        self._device_uses.drop()

    def _create(self, ioctl: Any, argument: Any) -> NodeFile:
        return self._node.adopt(call_ioctl(self._node, ioctl, argument))


class Device(Closable):
    """An open node: a path of the host's, or a virtual machine such as `imx93-linux`.

    Raises DeviceError where there is no such thing.
    """

    _kind = "device"

    def __init__(self, name: str | os.PathLike[str] = "/dev/ethosu0", *, policy: str | None = None) -> None:
        start_reaper()
        self._opened = open_node(os.fspath(name), policy)
        super().__init__(Uses(self._opened.close))

    @classmethod
    def of(cls, opened: Opened) -> Device:
        """A node that is open already, which is closed with the last object made from it."""
        start_reaper()
        device = cls.__new__(cls)
        device._opened = opened
        Closable.__init__(device, Uses(opened.close))
        return device

    @property
    def node(self) -> NodeFile:
        self._check_open()
        return self._opened.node

    @property
    def machine(self) -> Any | None:
        """The virtual machine behind it; None on real hardware."""
        return self._opened.machine

    @property
    def capabilities(self) -> Capabilities:
        """Asks the firmware. OSError ETIME where it does not answer."""
        told = uapi.DeviceCapabilities()
        call_ioctl(self.node, uapi.CAPABILITIES_REQ, told)
        return Capabilities.of(told)

    def ping(self) -> None:
        """Send a ping; its answer feeds the driver's watchdog."""
        call_ioctl(self.node, uapi.PING, uapi.PING.struct())

    def request_version(self) -> None:
        """Ask the firmware which version of the messages it speaks; the driver logs the answer."""
        call_ioctl(self.node, uapi.VERSION_REQ, uapi.VERSION_REQ.struct())

    def buffer(self, capacity: int) -> Buffer:
        """`capacity` bytes that program and subsystem share. OSError ENOMEM where there is no room."""
        create = uapi.BufferCreate(capacity=_word(capacity, "a buffer's capacity"))
        node = self.node
        return Buffer(node.adopt(call_ioctl(node, uapi.BUFFER_CREATE, create)), self._uses, capacity)

    def network(self, source: Buffer | int | bytes | os.PathLike[str] | str) -> Network:
        """A .tflite, given as a buffer's valid bytes, by content or by path, or the index of a network in the
        firmware. OSError EBADF where the firmware cannot use it."""
        if isinstance(source, int):
            return self._network(uapi.NetworkType.INDEX, _word(source, "a network's index"))
        if isinstance(source, Buffer):
            return self._network(uapi.NetworkType.BUFFER, source.fileno())
        content = source if isinstance(source, bytes) else read_model(Path(source)).content
        with self.buffer(len(content)) as model:  # the network keeps what the descriptor stood for
            model.fill(content)
            return self._network(uapi.NetworkType.BUFFER, model.fileno())

    def _network(self, kind: uapi.NetworkType, number: int) -> Network:
        create = uapi.NetworkCreate(type=kind, fd=number)
        node = self.node
        return Network(node.adopt(call_ioctl(node, uapi.NETWORK_CREATE, create)), self._uses)


class Buffer(_Object):
    """Mapped memory, zeroed at first, of which the bytes from `offset` on, `size` of them, are valid."""

    _kind = "buffer"

    def __init__(self, node: NodeFile, device: Uses, capacity: int) -> None:
        self.capacity = capacity
        super().__init__(node, device)
        try:
            self._mapping = node.mmap(capacity, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, 0)
        except BaseException:
            self.close()
            raise

    @property
    def data(self) -> memoryview:
        """All `capacity` bytes, not a copy; a view that is kept outlives `close`."""
        self._check_open()
        return memoryview(self._mapping)

    def array(
        self, dtype: npt.DTypeLike = np.uint8, shape: tuple[int, ...] = (-1,), offset: int = 0
    ) -> npt.NDArray[Any]:
        """All bytes from `offset` on, or as many as `shape` needs, as a numpy array; not a copy."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape)) if -1 not in shape else (self.capacity - offset) // kind.itemsize
        return np.frombuffer(self.data, kind, count, offset).reshape(shape)

    def valid(self, dtype: npt.DTypeLike = np.uint8, shape: tuple[int, ...] = (-1,)) -> npt.NDArray[Any]:
        """The valid bytes as a numpy array; not a copy."""
        offset, size = self.window
        return np.frombuffer(self.data, np.uint8, size, offset).view(dtype).reshape(shape)

    @property
    def window(self) -> tuple[int, int]:
        """Offset and size of the valid bytes, as the driver has them."""
        told = uapi.Buffer()
        self._check_open()
        call_ioctl(self._node, uapi.BUFFER_GET, told)
        return told.offset, told.size

    @property
    def offset(self) -> int:
        return self.window[0]

    @property
    def size(self) -> int:
        return self.window[1]

    def resize(self, size: int, offset: int = 0) -> None:
        """Say which bytes are valid; nothing moves. OSError EINVAL beyond the capacity."""
        self._check_open()
        window = uapi.Buffer(offset=_word(offset, "an offset"), size=_word(size, "a size"))
        call_ioctl(self._node, uapi.BUFFER_SET, window)

    def clear(self) -> None:
        """No byte is valid."""
        self.resize(0)

    def fill(self, content: bytes | npt.NDArray[Any]) -> None:
        """Write `content` to the start, and say that it is what is valid. Raises InputError where it does not
        fit."""
        flat = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else _bytes(content)
        if flat.size > self.capacity:
            raise InputError(f"{flat.size} bytes do not fit into a buffer of {self.capacity}")
        self.array()[: flat.size] = flat
        self.resize(flat.size)

    def _free(self) -> None:
        with contextlib.suppress(AttributeError, BufferError):  # a view that was kept keeps it mapped
            self._mapping.close()
        super()._free()


class Network(_Object):
    """A network as the firmware sees it: its description, and the bytes of each input and output."""

    _kind = "network"

    def __init__(self, node: NodeFile, device: Uses) -> None:
        super().__init__(node, device)
        told = uapi.NetworkInfo()
        try:
            call_ioctl(node, uapi.NETWORK_INFO, told)
        except BaseException:
            self.close()
            raise
        self.description: str = told.desc.decode("utf-8", "replace")
        self.input_sizes: tuple[int, ...] = tuple(told.ifm_size[: told.ifm_count])
        self.output_sizes: tuple[int, ...] = tuple(told.ofm_size[: told.ofm_count])

    def infer(
        self,
        inputs: Sequence[Buffer],
        outputs: Sequence[Buffer],
        *,
        events: Sequence[int] = (),
        cycles: bool = False,
    ) -> Inference:
        """Start an inference on the valid bytes of `inputs`; what it computes goes behind the valid bytes of
        `outputs` and is valid then. `events` are PMU events to count, `cycles` has cycles counted.

        Raises InputError for more buffers or events than there may be, OSError where the driver refuses.
        """
        self._check_open()
        for what, given, most in (
            ("inputs", inputs, MOST_BUFFERS),
            ("outputs", outputs, MOST_BUFFERS),
            ("PMU events", events, uapi.PMU_EVENT_MAX),
        ):
            if len(given) > most:
                raise InputError(f"an inference has {most} {what} at most, not {len(given)}")
        create = uapi.InferenceCreate(ifm_count=len(inputs), ofm_count=len(outputs))
        create.ifm_fd[: len(inputs)] = [buffer.fileno() for buffer in inputs]
        create.ofm_fd[: len(outputs)] = [buffer.fileno() for buffer in outputs]
        create.pmu_config.events[: len(events)] = events
        create.pmu_config.cycle_count = cycles
        return Inference(self._create(uapi.INFERENCE_CREATE, create), self._device_uses)


class Inference(_Object):
    """A run of a network. Closing it does not cancel it. asyncio and select take it, as it has `fileno`."""

    _kind = "inference"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is over, at most `timeout` seconds. Raises WaitTimeout when it is not,
        InferenceFailed when it did not succeed."""
        if not self.finished(timeout):
            raise WaitTimeout(f"the inference has not finished after {timeout} s; it goes on: wait again")
        status = self.status
        if status is not Status.OK:
            raise InferenceFailed(status.name.lower())

    def finished(self, timeout: float | None = 0) -> bool:
        """Wait at most `timeout` seconds, None for ever; whether it is over then, well or not."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(None if timeout is None else max(0.0, timeout) * 1000))

    @property
    def status(self) -> Status:
        """As it is now."""
        return Status(self._told().status)

    @property
    def pmu(self) -> Pmu:
        """The performance counters, once it succeeded; before that all 0."""
        told = self._told()
        cycles = told.pmu_count.cycle_count if told.pmu_config.cycle_count else None
        return Pmu(tuple(told.pmu_config.events), tuple(told.pmu_count.events), cycles)

    def cancel(self) -> bool:
        """Take it back; whether that worked: what is over cannot be. One that runs already ends with a reset
        of the subsystem. OSError EIO where the firmware does not answer."""
        self._check_open()
        told = uapi.CancelInferenceStatus()
        call_ioctl(self._node, uapi.INFERENCE_CANCEL, told)
        return bool(told.status == Status.OK)

    def _told(self) -> uapi.ResultStatus:
        self._check_open()
        told = uapi.ResultStatus()
        call_ioctl(self._node, uapi.INFERENCE_STATUS, told)
        return told


def _bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _word(value: int, what: str) -> int:
    if not 0 <= value < 1 << 8 * ctypes.sizeof(ctypes.c_uint32):
        raise InputError(f"{what} is a number of 32 bits, not {value}")
    return value
