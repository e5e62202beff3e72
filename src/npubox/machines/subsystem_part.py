# SPDX-License-Identifier: Apache-2.0
"""A subsystem with Arm's driver, powered up: in this process, or with the hardware in one of its own."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import suppress

from npubox.bus.port import Port
from npubox.core.caller import Caller
from npubox.core.nodes import NodeInfo
from npubox.devices.ethosu_subsystem.faults import SubsystemInjection
from npubox.drivers.misc.ethosu.drv import DeviceFile, EthosuDevice, probe
from npubox.hw.ethosu.core_interface import QueueHeader, QueueHeaderShort
from npubox.hw.ethosu.mailbox import MailboxReg
from npubox.machines.device_link import DeviceLink
from npubox.machines.part import Board, JobWatcher, MessageWatcher, Spawn
from npubox.machines.policy import subsystem_policy
from npubox.machines.subsystem import SubsystemPreset
from npubox.machines.subsystem_control import SubsystemControl
from npubox.machines.subsystem_platform import Queues, read_report

_log = logging.getLogger(__name__)


class _Driven:
    """The driver's side, whichever way its port goes."""

    device: EthosuDevice
    _queues: Queues

    def __init__(self, preset: SubsystemPreset, board: Board) -> None:
        self.preset = preset
        self._policy = subsystem_policy(board)
        self.control = SubsystemControl()
        self.job_watcher: JobWatcher | None = None

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return self.preset.nodes

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> DeviceFile:
        return self.device.open(flags, caller)

    def watch_messages(self, watcher: MessageWatcher) -> None:
        """Have `watcher` called with each message between driver and firmware."""
        node = self.preset.node
        self.device.firmware.watch_messages(
            lambda sent, kind, payload: watcher(node, sent, kind.name, payload)
        )

    def _probe(self, port: Port) -> None:
        self._queues = Queues(self.preset, port)
        try:
            header = QueueHeaderShort if self.preset.short_header else QueueHeader
            self.device = probe(self._queues.platform, self._policy, header=header)
        except BaseException:
            self._queues.close()
            raise
        self.device.observer = self._run_over

    def _run_over(self, client_id: int, sequence: int, request_id: int, error: int) -> None:
        if error != errno.ENODEV and not self.control.reported(request_id):
            self._hear_reports()
        outcome = self.control.run_over(client_id, sequence, request_id, error)
        if self.job_watcher is not None:
            self.job_watcher(client_id, sequence, error, outcome)

    def _hear_reports(self) -> None:
        """Return when the device's reports of everything that it has answered are there."""


class SubsystemPart(_Driven):
    """A `Part`: hardware and driver in this process."""

    processes: frozenset[int] = frozenset()

    def __init__(self, preset: SubsystemPreset, board: Board) -> None:
        from npubox.machines.subsystem_device import LocalSubsystem  # loads the NPUs' kernels

        super().__init__(preset, board)
        self._hardware = LocalSubsystem(preset, board.clock, self.control)
        try:
            self._probe(self._hardware.port)
        except BaseException:
            self._hardware.subsystem.close()
            raise

    def inject(self, injection: SubsystemInjection) -> None:
        """Order a fault: part of the control channel."""
        self._hardware.subsystem.inject(injection)

    def close(self) -> None:
        self.device.unplug()
        self._hardware.subsystem.close()
        self._queues.close()


class SplitSubsystemPart(_Driven):
    """A `Part`: driver and control channel here, the hardware in process `device_pid`. When that dies the
    node answers ENODEV from then on."""

    def __init__(self, preset: SubsystemPreset, board: Board, spawn: Spawn) -> None:
        super().__init__(preset, board)
        self._link = DeviceLink(spawn, self._hear)
        self.device_pid = self._link.pid
        self.processes = frozenset({self.device_pid})
        try:
            self._probe(self._link.port)
        except BaseException:
            self._link.end()
            raise
        self._link.on_lost(self._hardware_lost)

    def inject(self, injection: str) -> None:
        """Order a fault, by the value of a `SubsystemInjection`."""
        self._link.order(injection)

    def close(self) -> None:
        self._link.end()
        self.device.unplug()
        self._queues.close()

    def _hear_reports(self) -> None:
        """A report is sent before its answer, but an answer is memory, and overtakes the socket: a register's
        value comes behind all that was sent before."""
        with suppress(OSError):  # of hardware that has died since
            self._link.port.read32(MailboxReg.TX_STAT)

    def _hardware_lost(self) -> None:
        _log.error("the process of %s died: its node answers ENODEV from now on", self.device.name)
        self.device.unplug()

    def _hear(self, data: bytes) -> None:
        self.control.inference_finished(read_report(data))
