# SPDX-License-Identifier: Apache-2.0
"""Which chips are at the other ends of the pipes (facts, neuron.md §9.1)."""

from __future__ import annotations

from npubox.bus.port import Clock
from npubox.drivers.misc.neuron.fwio import Fwio
from npubox.drivers.misc.neuron.work import SECOND, Steps, sleep
from npubox.hw.neuron.address import MISC_RAM, Window, through
from npubox.hw.neuron.misc_ram import MiscReg, Status

READY_TRIES = 60


def links(fwio: Fwio, clock: Clock) -> Steps[dict[Window, int]]:
    """The device ids of the chips east and west, those that are there. OSError EIO, or none at all where
    the chip does not become ready within a minute."""
    status = 0
    for _ in range(READY_TRIES):
        (status,) = yield from fwio.read([MISC_RAM + MiscReg.STATUS])
        if status & Status.READY:
            break
        yield from sleep(clock, SECOND)
    else:
        return {}
    found = {}
    for link, window in ((Status.EAST_LINK, Window.EAST), (Status.WEST_LINK, Window.WEST)):
        if status & link:
            (found[window],) = yield from fwio.read([through(window, MISC_RAM + MiscReg.DEVICE_ID)])
    return found
