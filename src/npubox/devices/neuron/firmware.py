# SPDX-License-Identifier: Apache-2.0
"""The firmware behind MISC RAM: messages to read registers or post metrics, resets (neuron.md §8, §10.1)."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable

from npubox.bus.virtual import DmaFault
from npubox.devices.neuron.address_map import AddressMap
from npubox.devices.neuron.power import PowerMeter
from npubox.hw.neuron import fwio
from npubox.hw.neuron.fwio import Command, Error
from npubox.hw.neuron.misc_ram import METRICS_SIZE, POWER_API_VERSION, MiscReg, Reset, Status

_log = logging.getLogger(__name__)

# Plain numbers: status is what everybody polls, and enums are slow
_STATUS, _POWER = int(MiscReg.STATUS), int(MiscReg.POWER)
_READY, _EAST, _WEST = int(Status.READY), int(Status.EAST_LINK), int(Status.WEST_LINK)


class Firmware:
    """Serves the doorbell within the register write that rings it: messages are short.

    Everything happens under the chip's lock. `reset_device` resets what a device reset resets beyond
    MISC RAM.
    """

    def __init__(self, memory: AddressMap, power: PowerMeter, reset_device: Callable[[], None]) -> None:
        self._memory = memory
        self._power = power
        self._reset_device = reset_device
        self.posts: list[bytes] = []
        """The last metric posts, newest last."""
        self.reset()

    def reset(self) -> None:
        self._registers: dict[int, int] = {MiscReg.API_VERSION: POWER_API_VERSION}

    def read(self, offset: int) -> int:
        if offset == _STATUS:
            return _READY | _EAST * (self._memory.east is not None) | _WEST * (self._memory.west is not None)
        if offset == _POWER:
            return self._power.sample()
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> bool:
        self._registers[offset] = value
        return offset == MiscReg.DOORBELL and value != 0 and self._doorbell()

    def _doorbell(self) -> bool:
        """Returns whether this was a device reset."""
        match self._registers.get(MiscReg.RESET, Reset.NONE):
            case Reset.NONE:
                self._serve()
                return False
            case Reset.DEVICE:
                self.reset()
                self._reset_device()
                return True
        self._registers[MiscReg.RESET] = Reset.NONE
        return False

    def _serve(self) -> None:
        request = self._pointer(MiscReg.REQUEST_LO)
        response = self._pointer(MiscReg.RESPONSE_LO)
        try:
            sequence, error, data = self._answer(request)
            message = fwio.pack_response(sequence, error, data)
            self._memory.write_memory(response + 1, message[1:])
            self._memory.write_memory(response, message[:1])
        except DmaFault as fault:
            _log.info("a firmware message cannot be served: %s", fault)

    def _answer(self, address: int) -> tuple[int, Error, bytes]:
        """Sequence, error and data. Raises DmaFault."""
        header = self._memory.read(address, fwio.REQUEST_HEADER.size)
        sequence, command, size, crc = fwio.REQUEST_HEADER.unpack(header)
        if size < len(header):
            return sequence, Error.FAIL, b""
        data = self._memory.read(address + len(header), size - len(header))
        if crc != fwio.crc32c(fwio.REQUEST_HEADER.pack(sequence, command, size, 0) + data):
            return sequence, Error.FAIL, b""
        if command == Command.READ:
            return sequence, *self._read_registers(data)
        if command == Command.POST_METRICS:
            return sequence, self._post(data), b""
        return sequence, Error.UNKNOWN_COMMAND, b""

    def _read_registers(self, data: bytes) -> tuple[Error, bytes]:
        count, rest = divmod(len(data), 8)
        addresses = struct.unpack_from(f"<{count}Q", data)
        if rest or any(address % 4 for address in addresses):
            return Error.FAIL, b""
        return Error.OK, struct.pack(f"<{count}I", *map(self._memory.read32, addresses))

    def _post(self, data: bytes) -> Error:
        if len(data) > METRICS_SIZE:
            return Error.FAIL
        self.posts = [*self.posts[-15:], data]
        return Error.OK

    def _pointer(self, low: MiscReg) -> int:
        high = MiscReg.REQUEST_HI if low == MiscReg.REQUEST_LO else MiscReg.RESPONSE_HI
        return self._registers.get(high, 0) << 32 | self._registers.get(low, 0)
