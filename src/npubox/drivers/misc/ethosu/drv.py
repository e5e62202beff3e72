# SPDX-License-Identifier: Apache-2.0
"""Arm's driver of an Ethos-U subsystem: its device node and its probe.

Serves Arm's ABI of 2022.06 and NXP's, told apart by the command number, both over Arm's message queues.
Different from the original: bad calls are refused (`Policy`), a buffer of another node too; an inference
that the firmware has lost fails after a time-out (`Timeouts.inference`); a doorbell is rung without waiting
for the mailbox. Source: the project's facts (ethosu-linux.md §1, §2).
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable

from npubox.bus.port import PlatformDevice, Prot
from npubox.core.caller import Caller
from npubox.core.file import TokenStandIn
from npubox.core.lock import DeviceLock
from npubox.core.pending import Pending
from npubox.drivers.memory import DeviceMemory
from npubox.drivers.misc.ethosu.buffer import Buffer
from npubox.drivers.misc.ethosu.file import Client, Copies, EthosuFile, Policy, command
from npubox.drivers.misc.ethosu.firmware import Firmware
from npubox.drivers.misc.ethosu.mailbox import QueueHeader
from npubox.drivers.misc.ethosu.network import Network
from npubox.drivers.misc.ethosu.requests import Call
from npubox.drivers.misc.ethosu.watchdog import Timeouts
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi

DRIVER_NAME = "ethosu"
CREATED_FLAGS = os.O_RDWR | os.O_CLOEXEC

RunObserver = Callable[[int, int, int, int], None]
"""(client id, number of the run among the client's from 0, its id in messages, errno or 0) of a run that is
over, under the lock, before its inference tells so. It must not block or call back."""


class EthosuDevice:
    """One subsystem. It lives until the node is gone and the last object made from it too."""

    def __init__(
        self, platform: PlatformDevice, policy: Policy, timeouts: Timeouts, header: QueueHeader
    ) -> None:
        self.name = platform.name
        self.policy = policy
        self.lock = DeviceLock()
        self.memory = DeviceMemory(
            platform.port.dma, platform.dma_start, platform.dma_end, platform.dma_ranges
        )
        self.firmware = Firmware(platform, self.lock, timeouts, header)
        self.objects = 0
        self.observer: RunObserver | None = None
        self._client_ids = itertools.count(1)
        self._unplugged = False

    def open(self, flags: int, caller: Caller) -> DeviceFile:
        """An open of the node: as many as wanted. OSError ENODEV when the device is gone."""
        with self.lock:
            self.check_present()
            return DeviceFile(self, Client(next(self._client_ids)))

    def unplug(self) -> None:
        """The device is gone: every later call is ENODEV, whatever waits ends. When it returns nothing
        touches the port any more, except to unmap buffers."""
        with self.lock:
            if self._unplugged:
                return
            self._unplugged = True
            self.firmware.stop()
        self.firmware.join()

    def map(self, fd: int, size: int) -> int:
        """The device address of a file's pages, there for the firmware from now on. OSError ENOMEM,
        ENODEV."""
        address = self.memory.map(fd, 0, size, Prot.READ | Prot.WRITE)
        try:
            self.firmware.push_mappings()
        except OSError:
            self.memory.unmap(address, size)
            raise
        return address

    def check_present(self) -> None:
        if self._unplugged:
            raise OSError(errno.ENODEV, f"{self.name} is gone")

    def get(self) -> None:
        """Under the lock: `objects` counts what was made from this device and not freed yet."""
        self.objects += 1

    def put(self) -> None:
        self.objects -= 1

    def install(self, file: EthosuFile, caller: Caller) -> int:
        """A descriptor for a new object, which goes where there is none to be had."""
        try:
            return caller.files.install(file, CREATED_FLAGS)
        except OSError:
            file.put()
            raise

    def buffer(self, fd: int, caller: Caller) -> Buffer:
        """The buffer behind a descriptor; OSError EINVAL where it is none, or another node's."""
        try:
            file = caller.files.lookup(fd)
        except OSError as error:
            raise OSError(errno.EINVAL, f"descriptor {fd} is not open") from error
        if not isinstance(file, Buffer) or file.device is not self:
            raise OSError(errno.EINVAL, f"descriptor {fd} is no buffer of {self.name}")
        return file


class DeviceFile(EthosuFile):
    """An open of the node."""

    link = "/dev/ethosu"
    stand_in = TokenStandIn()

    @command(uapi.PING)
    def ping(self, args: object, caller: Caller) -> None:
        self.device.firmware.ping()

    @command(uapi.VERSION_REQ)
    def version(self, args: object, caller: Caller) -> None:
        self.device.firmware.ask_version()

    @command(uapi.CAPABILITIES_REQ, Copies.OUT)
    def capabilities(self, args: uapi.DeviceCapabilities, caller: Caller) -> Pending:
        return CapabilitiesCall(self, args).wait()

    @command(uapi.BUFFER_CREATE, Copies.IN)
    def create_buffer(self, args: uapi.BufferCreate, caller: Caller) -> int:
        return self.device.install(Buffer(self.device, self.client, args.capacity), caller)

    @command(uapi.NETWORK_CREATE, Copies.IN)
    def create_network(self, args: uapi.NetworkCreate, caller: Caller) -> int:
        """Every type but BUFFER means an index, as in the original."""
        if args.type == uapi.NetworkType.BUFFER:
            network = Network(self.device, self.client, self.device.buffer(args.fd, caller))
        else:
            network = Network(self.device, self.client, None, args.fd)
        return self.device.install(network, caller)


class CapabilitiesCall(Call[core.CapabilitiesRsp]):
    kind = core.MessageType.CAPABILITIES_REQ
    answer = core.MessageType.CAPABILITIES_RSP

    def __init__(self, file: DeviceFile, args: uapi.DeviceCapabilities) -> None:
        super().__init__(file, file.device.firmware.timeouts.capabilities)
        self._args = args

    def payload(self) -> core.CapabilitiesReq:
        return core.CapabilitiesReq(self.id)

    def accept(self, answer: core.CapabilitiesRsp) -> None:
        for part in (self._args.hw_id, self._args.hw_cfg, self._args):
            for field in part._fields_:
                if hasattr(answer, field[0]):
                    setattr(part, field[0], getattr(answer, field[0]))


def probe(
    platform: PlatformDevice,
    policy: Policy = Policy.STRICT,
    timeouts: Timeouts | None = None,
    header: QueueHeader = core.QueueHeader,
) -> EthosuDevice:
    """Bind the driver to a subsystem and boot its firmware.

    Raises OSError EINVAL for a platform without queues and ETIMEDOUT for a firmware that does not start.
    """
    device = EthosuDevice(platform, policy, timeouts or Timeouts(), header)
    device.firmware.start()
    return device
