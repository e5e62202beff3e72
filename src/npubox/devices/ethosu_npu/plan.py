# SPDX-License-Identifier: Apache-2.0
"""A command stream decoded once: what the NPU does, in order, until OP_STOP or what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from npubox.devices.ethosu_npu.commands import (
    BadCommand,
    Command,
    RegisterFile,
    check_exists,
    commands,
)
from npubox.devices.ethosu_npu.configuration import Configuration
from npubox.devices.ethosu_npu.cycles import Cost, Timeline
from npubox.devices.ethosu_npu.decode import build_operation
from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.operations import Dma, FeatureMap, Irq, Stop
from npubox.devices.ethosu_npu.program import Program, Step
from npubox.devices.ethosu_npu.steps import build_step


@dataclass(frozen=True)
class Entry:
    """One operation of the stream; `step` is None for STOP and IRQ, which carry their `irq_mask`. `ofm` is
    what it writes, None for those and for DMA."""

    command: Command
    cost: Cost
    step: Step | None = None
    irq_mask: int = 0
    ofm: FeatureMap | None = None


@dataclass(frozen=True)
class Refusal:
    """Where the stream goes beyond what is modelled; everything before it is executed."""

    name: str
    offset: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """`costs[n]` is what entries before the n-th cost together."""

    words: bytes
    entries: tuple[Entry, ...]
    refusal: Refusal | None

    @cached_property
    def program(self) -> Program:
        return Program([entry.step for entry in self.entries])

    @cached_property
    def costs(self) -> tuple[Cost, ...]:
        return tuple(accumulate((entry.cost for entry in self.entries), initial=Cost(0)))

    @cached_property
    def operations(self) -> tuple[int, ...]:
        """How many of the entries before the n-th are operations, not STOP or IRQ."""
        return tuple(accumulate((entry.step is not None for entry in self.entries), initial=0))

    @cached_property
    def cycles(self) -> tuple[int, ...]:
        """The totals of `costs`."""
        return tuple(cost.total for cost in self.costs)

    @cached_property
    def last(self) -> int:
        """The index of OP_STOP; -1 where the stream does not get that far."""
        return len(self.entries) - 1 if self.refusal is None else -1

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each entry's command, then of the end: what QREAD shows."""
        return (*(entry.command.offset for entry in self.entries), len(self.words))


def build_plan(words: bytes, configuration: Configuration) -> Plan:
    """Decode `words` up to OP_STOP or the first command that cannot be executed."""
    registers, timeline = RegisterFile(), Timeline(configuration)
    entries: list[Entry] = []
    refusal = Refusal("end of stream", len(words), "the stream ends without OP_STOP")
    command: Command | None = None
    try:
        for command in commands(words):
            check_exists(command, configuration.product)
            if command.register is not None:
                registers.write(command)
                continue
            operation = build_operation(registers, command, configuration.cores)
            if operation is None:
                timeline.wait(command)
                continue
            price = timeline.cost(operation, registers)
            if isinstance(operation, Stop | Irq):
                entries.append(Entry(command, price, irq_mask=operation.irq_mask))
                if isinstance(operation, Stop):
                    return Plan(words, tuple(entries), None)
            else:
                step = build_step(operation, configuration.ofm_microblock)
                entries.append(
                    Entry(command, price, step, ofm=None if isinstance(operation, Dma) else operation.ofm)
                )
    except BadCommand as error:
        refusal = Refusal(error.name, error.offset, str(error))
    except Refused as error:
        assert command is not None
        refusal = Refusal(command.name, command.offset, str(error))
    return Plan(words, tuple(entries), refusal)
