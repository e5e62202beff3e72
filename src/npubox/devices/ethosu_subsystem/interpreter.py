# SPDX-License-Identifier: Apache-2.0
"""Runs networks on one NPU, and what Vela left over on the Cortex-M: the firmware's tflite-micro.

An interpreter is made for each inference, so state tensors start afresh every time, as in Arm's firmware
(its InferenceProcess; facts, ethosu-linux.md §2.6). Operators of the Cortex-M run on `npubox.fallback`'s
kernels; their device time is not modelled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.bus.virtual import DmaFault
from npubox.devices.ethosu_npu.memory import Memory
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import Failure
from npubox.devices.ethosu_subsystem.npu_driver import Counters, NpuDriver
from npubox.devices.ethosu_subsystem.program import Placement, Program
from npubox.errors import NpuboxError
from npubox.formats.network import Operator, Tensor

KEPT_PROGRAMS = 4


class Interpreter:
    """One inference task's. `networks` are where the firmware's own networks lie."""

    def __init__(self, memory: Memory, driver: NpuDriver, arena: Range, fast: Range | None) -> None:
        self._memory = memory
        self._driver = driver
        self._arena = arena
        self._fast = fast
        self._programs: OrderedDict[Range, Program] = OrderedDict()

    def run(
        self,
        model: Range,
        inputs: Sequence[Range],
        outputs: Sequence[Range],
        events: Sequence[int],
        cycles: bool,
    ) -> tuple[list[int], Counters]:
        """One inference: bytes written to each output, and the counters of its last NPU operator. Raises
        Failure, or PoweredOff."""
        try:
            program = self._program(model)
            _check("input", program.inputs, inputs, exact=True)
            _check("output", program.outputs, outputs, exact=False)
            placement = Placement(program, model.address, self._arena, self._fast)
            counters = Counters(tuple(events), (0,) * len(events), 0)
            self._fill(program, placement, inputs)
            for operator in program.network.operators:
                self._driver.check_powered()
                if operator.npu is None:
                    self._run_on_cpu(program, placement, operator)
                    continue
                self._driver.check(operator.npu.stream.config, operator.npu.stream.npu_id)
                counters = self._driver.run(
                    placement.stream(operator, operator.npu),
                    len(operator.npu.stream.words),
                    placement.bases(operator, operator.npu),
                    events,
                    cycles,
                )
            for tensor, target in zip(program.outputs, outputs, strict=True):
                result = self._memory.view(placement.address(tensor), tensor.nbytes)
                self._memory.view(target.address, tensor.nbytes, write=True)[:] = result
        except DmaFault as fault:
            raise Failure(str(fault)) from fault
        except NpuboxError as error:
            raise Failure(str(error)) from error
        return [tensor.nbytes for tensor in program.outputs], counters

    def interrupt(self) -> None:
        """Have an operator that runs on the Cortex-M now fail. Any thread may call it."""
        for program in list(self._programs.values()):
            program.kernels.interrupt()

    def close(self) -> None:
        for program in self._programs.values():
            program.close()
        self._programs.clear()

    def _program(self, model: Range) -> Program:
        """The network at that place: the one prepared earlier where its bytes are the same."""
        content = self._memory.view(model.address, model.size)
        program = self._programs.get(model)
        if program is None or not program.holds(content):
            if program is not None:
                self._programs.pop(model).close()
            program = self._programs[model] = Program(content.tobytes())
            if len(self._programs) > KEPT_PROGRAMS:
                self._programs.popitem(last=False)[1].close()
        self._programs.move_to_end(model)
        return program

    def _fill(self, program: Program, placement: Placement, inputs: Sequence[Range]) -> None:
        """State as before the first inference (facts, ethosu-npu.md §1), and the inputs."""
        for tensor in program.network.variables:
            quantization = tensor.quantization
            zero = quantization.zero_points[0] if quantization and tensor.dtype.itemsize == 1 else 0
            self._view(placement, tensor, write=True)[...] = np.full(tensor.shape, zero).astype(tensor.dtype)
        for tensor, source in zip(program.inputs, inputs, strict=True):
            target = self._memory.view(placement.address(tensor), tensor.nbytes, write=True)
            target[:] = self._memory.view(source.address, source.size)

    def _run_on_cpu(self, program: Program, placement: Placement, operator: Operator) -> None:
        read = (program.tensor(index) for index in operator.inputs if index >= 0)
        arrays = {tensor.index: self._view(placement, tensor) for tensor in read if tensor.data is None}
        for index, array in program.kernels.run(operator, arrays).items():
            self._view(placement, program.tensor(index), write=True)[...] = array

    def _view(self, placement: Placement, tensor: Tensor, write: bool = False) -> npt.NDArray[Any]:
        view = self._memory.view(placement.address(tensor), tensor.nbytes, write)
        return view.view(tensor.dtype).reshape(tensor.shape)


def _check(what: str, tensors: Sequence[Tensor], buffers: Sequence[Range], *, exact: bool) -> None:
    if len(tensors) != len(buffers):
        raise Failure(f"the network has {len(tensors)} {what}s, the request {len(buffers)} buffers for them")
    for number, (tensor, buffer) in enumerate(zip(tensors, buffers, strict=True)):
        if buffer.size < tensor.nbytes or (exact and buffer.size != tensor.nbytes):
            raise Failure(
                f"{what} {number} of the network has {tensor.nbytes} bytes, the buffer given for it"
                f" {buffer.size}"
            )
