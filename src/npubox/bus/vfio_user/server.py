# SPDX-License-Identifier: Apache-2.0
"""A PCI function served to one vfio-user client, QEMU or ours (facts, vfio-user.md §2, §3)."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import struct
from collections.abc import Callable

from npubox.bus.port import BarInfo, PciDevice, Prot
from npubox.bus.ranges import MappedRanges
from npubox.bus.vfio_user import protocol
from npubox.bus.vfio_user.channel import Channel, Message, ProtocolError
from npubox.bus.vfio_user.config_space import SIZE as CONFIG_SIZE
from npubox.bus.vfio_user.config_space import ConfigSpace
from npubox.bus.vfio_user.protocol import (
    Command,
    DeviceFlag,
    DmaFlag,
    Flag,
    Irq,
    IrqFlag,
    IrqInfoFlag,
    Region,
    RegionFlag,
)

_log = logging.getLogger(__name__)

# Plain numbers, for what every register access passes: enums are slow
_NO_REPLY, _REPLY_ERROR = int(Flag.NO_REPLY), protocol.REPLY_TYPE | int(Flag.ERROR)
_CONFIG = int(Region.CONFIG)
_REGISTER_READ, _READ_SIZE = protocol.REGISTER_READ.unpack, protocol.REGISTER_READ.size
_REGISTER_VALUE, _VALUE_SIZE = protocol.REGISTER_VALUE.pack, protocol.REGISTER_VALUE.size
_PLAIN_READ = (int(Command.REGION_READ), _READ_SIZE, 0, 4)
_CAPABILITIES = {"max_msg_fds": protocol.MAX_FDS, "max_data_xfer_size": protocol.MAX_DATA, "pgsizes": 4096}
Answer = tuple[bytes, list[int]]
"""A reply's payload, and descriptors that go with it and stay ours."""
NOTHING: Answer = (b"", [])


class Session:
    """One connection: answers its requests, in order, until the other end closes.

    Memory without a descriptor is noted, but the device does not reach it. At the end all mappings and
    interrupts of the connection are taken back and the device is reset.
    """

    def __init__(self, device: PciDevice, connection: socket.socket) -> None:
        self._device = device
        self._channel = Channel(connection)
        self._config = ConfigSpace(device.identity, device.bars)
        self._negotiated = False
        self._ranges = MappedRanges()
        self._mapped: set[tuple[int, int]] = set()
        """Address and size of what the device can reach."""
        self._eventfds: dict[int, int] = {}
        handlers: dict[int, Callable[[Message], Answer]] = {
            Command.VERSION: self._version,
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._irq_info,
            Command.DEVICE_SET_IRQS: self._set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.DEVICE_RESET: self._reset,
        }
        self._handlers = {int(command): handler for command, handler in handlers.items()}

    def run(self) -> None:
        """Raises nothing for what the other end does wrong: it is logged, and the connection ends."""
        try:
            while True:
                data = self._channel.read()
                if len(data) == _READ_SIZE and self._negotiated and self._read_register(data):
                    continue
                self._channel.push_back(data)
                message = self._channel.receive()
                if message is None:
                    return
                self._serve(message)
        except (ProtocolError, OSError) as error:
            _log.info("vfio-user connection ends: %s", error)
        finally:
            self._end()

    def _read_register(self, data: bytes) -> bool:
        """Answer a read of a 32-bit register, without the detours that any other message takes. Whether it
        was one, and a good one."""
        number, command, size, flags, _, offset, region, count = _REGISTER_READ(data)
        if (command, size, flags, count) != _PLAIN_READ or offset & 3:
            return False
        try:
            value = self._device.read32(region, offset)
        except Exception:
            return False  # once more, to tell of it
        reply = _REGISTER_VALUE(
            number, command, _VALUE_SIZE, protocol.REPLY_TYPE, 0, offset, region, 4, value
        )
        self._channel.finish(size, reply)
        return True

    def _serve(self, message: Message) -> None:
        payload, fds, failure = b"", list[int](), 0
        try:
            payload, fds = self._handle(message)
        except OSError as error:
            failure = error.errno or errno.EIO
            _log.debug("vfio-user command %d: %s", message.command, error)
        except ProtocolError:
            raise
        except Exception:
            failure = errno.EIO
            _log.exception("vfio-user command %d broke", message.command)
        finally:
            message.close_fds()
        if message.flags & _NO_REPLY:
            return
        flags = _REPLY_ERROR if failure else protocol.REPLY_TYPE
        self._channel.send(message.number, message.command, flags, payload, fds, failure)

    def _handle(self, message: Message) -> Answer:
        if message.is_reply:
            raise ProtocolError("a reply to nothing that was asked")
        handler = self._handlers.get(message.command)
        if handler is None:
            known = message.command in Command.__members__.values()
            raise OSError(errno.ENOTSUP if known else errno.EINVAL, f"command {message.command}")
        if not self._negotiated and handler != self._version:
            raise OSError(errno.EINVAL, "the version comes first")
        return handler(message)

    def _version(self, message: Message) -> Answer:
        major, _ = _unpack(protocol.VERSION, message)
        if major != protocol.MAJOR or self._negotiated:
            raise OSError(errno.EINVAL, f"version {major} is not spoken here")
        self._negotiated = True
        text = json.dumps({"capabilities": _CAPABILITIES}).encode() + b"\0"
        return protocol.VERSION.pack(protocol.MAJOR, protocol.MINOR) + text, []

    def _dma_map(self, message: Message) -> Answer:
        _, flags, offset, address, size = _unpack(protocol.DMA_MAP, message)
        prot = Prot(flags & (DmaFlag.READABLE | DmaFlag.WRITABLE))
        self._ranges.add(address, offset, size)
        if message.fds:
            try:
                self._device.dma.map(address, message.fds[0], offset, size, prot)
            except (OSError, ValueError) as error:  # ValueError: the file is shorter
                self._ranges.remove(address, size)
                raise OSError(getattr(error, "errno", errno.EINVAL), f"DMA mapping: {error}") from error
            self._mapped.add((address, size))
        return NOTHING

    def _dma_unmap(self, message: Message) -> Answer:
        _, flags, address, size = _unpack(protocol.DMA_UNMAP, message)
        if flags:
            raise OSError(errno.EINVAL, f"unmap flags {flags:#x}")
        self._ranges.remove(address, size)
        if (address, size) in self._mapped:
            self._mapped.remove((address, size))
            self._device.dma.unmap(address, size)
        return message.payload, []

    def _device_info(self, message: Message) -> Answer:
        _unpack(protocol.DEVICE_INFO, message)
        flags = DeviceFlag.RESET | DeviceFlag.PCI
        size = protocol.DEVICE_INFO.size
        return protocol.DEVICE_INFO.pack(size, flags, protocol.REGIONS, protocol.IRQS), []

    def _region_info(self, message: Message) -> Answer:
        argsz, _, index, *_ = _unpack(protocol.REGION_INFO, message)
        if index >= protocol.REGIONS:
            raise OSError(errno.EINVAL, f"there is no region {index}")
        access = RegionFlag.READ | RegionFlag.WRITE
        if index == Region.CONFIG:
            return protocol.REGION_INFO.pack(32, access, index, 0, CONFIG_SIZE, 0), []
        bar = self._device.bars.get(index)
        if bar is None:
            return protocol.REGION_INFO.pack(32, 0, index, 0, 0, 0), []
        return _bar_info(argsz, index, bar)

    def _irq_info(self, message: Message) -> Answer:
        _, _, index, _ = _unpack(protocol.IRQ_INFO, message)
        if index >= protocol.IRQS:
            raise OSError(errno.EINVAL, f"there are no interrupts of kind {index}")
        count = self._device.vectors if index == Irq.MSIX else 0
        flags = IrqInfoFlag.EVENTFD | IrqInfoFlag.NO_RESIZE if count else 0
        return protocol.IRQ_INFO.pack(protocol.IRQ_INFO.size, flags, index, count), []

    def _set_irqs(self, message: Message) -> Answer:
        """Eventfds for MSI-X vectors, given or taken away; what is asked of no interrupt succeeds."""
        _, flags, index, start, count = _unpack(protocol.SET_IRQS, message)
        has = self._device.vectors if index == Irq.MSIX else 0
        if index >= protocol.IRQS or start + count > has:
            raise OSError(errno.EINVAL, f"interrupts {start}+{count} of kind {index}")
        if flags == IrqFlag.DATA_NONE | IrqFlag.TRIGGER and count == 0:
            for vector in list(self._eventfds) if index == Irq.MSIX else ():
                self._disconnect(vector)
        elif flags == IrqFlag.DATA_EVENTFD | IrqFlag.TRIGGER and len(message.fds) in (0, count):
            for vector in range(start, start + count):
                self._disconnect(vector)
            for vector in range(start, start + len(message.fds)):
                self._connect(vector, message.fds.pop(0))
        else:
            raise OSError(errno.ENOTSUP, f"interrupt action {flags:#x}")
        return NOTHING

    def _region_read(self, message: Message) -> Answer:
        offset, region, count = _unpack(protocol.REGION_ACCESS, message)
        bar = self._check_access(offset, region, count)
        if bar is None:
            data = self._config.read(offset, count)
        elif count == 4 and not offset % 4:
            data = self._device.read32(region, offset).to_bytes(4, "little")
        else:
            first = offset - offset % 4
            words = range(first, offset + count, 4)
            whole = b"".join(self._device.read32(region, word).to_bytes(4, "little") for word in words)
            data = whole[offset - first : offset - first + count]
        return message.payload[: protocol.REGION_ACCESS.size] + data, []

    def _region_write(self, message: Message) -> Answer:
        offset, region, count = _unpack(protocol.REGION_ACCESS, message)
        data = message.payload[protocol.REGION_ACCESS.size :]
        if len(data) != count:
            raise OSError(errno.EINVAL, f"{len(data)} bytes to write, {count} announced")
        bar = self._check_access(offset, region, count)
        if bar is None:
            self._config.write(offset, data)
        elif (offset | count) % 4:
            raise OSError(errno.EINVAL, f"{count} bytes at {offset:#x}: registers are written in words")
        else:
            for at in range(0, count, 4):
                value = int.from_bytes(data[at : at + 4], "little")
                self._device.write32(region, offset + at, value)
        return message.payload[: protocol.REGION_ACCESS.size], []

    def _reset(self, message: Message) -> Answer:
        self._device.reset()
        return NOTHING

    def _check_access(self, offset: int, region: int, count: int) -> BarInfo | None:
        """The BAR of an access, None for configuration space. OSError EINVAL for one outside."""
        bar = self._device.bars.get(region)
        size = CONFIG_SIZE if region == _CONFIG else bar.size if bar else 0
        if not count or count > protocol.MAX_DATA or offset + count > size:
            raise OSError(errno.EINVAL, f"{count} bytes at {offset:#x} of region {region}")
        return bar

    def _connect(self, vector: int, eventfd: int) -> None:
        self._eventfds[vector] = eventfd
        self._device.on_interrupt(vector, lambda: os.eventfd_write(eventfd, 1))

    def _disconnect(self, vector: int) -> None:
        eventfd = self._eventfds.pop(vector, None)
        if eventfd is not None:
            self._device.on_interrupt(vector, None)
            os.close(eventfd)

    def _end(self) -> None:
        for vector in list(self._eventfds):
            self._disconnect(vector)
        self._device.reset()
        for address, size in self._mapped:
            self._device.dma.unmap(address, size)
        self._channel.close()


def _unpack(layout: struct.Struct, message: Message) -> tuple[int, ...]:
    if len(message.payload) < layout.size:
        raise OSError(errno.EINVAL, f"command {message.command} with {len(message.payload)} bytes")
    return layout.unpack_from(message.payload)


def _bar_info(argsz: int, index: int, bar: BarInfo) -> Answer:
    """A BAR's answer; areas that lie in the file as they do in the BAR can be mapped through one descriptor.

    One that asks with too small an argsz gets the fixed part alone, and asks again.
    """
    access = RegionFlag.READ | RegionFlag.WRITE
    areas = [
        area
        for area in bar.areas
        if (area.fd, area.offset - area.start) == (bar.areas[0].fd, bar.areas[0].offset - bar.areas[0].start)
    ]
    fixed = protocol.REGION_INFO.size
    if not areas:
        return protocol.REGION_INFO.pack(fixed, access, index, 0, bar.size, 0), []
    offset = areas[0].offset - areas[0].start
    if areas[0].size == bar.size:
        flags = access | RegionFlag.MMAP
        return protocol.REGION_INFO.pack(fixed, flags, index, 0, bar.size, offset), [areas[0].fd]
    sparse = protocol.CAPABILITY.pack(protocol.SPARSE_MMAP, 1, 0) + protocol.SPARSE_HEAD.pack(len(areas), 0)
    sparse += b"".join(protocol.SPARSE_AREA.pack(area.start, area.size) for area in areas)
    needed = fixed + len(sparse)
    flags = access | RegionFlag.MMAP | RegionFlag.CAPABILITIES
    info = protocol.REGION_INFO.pack(needed, flags, index, fixed, bar.size, offset)
    return (info + sparse, [areas[0].fd]) if argsz >= needed else (info, [])
