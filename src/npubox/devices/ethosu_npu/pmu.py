# SPDX-License-Identifier: Apache-2.0
"""The PMU: a 48-bit cycle counter and four event counters, fed by the cost model (docs/cycles.md)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from npubox.devices.ethosu_npu.cycles import Cost
from npubox.hw.ethosu.registers import (
    EVENT_COUNTERS,
    PMCR_NUM_EVENT_CNT_SHIFT,
    PMU_CYCLE_BIT,
    Event,
    Pmcr,
    Reg,
)

log = logging.getLogger(__name__)

_COUNT_ENABLE = int(Pmcr.CNT_EN)
_COUNTER_MASK = (1 << 48) - 1
_EVENTS = range(Reg.PMEVCNTR0, Reg.PMEVCNTR0 + 4 * EVENT_COUNTERS, 4)
_TYPES = range(Reg.PMEVTYPER0, Reg.PMEVTYPER0 + 4 * EVENT_COUNTERS, 4)
_FIELDS = {
    Event.CYCLE: "total",
    Event.NPU_ACTIVE: "total",
    Event.MAC_ACTIVE: "mac_active",
    Event.AO_ACTIVE: "output_active",
    Event.WD_ACTIVE: "weight_active",
    Event.AXI0_RD_DATA_BEAT_RECEIVED: "sram_read",
    Event.AXI0_WR_DATA_BEAT_WRITTEN: "sram_written",
    Event.AXI1_RD_DATA_BEAT_RECEIVED: "external_read",
    Event.AXI1_WR_DATA_BEAT_WRITTEN: "external_written",
}


class Pmu:
    """Counts while PMCR.cnt_en and the counter's own enable bit are set, and only while a job runs."""

    def __init__(self) -> None:
        self._control = 0
        self._enabled = 0
        self._cycles = 0
        self._events = [0] * EVENT_COUNTERS
        self._types = [0] * EVENT_COUNTERS
        self._known: set[int] = {Event.NO_EVENT, *_FIELDS}

    def read(self, offset: int) -> int | None:
        """The register at `offset`; None if it is not one of the PMU's that are modelled."""
        match offset:
            case Reg.PMCR:
                return self._control | EVENT_COUNTERS << PMCR_NUM_EVENT_CNT_SHIFT
            case Reg.PMCNTENSET | Reg.PMCNTENCLR:
                return self._enabled
            case Reg.PMCCNTR:
                return self._cycles & 0xFFFFFFFF
            case Reg.PMCCNTR_HI:
                return self._cycles >> 32
        if offset in _EVENTS:
            return self._events[_EVENTS.index(offset)]
        if offset in _TYPES:
            return self._types[_TYPES.index(offset)]
        return None

    def write(self, offset: int, value: int) -> bool:
        """Whether the register at `offset` is one of the PMU's that are modelled."""
        match offset:
            case Reg.PMCR:
                self._control = value & (Pmcr.CNT_EN | Pmcr.MASK_EN)
                if value & Pmcr.CYCLE_CNT_RST:
                    self._cycles = 0
                if value & Pmcr.EVENT_CNT_RST:
                    self._events = [0] * EVENT_COUNTERS
            case Reg.PMCNTENSET:
                self._enabled |= value
            case Reg.PMCNTENCLR:
                self._enabled &= ~value
            case Reg.PMCCNTR:
                self._cycles = self._cycles & ~0xFFFFFFFF | value
            case Reg.PMCCNTR_HI:
                self._cycles = self._cycles & 0xFFFFFFFF | (value & 0xFFFF) << 32
            case _ if offset in _EVENTS:
                self._events[_EVENTS.index(offset)] = value
            case _ if offset in _TYPES:
                self._types[_TYPES.index(offset)] = value & 0x3FF
                self._check(value & 0x3FF)
            case _:
                return False
        return True

    def count(self, executed: Callable[[], Cost]) -> None:
        """Operations have been executed that cost `executed()`."""
        if not self._control & _COUNT_ENABLE:
            return
        cost = executed()
        if self._enabled & PMU_CYCLE_BIT:
            self._cycles = (self._cycles + cost.total) & _COUNTER_MASK
        for n, event in enumerate(self._types):
            if self._enabled >> n & 1 and event in _FIELDS:
                count = getattr(cost, _FIELDS[Event(event)])
                self._events[n] = (self._events[n] + count) & 0xFFFFFFFF

    def _check(self, event: int) -> None:
        """Say once that nothing counts `event`, where that is so."""
        if event not in self._known:
            self._known.add(event)
            log.warning("PMU event %#x is not modelled: its counter stays as it is (docs/cycles.md)", event)
