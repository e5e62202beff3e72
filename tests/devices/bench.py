# SPDX-License-Identifier: Apache-2.0
"""A workbench below the client: raw buffers of one machine, written and read as a program would."""

from __future__ import annotations

import os
import time

import numpy as np
import numpy.typing as npt

from npubox.client.ethosu_accel import FOREVER, EthosuAccel
from npubox.devices.ethosu_npu.commands import RegisterFile, commands
from npubox.devices.ethosu_npu.decode import build_operation
from npubox.devices.ethosu_npu.operations import Convolution, Dma
from npubox.formats.network import Network, NpuOperator
from npubox.machines.control import JobReport
from npubox.machines.machine import Machine

Bytes = npt.NDArray[np.uint8]


def npu_operator(network: Network) -> NpuOperator:
    """The one NPU operator of a network that Vela placed wholly on the NPU."""
    (operator,) = network.operators
    assert operator.npu is not None
    return operator.npu


class Bench:
    """A network's command stream, constants and arena in buffer objects of `machine`."""

    def __init__(self, machine: Machine, network: Network) -> None:
        self.npu = npu_operator(network)
        self.network = network
        self._machine = machine
        self._node = machine.open_node()
        self._accel = EthosuAccel(self._node)
        self._jobs = 0
        constants = network.tensors[self.npu.read_only].data
        assert constants is not None
        self.constants = self._buffer(max(1, constants.size))
        self.constants[1][: constants.size] = constants
        self.arena = self._buffer(network.arena_size)
        dedicated = self.npu.scratch_fast != self.npu.scratch
        self.sram_size = network.tensors[self.npu.scratch_fast].nbytes if dedicated else 0

    def _buffer(self, size: int) -> tuple[int, Bytes]:
        handle = self._accel.bo_create(size)
        return handle, np.frombuffer(self._accel.bo_map(handle, size), np.uint8)

    def set_inputs(self, *arrays: npt.NDArray[np.generic]) -> None:
        for index, array in zip(self.network.inputs, arrays, strict=True):
            tensor = self.network.tensors[index]
            assert tensor.arena_offset is not None
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.arena[1][tensor.arena_offset : tensor.arena_offset + tensor.nbytes] = data

    def output(self) -> Bytes:
        """The bytes of the network's first output."""
        tensor = self.network.tensors[self.network.outputs[0]]
        assert tensor.arena_offset is not None
        return self.arena[1][tensor.arena_offset : tensor.arena_offset + tensor.nbytes].copy()

    def submit(self, words: bytes | None = None) -> int:
        """Queue the stream (or `words` in its place); the job's number. OSError as the kernel refuses."""
        command = self._accel.cmdstream_bo_create(self.npu.stream.words if words is None else words)
        try:
            regions = [self.constants[0], self.arena[0], 0, 0, 0, 0, 0, 0]
            self._accel.submit(command, regions, self.sram_size)
        finally:
            self._accel.gem_close(command)
        self._jobs += 1
        return self._jobs - 1

    @property
    def client_id(self) -> int:
        """Of the open file, as the control channel knows it."""
        return self._node.client_id

    def poll(self) -> bool:
        """Whether nothing writes the arena any more, without waiting."""
        return self._accel.bo_wait(self.arena[0], 0)

    def wait(self, job: int) -> JobReport:
        """Wait as a program does, then for the report: a damaged stream may not write the arena at all,
        and OP_IRQ ends a job early for the kernel."""
        assert self._accel.bo_wait(self.arena[0], FOREVER)
        while (report := self._machine.control.job(self.client_id, job)) is None:
            time.sleep(0.0005)
        return report

    def run(self, words: bytes | None = None) -> JobReport:
        return self.wait(self.submit(words))

    def sram(self) -> Bytes:
        """A copy of the on-chip SRAM's bytes."""
        pool = self._machine.sram
        assert pool is not None
        return np.frombuffer(os.pread(pool.fd, pool.size, pool.offset), np.uint8).copy()

    def close(self) -> None:
        self._node.close()


def weight_ranges(network: Network) -> list[range]:
    """Where the weight streams lie in region 0, those that DMA first brings to the SRAM included."""
    registers = RegisterFile()
    copies: list[Dma] = []
    ranges: list[range] = []
    for command in commands(npu_operator(network).stream.words):
        if command.register is not None:
            registers.write(command)
            continue
        operation = build_operation(registers, command, cores=1)
        if isinstance(operation, Dma):
            copies.append(operation)
        if not isinstance(operation, Convolution):
            continue
        (start, size) = operation.weight_streams[0]
        if operation.weight_region != 0:
            (copy,) = [
                dma
                for dma in copies
                if dma.target_region == operation.weight_region
                and dma.target <= start
                and start + size <= dma.target + dma.length
            ][-1:]
            assert copy.source_region == 0
            start += copy.source - copy.target
        ranges.append(range(start, start + size))
    return ranges
