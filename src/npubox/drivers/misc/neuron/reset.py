# SPDX-License-Identifier: Apache-2.0
"""Reset of a chip or of its cores (facts, neuron.md §1.5, §10.1)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from npubox.bus.port import PciDevice
from npubox.drivers.misc.neuron.fwio import Fwio
from npubox.drivers.misc.neuron.work import MILLISECOND, SECOND, Steps, sleep
from npubox.hw.neuron import misc_ram
from npubox.hw.neuron.address import MISC_RAM
from npubox.hw.neuron.misc_ram import MiscReg, Reset, Status
from npubox.hw.neuron.pci import Bar, Revision

POLL = 500 * MILLISECOND
GIVE_UP = 120 * SECOND
STATUS_READS = 5


@dataclass(frozen=True)
class ResetKind:
    """What is written, and when the driver looks and asks again: ns."""

    register: Reset
    first_look: int
    ask_again: int


DEVICE = ResetKind(Reset.DEVICE, 7 * SECOND, 30 * SECOND)
CORES = ResetKind(Reset.TPB, 3 * SECOND, 10 * SECOND)


class Resetter:
    """Resets one chip through its firmware."""

    def __init__(self, port: PciDevice, fwio: Fwio, index: int) -> None:
        self._port = port
        self._fwio = fwio
        self._index = index

    def reset(self, kind: ResetKind) -> Steps[None]:
        """Reset, wait until the chip is ready, tell it its device id. OSError EIO if it does not get ready.

        A revision that is the vendor's emulation is not asked to reset, only whether it is ready.
        """
        if self._port.identity.revision != Revision.QEMU:
            yield from self._ask_until_taken(kind)
        for _ in range(STATUS_READS):
            (status,) = yield from self._fwio.read([MISC_RAM + MiscReg.STATUS])
            if status & Status.READY:
                break
        else:
            raise OSError(errno.EIO, "the chip did not become ready")
        self._write(MiscReg.DEVICE_ID, self._index)

    def _ask_until_taken(self, kind: ResetKind) -> Steps[None]:
        clock = self._port.clock
        start = asked = clock.now()
        self._ask(kind)
        yield from sleep(clock, kind.first_look)
        while clock.now() - start < GIVE_UP:
            yield from sleep(clock, POLL)
            (request,) = yield from self._fwio.read([MISC_RAM + MiscReg.RESET])
            if not request:
                return
            if clock.now() - asked >= kind.ask_again:
                asked = clock.now()
                self._ask(kind)
        raise OSError(errno.EIO, "the firmware did not take the reset")

    def _ask(self, kind: ResetKind) -> None:
        if kind is CORES:
            self._write(MiscReg.TPB_RESET_MAP, 0)
        self._write(MiscReg.RESET, kind.register)
        self._write(MiscReg.DOORBELL, 1)

    def _write(self, register: MiscReg, value: int) -> None:
        self._port.write32(Bar.APB, misc_ram.BASE + register, value)
