# SPDX-License-Identifier: Apache-2.0
"""The firmware's driver of one NPU: it knows the registers and nothing else of it.

Source: the project's facts (ethosu-npu.md §1.2, §9; ethosu-linux.md §2.6).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from npubox.bus.virtual import InterruptLine, RegisterDevice
from npubox.devices.ethosu_subsystem.faults import Failure, PoweredOff
from npubox.hw.ethosu.pmu_events import EVENT_CODES, NO_EVENT
from npubox.hw.ethosu.registers import (
    BASEP_COUNT,
    PMCR_NUM_EVENT_CNT_SHIFT,
    PMU_CYCLE_BIT,
    Cmd,
    Event,
    Pmcr,
    Reg,
    Status,
)

VERSION = (0, 16, 0)
BASE_ALIGNMENT = 16
RESET_PRIVILEGED_SECURE = 0
REGIONCFG_SRAM_IS_2 = 0xAA8A
FAULTS = Status.BUS_ERROR | Status.PARSE_ERROR | Status.WD_FAULT | Status.ECC_FAULT
CONFIG_MUST_MATCH = 0xFFFF  # SHRAM, stream version, MACs


@dataclass(frozen=True)
class Counters:
    """What the PMU counted during one run: event numbers, their counts, and cycles where asked for."""

    events: tuple[int, ...]
    counts: tuple[int, ...]
    cycles: int


class NpuDriver:
    """Serves one thread, but for `abandon`. While that waits for the NPU it is lent to it by `lend`, see
    `npubox.bus.port.Port.lend`."""

    def __init__(self, npu: RegisterDevice, line: InterruptLine, lend: Callable[[int | None], bool]) -> None:
        self._npu = npu
        self._lend = lend
        self._interrupted = threading.Event()
        self._abandoned = False
        line.connect(0, self._interrupted.set)

    def start(self) -> None:
        """Reset the NPU, as at power-up, and wait until it is out of it."""
        self._abandoned = False
        self._reset()

    def _reset(self) -> None:
        self._npu.write32(Reg.RESET, RESET_PRIVILEGED_SECURE)
        while self._npu.read32(Reg.STATUS) & Status.RESET_IN_PROGRESS:
            time.sleep(0.0005)
        self._interrupted.clear()
        self._npu.write32(Reg.REGIONCFG, REGIONCFG_SRAM_IS_2)

    def abandon(self) -> None:
        """The reset line is asserted: `run` raises PoweredOff. Any thread may call it."""
        self._abandoned = True
        self._npu.write32(Reg.RESET, RESET_PRIVILEGED_SECURE)
        self._interrupted.set()

    def check_powered(self) -> None:
        """Raises PoweredOff after `abandon`."""
        if self._abandoned:
            raise PoweredOff

    @property
    def id_word(self) -> int:
        return self._npu.read32(Reg.ID)

    @property
    def config_word(self) -> int:
        return self._npu.read32(Reg.CONFIG)

    def check(self, config: int, npu_id: int) -> None:
        """Raises Failure where a command stream was made for another NPU than this."""
        if (config ^ self.config_word) & CONFIG_MUST_MATCH:
            raise Failure(
                f"a command stream was compiled for CONFIG {config:#010x}, this NPU has"
                f" {self.config_word:#010x}: compile the network for it"
            )
        major, minor = npu_id >> 28, npu_id >> 20 & 0xFF
        own_major, own_minor = self.id_word >> 28, self.id_word >> 20 & 0xFF
        if major != own_major or minor > own_minor:
            raise Failure(
                f"a command stream was compiled for architecture {major}.{minor}, this NPU has"
                f" {own_major}.{own_minor}"
            )

    def run(
        self, stream: int, size: int, bases: Sequence[int], events: Sequence[int], cycles: bool
    ) -> Counters:
        """Run a command stream of `size` bytes at device address `stream`; `bases` are region addresses.

        Raises Failure for misaligned addresses and where the NPU ends with an error (it is reset then),
        PoweredOff when `abandon` comes in between.
        """
        for name, address in (("stream", stream), *((f"region {n}", base) for n, base in enumerate(bases))):
            if address % BASE_ALIGNMENT:
                raise Failure(
                    f"the {name} at {address:#x} is not on a 16-byte boundary: align the network's buffer"
                )
        enabled = self._program_pmu(events, cycles)
        for region in range(BASEP_COUNT):
            self._write64(Reg.BASEP0 + 8 * region, bases[region] if region < len(bases) else 0)
        self._write64(Reg.QBASE, stream)
        self._npu.write32(Reg.QSIZE, size)
        self._interrupted.clear()
        self._npu.write32(Reg.CMD, Cmd.RUN)
        self._await_end()
        return self._counters(enabled, cycles)

    def _await_end(self) -> None:
        while not self._abandoned:
            self._lend(None)
            self._interrupted.wait()
            self._interrupted.clear()
            if self._abandoned:
                break
            status = Status(self._npu.read32(Reg.STATUS) & 0xFFFF)
            self._npu.write32(Reg.CMD, Cmd.CLEAR_IRQ | 0xFFFF_0000)
            if status & FAULTS:
                self._reset()
                raise Failure(f"the NPU stopped with {(status & FAULTS).name}")
            if status & Status.END_REACHED:
                return
        raise PoweredOff

    def _program_pmu(self, events: Sequence[int], cycles: bool) -> tuple[int, ...]:
        """Set the counters up from zero; the events that it has counters for, others are 0."""
        npu = self._npu
        if not cycles and not any(events):
            npu.write32(Reg.PMCR, 0)
            return (NO_EVENT,) * len(events)
        counters = npu.read32(Reg.PMCR) >> PMCR_NUM_EVENT_CNT_SHIFT & 0x1F
        enabled = tuple(event if event < len(EVENT_CODES) else NO_EVENT for event in events[:counters])
        mask = PMU_CYCLE_BIT if cycles else 0
        npu.write32(Reg.PMCNTENCLR, 0xFFFF_FFFF)
        for number, event in enumerate(enabled):
            npu.write32(Reg.PMEVTYPER0 + 4 * number, EVENT_CODES[event])
            mask |= (event != NO_EVENT) << number
        npu.write32(Reg.PMCCNTR_CFG, Event.NPU_IDLE << 16 | Event.NPU_ACTIVE)
        npu.write32(Reg.PMCR, Pmcr.CNT_EN | Pmcr.EVENT_CNT_RST | Pmcr.CYCLE_CNT_RST)
        npu.write32(Reg.PMCNTENSET, mask)
        return enabled + (NO_EVENT,) * (len(events) - len(enabled))

    def _counters(self, events: tuple[int, ...], cycles: bool) -> Counters:
        if not cycles and not any(events):
            return Counters(events, (0,) * len(events), 0)
        counts = tuple(
            self._npu.read32(Reg.PMEVCNTR0 + 4 * number) if event != NO_EVENT else 0
            for number, event in enumerate(events)
        )
        count = self._npu.read32(Reg.PMCCNTR) | self._npu.read32(Reg.PMCCNTR_HI) << 32
        return Counters(events, counts, count if cycles else 0)

    def _write64(self, register: int, value: int) -> None:
        self._npu.write32(register, value & 0xFFFF_FFFF)
        self._npu.write32(register + 4, value >> 32)
