# SPDX-License-Identifier: Apache-2.0
"""A command stream decoded once: what the NPU does, in order, until OP_STOP or what it refuses.

Streams may hold tens of thousands of operations that differ only in where their feature maps lie. Such a
family is decoded, checked and priced once; of each further member only what its place decides is checked.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.commands import (
    BadCommand,
    Command,
    RegisterFile,
    check_exists,
    commands,
)
from npubox.devices.ethosu_npu.configuration import Configuration
from npubox.devices.ethosu_npu.cycles import Cost, Timeline
from npubox.devices.ethosu_npu.decode import build_operation, shift_from
from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.kernels.program import _SHARED_WORK
from npubox.devices.ethosu_npu.operations import Convolution, Dma, FeatureMap, Irq, Operation, Shift, Stop
from npubox.devices.ethosu_npu.program import Program, Step
from npubox.devices.ethosu_npu.steps import build_step

_UNMOVED = Shift()


@dataclass(frozen=True, eq=False)
class Family:
    """Operations with the same command and registers, but for `FM_BASES`. `operation` and `step` are those of
    its first member, `alone` what each costs by itself; `step` is None for STOP and IRQ."""

    operation: Operation
    step: Step | None
    alone: Cost

    @cached_property
    def shared(self) -> bool:
        """Whether two threads may share the work of a member."""
        operation = self.operation
        if not isinstance(operation, Convolution):
            return False
        ofm, window = operation.ofm, operation.window
        depth = 1 if operation.depthwise else operation.ifm.depth
        products = ofm.height * ofm.width * ofm.depth * window.height * window.width * depth
        return products >= _SHARED_WORK


class Entry(NamedTuple):
    """One operation of the stream, which lies `shift` behind the first of its family."""

    command: Command
    cost: Cost
    family: Family
    shift: Shift

    @property
    def step(self) -> Step | None:
        """None for STOP and IRQ."""
        step = self.family.step
        return step if step is None or self.shift is _UNMOVED else step.moved(self.shift)

    @property
    def irq_mask(self) -> int:
        """What STOP and IRQ carry."""
        operation = self.family.operation
        return operation.irq_mask if isinstance(operation, Stop | Irq) else 0

    @property
    def ofm(self) -> FeatureMap | None:
        """What it writes; None for STOP, IRQ and DMA."""
        operation = self.family.operation
        return None if isinstance(operation, Dma | Stop | Irq) else operation.ofm.moved(self.shift.ofm)


@dataclass(frozen=True)
class Refusal:
    """Where the stream goes beyond what is modelled; everything before it is executed."""

    name: str
    offset: int
    reason: str


@dataclass(frozen=True)
class Plan:
    words: bytes
    entries: tuple[Entry, ...]
    refusal: Refusal | None

    @cached_property
    def program(self) -> Program:
        return Program([(entry.family, entry.shift) for entry in self.entries])

    @cached_property
    def cycles(self) -> tuple[int, ...]:
        """What entries before the n-th take together."""
        return tuple(accumulate((entry.cost.total for entry in self.entries), initial=0))

    @cached_property
    def shared_cycles(self) -> int:
        """What the convolutions take that are large enough for two threads."""
        return sum(entry.cost.total for entry in self.entries if entry.family.shared)

    @cached_property
    def _costs(self) -> npt.NDArray[np.int64]:
        costs = [astuple(entry.cost) for entry in self.entries]
        return np.array(costs, np.int64).reshape(len(costs), len(fields(Cost)))

    def cost(self, first: int = 0, last: int | None = None) -> Cost:
        """What entries `first` .. `last` - 1 cost together; all, unless told."""
        return Cost(*self._costs[first:last].sum(axis=0).tolist())

    @cached_property
    def operations(self) -> tuple[int, ...]:
        """How many of the entries before the n-th are operations, not STOP or IRQ."""
        return tuple(accumulate((entry.family.step is not None for entry in self.entries), initial=0))

    @cached_property
    def last(self) -> int:
        """The index of OP_STOP; -1 where the stream does not get that far."""
        return len(self.entries) - 1 if self.refusal is None else -1

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each entry's command, then of the end: what QREAD shows."""
        return (*(entry.command.offset for entry in self.entries), len(self.words))


class _Planner:
    """Decodes the operations of one stream."""

    def __init__(self, configuration: Configuration) -> None:
        self.registers = RegisterFile()
        self._configuration = configuration
        self._timeline = Timeline(configuration)
        self._families: dict[tuple[object, ...], Family] = {}

    def entry(self, command: Command) -> Entry | None:
        """The operation that `command` starts; None for one without effect on results. Raises Refused."""
        key = self.registers.state, command.operation, command.parameter
        family = self._families.get(key)
        shift = shift_from(self.registers, family.operation) if family is not None else None
        if family is None or shift is None:
            operation = build_operation(self.registers, command, self._configuration.cores)
            if operation is None:
                self._timeline.wait(command)
                return None
            alone = self._timeline.alone(operation, self.registers)
            step = None
            if not isinstance(operation, Stop | Irq):
                step = build_step(operation, self._configuration.ofm_microblock)
            family, shift = Family(operation, step, alone), _UNMOVED
            self._families[key] = family
        return Entry(command, self._timeline.place(family.operation, family.alone), family, shift)


def build_plan(words: bytes, configuration: Configuration) -> Plan:
    """Decode `words` up to OP_STOP or the first command that cannot be executed."""
    planner = _Planner(configuration)
    entries: list[Entry] = []
    refusal = Refusal("end of stream", len(words), "the stream ends without OP_STOP")
    command: Command | None = None
    try:
        for command in commands(words):
            check_exists(command, configuration.product)
            if command.register is not None:
                planner.registers.write(command)
                continue
            entry = planner.entry(command)
            if entry is not None:
                entries.append(entry)
                if isinstance(entry.family.operation, Stop):
                    return Plan(words, tuple(entries), None)
    except BadCommand as error:
        refusal = Refusal(error.name, error.offset, str(error))
    except Refused as error:
        assert command is not None
        refusal = Refusal(command.name, command.offset, str(error))
    return Plan(words, tuple(entries), refusal)
