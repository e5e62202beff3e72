# SPDX-License-Identifier: Apache-2.0
"""The common face over Arm's driver of a subsystem: the firmware runs the whole .tflite, so a network is one
buffer, and an inference a buffer for each input and output."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from npubox.client import ethosu
from npubox.client.backend import Array
from npubox.client.buffers import Buffer
from npubox.client.ethosu_accel import FOREVER, NpuInfo
from npubox.client.lifetime import Uses
from npubox.client.node import Opened
from npubox.errors import DeviceError, InferenceFailed, InputError, ModelError
from npubox.formats.network import Network as Graph
from npubox.uapi.ethosu_linux import Status

POOLED = 4
_NS = 1_000_000_000


class SubsystemBackend:
    """A `Backend`."""

    def __init__(self, opened: Opened) -> None:
        self.name = opened.name
        self.machine = opened.machine
        self.device = ethosu.Device.of(opened)
        told = self.device.capabilities
        self.info = NpuInfo(told.id_word, told.config_word, 0)
        self.uses = Uses(self.device.close)
        self._part = None
        if self.machine is not None:
            self._part = self.machine.part_of(opened.path)
            self._part.control.follow(opened.node.client_id)  # type: ignore[attr-defined]
        self._node = opened.node
        self._start_lock = threading.Lock()
        self._started = 0

    @property
    def policy(self) -> str | None:
        return self.machine.info.policy if self.machine is not None else None

    @property
    def vela(self) -> tuple[str | None, str | None]:
        if self._part is None:
            return None, None
        return self._part.preset.vela_system_config, self._part.preset.vela_memory_mode

    def load(self, graph: Graph) -> SubsystemNetwork:
        return SubsystemNetwork(self, graph)

    def buffer(self, size: int) -> Buffer:
        _no_arena()

    def dump_layers(self, directory: Path) -> AbstractContextManager[None]:
        raise DeviceError(
            f"{self.name} does not show what its operations write: open the NPU itself, such as ethos-u65-256"
        )

    def start(self, begin: Callable[[], ethosu.Inference]) -> tuple[ethosu.Inference, int]:
        """Begin an inference; it, and its number among this node's, from 0."""
        with self._start_lock:
            inference = begin()
            self._started += 1
            return inference, self._started - 1

    def outcome(self, sequence: int, status: Status) -> tuple[int | None, int | None]:
        """Cycles and device time of an inference that is over, None on real hardware. Raises InferenceFailed
        with what the control channel knows of one that did not succeed."""
        told = self._part and self._part.control.job(self._node.client_id, sequence)  # type: ignore[attr-defined]
        if status is Status.OK:
            return (told.cycles, told.end_ns - told.start_ns) if told else (None, None)
        if not told or told.fault is None:
            raise InferenceFailed(status.name.lower(), told.reason if told else None)
        fault = told.fault
        raise InferenceFailed(
            status.name.lower(),
            fault.reason,
            command=fault.command,
            offset=fault.offset,
            address=fault.address,
        )

    def forget(self, sequence: int) -> None:
        """Nobody will ask for the outcome of this inference."""
        if self._part is not None:
            self._part.control.forget(self._node.client_id, sequence)  # type: ignore[attr-defined]


class Buffers:
    """What one inference reads and writes."""

    def __init__(self, device: ethosu.Device, graph: Graph) -> None:
        self.inputs = [device.buffer(graph.tensors[index].nbytes) for index in graph.inputs]
        self.outputs = [device.buffer(graph.tensors[index].nbytes) for index in graph.outputs]

    def close(self) -> None:
        for buffer in (*self.inputs, *self.outputs):
            buffer.close()


class SubsystemNetwork:
    """A `LoadedNetwork`. The firmware starts state afresh with each inference, so none persists."""

    stateful = False
    generator: str | None
    stand_in_kernels: tuple[tuple[str, str], ...] = ()

    def __init__(self, backend: SubsystemBackend, graph: Graph) -> None:
        self.graph = graph
        self.backend = backend
        self.inputs = [graph.tensors[index] for index in graph.inputs]
        self.outputs = [graph.tensors[index] for index in graph.outputs]
        made = (operator.npu.stream.generator for operator in graph.operators if operator.npu is not None)
        self.generator = next(made, None)
        self._pool: list[Buffers] = []
        self._lock = threading.Lock()
        try:
            self._network = backend.device.network(graph.content)
        except OSError as error:
            raise ModelError(
                f"{backend.name} refuses {graph.name} ({error.strerror}): compile it again"
            ) from error
        backend.uses.hold()
        self.uses = Uses(self._free)

    def start(self, values: list[Array], arena: Buffer | None) -> SubsystemRun:
        if arena is not None:
            _no_arena()
        with self._lock:
            buffers = self._pool.pop() if self._pool else None
        return SubsystemRun(self, buffers or Buffers(self.backend.device, self.graph), values)

    def new_state(self) -> NoReturn:
        raise InputError("a subsystem's firmware starts state afresh with each inference: it has no sessions")

    def begin(self, buffers: Buffers) -> ethosu.Inference:
        return self._network.infer(buffers.inputs, buffers.outputs)

    def give_back(self, buffers: Buffers) -> None:
        """Recycle the buffers of an inference that has ended."""
        with self._lock:
            if len(self._pool) < POOLED:
                self._pool.append(buffers)
                return
        buffers.close()

    def _free(self) -> None:
        for buffers in self._pool:
            buffers.close()
        self._network.close()
        self.backend.uses.drop()


class SubsystemRun:
    """A `Run`, started when made."""

    def __init__(self, network: SubsystemNetwork, buffers: Buffers, values: list[Array]) -> None:
        self.error: BaseException | None = None
        self.outputs: tuple[Array, ...] = ()
        self.cycles: int | None = None
        self.device_time_ns: int | None = None
        self._network = network
        self._buffers = buffers
        self._ended = False
        self._lock = threading.Lock()
        try:
            for buffer, value in zip(buffers.inputs, values, strict=True):
                buffer.fill(value)
            for buffer in buffers.outputs:
                buffer.clear()
            self._inference, self._sequence = network.backend.start(lambda: network.begin(buffers))
        except BaseException:
            buffers.close()
            raise
        network.uses.hold()
        self.uses = Uses(self._close)

    def advance(self, deadline: int) -> bool:
        with self._lock:
            if self._ended:
                return True
            self.uses.hold()  # raises for one that was closed before it ended
        try:
            if not self._inference.finished(
                None if deadline == FOREVER else deadline / _NS - time.monotonic()
            ):
                return False
            with self._lock:
                if not self._ended:
                    self._finish()
        finally:
            self.uses.drop()
        return True

    def cancel(self) -> None:
        with self._lock:
            if self._ended:
                return
            self.uses.hold()
        try:
            self._inference.cancel()
        finally:
            self.uses.drop()

    def _finish(self) -> None:
        try:
            status = self._inference.status
            self.cycles, self.device_time_ns = self._network.backend.outcome(self._sequence, status)
            self.outputs = tuple(
                buffer.valid(tensor.dtype, tensor.shape).copy()
                for buffer, tensor in zip(self._buffers.outputs, self._network.outputs, strict=True)
            )
        except BaseException as error:
            self.error = error
        self._ended = True
        self._network.give_back(self._buffers)

    def _close(self) -> None:
        self._inference.close()
        if not self._ended:
            self._network.backend.forget(self._sequence)
            self._buffers.close()  # the driver keeps what they stand for until the run is over
        self._network.uses.drop()


def _no_arena() -> NoReturn:
    raise InputError(
        "a subsystem's firmware has an arena of its own: leave `arena` out; npubox.ethosu has its buffers"
    )
