# SPDX-License-Identifier: Apache-2.0
"""A compiled network on a device: constants and command streams as buffer objects, arenas to run in."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass

import numpy as np

from npubox.client.buffers import BufferObject
from npubox.client.hardware import Hardware
from npubox.client.lifetime import Uses
from npubox.client.memory import ARENA, CONSTANTS, FAST, INPUTS, OUTPUTS, Layout, Memory
from npubox.client.regions import used_regions
from npubox.errors import ModelError
from npubox.fallback.kernels import Kernels
from npubox.formats.network import Network as Graph
from npubox.formats.network import NpuOperator, Operator, Tensor
from npubox.uapi.ethosu_accel import REGIONS

_POOLED_ARENAS = 4


@dataclass(frozen=True)
class NpuStep:
    """An `ethos-u` operator as a job. `regions` gives the bytes of those that are the inference's memory. The
    fast scratch is on-chip SRAM, or memory too where that is too small."""

    name: str
    command: int
    constants: BufferObject | None
    sram_size: int
    regions: dict[int, int]

    def submit(self, hardware: Hardware, memory: Memory) -> int:
        """Queue it; the job's number. Raises ModelError where the driver finds it reaching too far."""
        try:
            return hardware.submit(self.command, self._handles(memory), self.sram_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EOVERFLOW):
                raise
            raise _refused(hardware, f"the job of {self.name}", error) from error

    def _handles(self, memory: Memory) -> list[int]:
        """The handle of each region, 0 where there is none."""
        handles = [0] * REGIONS
        for region in self.regions:
            handles[region] = memory.buffers[region].handle
        if self.constants is not None:
            handles[CONSTANTS] = self.constants.handle
        return handles


@dataclass(frozen=True)
class CpuStep:
    """An operator that the compiler left to the CPU; it runs on the reference kernels."""

    operator: Operator
    tensors: tuple[Tensor, ...]
    kernels: Kernels

    def run(self, memory: Memory) -> None:
        read = (self.tensors[index] for index in self.operator.inputs if index >= 0)
        arrays = {tensor.index: memory.read(tensor) for tensor in read if tensor.data is None}
        for index, array in self.kernels.run(self.operator, arrays).items():
            memory.write(self.tensors[index], array)


class Program:
    """Shared by a Network and its inferences; what it holds on the device is freed with the last of them."""

    def __init__(self, hardware: Hardware, graph: Graph) -> None:
        self.graph = graph
        self.hardware = hardware
        self.inputs = [graph.tensors[index] for index in graph.inputs]
        self.outputs = [graph.tensors[index] for index in graph.outputs]
        self._kernels = Kernels(graph)
        self._constants: dict[int, BufferObject] = {}
        self._commands: list[int] = []
        self._pool: list[Memory] = []
        self._lock = threading.Lock()
        hardware.uses.hold()
        self.uses = Uses(self._free)
        try:
            self.steps = [self._step(operator) for operator in graph.operators]
        except BaseException:
            self.uses.drop()
            raise
        self._layout = self._plan_memory()

    @property
    def generator(self) -> str | None:
        """Vela's back end that made the command streams; None where there are none."""
        made = (
            operator.npu.stream.generator for operator in self.graph.operators if operator.npu is not None
        )
        return next(made, None)

    @property
    def stand_in_kernels(self) -> tuple[tuple[str, str], ...]:
        """CPU operators that ran on others than LiteRT's reference kernels, and on whose."""
        return self._kernels.stand_ins

    def take_memory(self) -> Memory:
        """An arena for one inference: one that an earlier inference gave back, or a new one."""
        with self._lock:
            if self._pool:
                return self._pool.pop()
        size = self._layout.size
        return self.memory_in(BufferObject(self.hardware, size) if size else None)

    def memory_in(self, arena: BufferObject | None) -> Memory:
        """Memory with `arena`, of which this takes over one use."""
        return Memory(self._layout, self.hardware, arena)

    def _plan_memory(self) -> Layout:
        regions: dict[int, int] = {}
        for step in self.steps:
            if isinstance(step, NpuStep):
                for region, size in step.regions.items():
                    regions[region] = max(size, regions.get(region, 0))
        home = INPUTS if INPUTS in regions else ARENA
        size = regions.pop(home, self.graph.arena_size)
        apart = dict.fromkeys(self.graph.outputs, OUTPUTS) if OUTPUTS in regions else {}
        return Layout(home, size, regions, apart)

    def give_back(self, memory: Memory) -> None:
        """Recycle the arena of an inference that has ended."""
        with self._lock:
            if len(self._pool) < _POOLED_ARENAS:
                self._pool.append(memory)
                return
        memory.drop()

    def reset_state(self, memory: Memory) -> None:
        """State as before the first inference: int8 at its zero point, int16 at 0 (facts,
        ethosu-npu.md §1)."""
        for tensor in self.graph.variables:
            quantization = tensor.quantization
            start = quantization.zero_points[0] if quantization and tensor.dtype.itemsize == 1 else 0
            memory.write(tensor, np.full(tensor.shape, start, tensor.dtype))

    def _step(self, operator: Operator) -> NpuStep | CpuStep:
        if operator.npu is None:
            return CpuStep(operator, self.graph.tensors, self._kernels)
        return self._npu_step(f"operator {operator.index} of {self.graph.name}", operator.npu)

    def _npu_step(self, name: str, npu: NpuOperator) -> NpuStep:
        used = used_regions(npu.stream.words)
        self._check_regions(name, npu, used)
        if self.graph.tensors[npu.scratch].arena_offset:
            raise ModelError(f"{name} has its scratch inside the arena, not at its start: compile it again")
        sizes = {ARENA: self.graph.arena_size, FAST: self.graph.tensors[npu.scratch_fast].nbytes}
        if npu.stream.separate_io:
            sizes[ARENA] = self.graph.tensors[npu.scratch].nbytes
            sizes[INPUTS] = sizes[OUTPUTS] = self.graph.arena_size
        regions = {region: size for region, size in sizes.items() if region in used}
        sram_size = 0
        if regions.get(FAST, 0) <= self.hardware.info.sram_size:
            sram_size = regions.pop(FAST, 0)
        return NpuStep(
            name=name,
            command=self._command(name, npu.stream.words),
            constants=self._constant(name, self.graph.tensors[npu.read_only]) if CONSTANTS in used else None,
            sram_size=sram_size,
            regions=regions,
        )

    def _check_regions(self, name: str, npu: NpuOperator, used: frozenset[int]) -> None:
        served = {CONSTANTS, ARENA} if npu.scratch == npu.scratch_fast else {CONSTANTS, ARENA, FAST}
        needed = {ARENA}
        if npu.stream.separate_io:
            needed = {INPUTS, OUTPUTS}
            if len(self.graph.operators) > 1 or self.graph.variables:
                raise ModelError(
                    f"{name} has separate regions for inputs and outputs, which npubox takes of networks that"
                    " are one operator without state: compile it without --separate-io-regions"
                )
        if not used <= served | needed or not needed <= used:
            raise ModelError(
                f"{name} works in regions {sorted(used)}: npubox serves {sorted(served | needed)} and needs"
                f" {sorted(needed)} for inputs and outputs; compile it again"
            )

    def _constant(self, name: str, tensor: Tensor) -> BufferObject:
        if tensor.data is None or not tensor.data.nbytes:
            raise ModelError(
                f"{name} reads constants and its tensor {tensor.name!r} holds none: compile it again"
            )
        if tensor.index not in self._constants:
            buffer = self._constants[tensor.index] = BufferObject(self.hardware, tensor.data.nbytes)
            buffer.bytes[:] = tensor.data.reshape(-1).view(np.uint8)
        return self._constants[tensor.index]

    def _command(self, name: str, words: bytes) -> int:
        try:
            handle = self.hardware.accel.cmdstream_bo_create(words)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise _refused(self.hardware, f"the command stream of {name}", error) from error
        self._commands.append(handle)
        return handle

    def _free(self) -> None:
        self._kernels.close()
        with self._lock:
            pool, self._pool = self._pool, []
        for memory in pool:
            memory.drop()
        for buffer in self._constants.values():
            buffer.uses.drop()
        for handle in self._commands:
            self.hardware.close_handle(handle)
        self.hardware.uses.drop()


def _refused(hardware: Hardware, what: str, error: OSError) -> ModelError:
    """What the driver said, as far as its way to us carries more than the errno, and what may help."""
    assert error.errno is not None
    reason = errno.errorcode[error.errno]
    if error.strerror and error.strerror != os.strerror(error.errno):
        reason += f", {error.strerror}"
    if hardware.policy == "hardware":
        advice = "it is damaged; compile it again"
    elif hardware.policy is not None:
        advice = (
            f'an NPU may run what Linux\'s driver refuses: open {hardware.name} with the policy "hardware"'
            " (--policy hardware)"
        )
    else:
        advice = "it is damaged, or does what Linux's driver does not allow; compile it again"
    return ModelError(f"the driver refuses {what} ({reason}): {advice}")
