# SPDX-License-Identifier: Apache-2.0
"""The virtual subsystem: mailbox, reset line, memories, NPUs, and the Cortex-M that runs the firmware."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from typing import Protocol

from npubox.bus.port import Prot
from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualClock
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.devices.ethosu_npu.memory import Memory
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.devices.ethosu_npu.run import Injection
from npubox.devices.ethosu_subsystem.configuration import Range, SubsystemConfiguration
from npubox.devices.ethosu_subsystem.faults import InferenceReport, Injections, SubsystemInjection
from npubox.devices.ethosu_subsystem.firmware import Firmware
from npubox.devices.ethosu_subsystem.hardware import Hardware
from npubox.devices.ethosu_subsystem.npu_driver import NpuDriver
from npubox.devices.ethosu_subsystem.schedule import NpuClock, Schedule
from npubox.hw.ethosu.core_interface import CoreStatus, InferenceReq, InferenceRsp
from npubox.hw.ethosu.mailbox import Doorbell, MailboxReg, ResetLine

log = logging.getLogger(__name__)

PATIENCE = 5_000_000  # ns of host time that an NPU waits for the firmware's thread to carry its run
NPU_FAULTS = {
    SubsystemInjection.NPU_HANG: Injection.HANG,
    SubsystemInjection.NPU_BUS_ERROR: Injection.BUS_ERROR,
}


class InferenceObserver(Protocol):
    """Who hears of inferences, on threads of the device's: the control channel. It must not call back."""

    def inference_finished(self, report: InferenceReport) -> None:
        """An inference is over; the host is still to be told."""


class _Runs:
    """What an NPU says of its runs, for the report of the inference that they belong to."""

    def __init__(self) -> None:
        self.start_ns = 0
        self.cycles = 0
        self.fault: Fault | None = None

    def begin(self, moment: int) -> None:
        self.start_ns, self.cycles, self.fault = moment, 0, None

    def run_started(self) -> None:
        pass

    def run_ignored(self, fault: Fault) -> None:
        self.fault = fault

    def run_finished(self, report: RunReport) -> None:
        self.cycles += report.cycles
        self.fault = report.fault


class VirtualSubsystem:
    """One Ethos-U subsystem behind a port's registers. Interrupt 0 of `line` is the mailbox's rx.

    It maps its own memories into `dma`; the rings and whatever messages name are the host's to map.
    """

    def __init__(
        self,
        configuration: SubsystemConfiguration,
        dma: AddressSpace,
        clock: VirtualClock,
        line: InterruptLine,
        observer: InferenceObserver,
    ) -> None:
        self._configuration = configuration
        self._dma = dma
        self._clock = clock
        self._line = line
        self._observer = observer
        self._guard = threading.Lock()
        self._rx = self._tx = 0
        self._firmware: Firmware | None = None
        self._before: Firmware | None = None
        self._injections = Injections()
        self._memories: list[Range] = []
        self._plug(configuration.arena)
        if configuration.fast_memory is not None:
            self._plug(configuration.fast_memory)
        schedule: Schedule[InferenceReq] = Schedule(clock, configuration.npus, configuration.waiting)
        self._schedule = schedule
        self._runs = [_Runs() for _ in range(configuration.npus)]
        lines = [InterruptLine() for _ in range(configuration.npus)]
        self._npus = [
            VirtualNpu(
                configuration.npu,
                dma,
                NpuClock(schedule, number),
                lines[number],
                configuration.frequency,
                self._runs[number],
                PATIENCE,
                assisted=configuration.npus == 1,  # else the others need the host's CPUs
            )
            for number in range(configuration.npus)
        ]
        self._hardware = Hardware(
            configuration=configuration,
            memory=Memory(dma),
            clock=clock,
            drivers=[NpuDriver(npu, lines[number], npu.lend) for number, npu in enumerate(self._npus)],
            schedule=schedule,
            networks=self._plug_networks(),
            injections=self._injections,
            board=self,
        )
        clock.flow_when(self._quiet)

    # Registers

    def read32(self, offset: int) -> int:
        with self._guard:
            match offset:
                case MailboxReg.RX_STAT:
                    return self._rx
                case MailboxReg.TX_STAT:
                    return self._tx
                case MailboxReg.RESET:
                    return 0 if self._firmware is not None else ResetLine.ASSERTED
        log.warning("%s: read of %#x, where no register is", self._configuration.name, offset)
        return 0

    def write32(self, offset: int, value: int) -> None:
        match offset:
            case MailboxReg.TX_SET:
                with self._guard:
                    self._tx |= value
                    firmware = self._firmware
                if value and firmware is not None:
                    firmware.wake()
            case MailboxReg.RX_CLR:
                with self._guard:
                    self._rx &= ~value
            case MailboxReg.RESET:
                self._reset(bool(value & ResetLine.ASSERTED))
            case _:
                log.warning(
                    "%s: write of %#x to %#x is ignored: the host has no register to write there",
                    self._configuration.name,
                    value,
                    offset,
                )

    def _reset(self, asserted: bool) -> None:
        with self._guard:
            firmware = self._firmware
            if asserted == (firmware is None):
                return
            if firmware is None:
                self._firmware = Firmware(self._hardware, self._before)
                return
            self._firmware, self._before = None, firmware
            self._rx = self._tx = 0
        firmware.power_off()

    # Control channel

    def inject(self, injection: SubsystemInjection) -> None:
        """Order a fault: a test of whoever drives the subsystem."""
        self._injections.order(injection)

    def close(self) -> None:
        """Power off: what is in progress is abandoned, its threads end."""
        self._reset(asserted=True)
        if self._before is not None:
            self._before.join()
        for npu in self._npus:
            npu.close()
        for memory in self._memories:
            self._dma.unmap(memory.address, memory.size)

    # The board, for the firmware

    def ring_host(self) -> None:
        with self._guard:
            self._rx |= Doorbell.RING
        self._line.fire()

    def take_doorbell(self) -> None:
        with self._guard:
            self._tx = 0

    def inference_began(self, npu: int) -> None:
        self._runs[npu].begin(self._schedule.time_of(npu))
        ordered = self._injections.take(*NPU_FAULTS)
        if ordered is not None:
            self._npus[npu].inject(NPU_FAULTS[ordered])

    def inference_ended(
        self, npu: int, request: InferenceReq, answer: InferenceRsp, reason: str | None
    ) -> None:
        runs = self._runs[npu]
        self._observer.inference_finished(
            InferenceReport(
                user_arg=request.user_arg,
                npu=npu,
                start_ns=runs.start_ns,
                end_ns=self._schedule.time_of(npu),
                cycles=runs.cycles,
                status=CoreStatus(answer.status),
                reason=reason,
                fault=runs.fault,
            )
        )

    def _quiet(self) -> bool:
        firmware = self._firmware
        return firmware is not None and firmware.quiet

    # Memories

    def _plug(self, place: Range, content: bytes = b"", prot: Prot = Prot.READ | Prot.WRITE) -> None:
        fd = os.memfd_create(f"npubox-{self._configuration.name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, place.size)
            os.pwrite(fd, content, 0)
            self._dma.map(place.address, fd, 0, place.size, prot)
        finally:
            os.close(fd)
        self._memories.append(place)

    def _plug_networks(self) -> list[Range]:
        """The firmware's own networks in its flash, each from a page of its own on."""
        networks, address = [], self._configuration.flash
        for content in self._configuration.networks:
            size = -(-len(content) // mmap.PAGESIZE) * mmap.PAGESIZE
            self._plug(Range(address, size), content, Prot.READ)
            networks.append(Range(address, len(content)))
            address += size
        return networks
