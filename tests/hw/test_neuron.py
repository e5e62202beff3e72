# SPDX-License-Identifier: Apache-2.0
"""The Inferentia's declarations against golden vectors and tables of the facts (neuron.md §1.4, §7, §16)."""

from __future__ import annotations

import pytest

from npubox.hw.neuron import address, fwio, misc_ram, putils, udma
from npubox.hw.neuron.address import Window, through
from npubox.hw.neuron.descriptors import Control, pack_rx, pack_tx
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.notification import SIZE, start_record
from npubox.hw.neuron.putils import NotificationType, queue_registers

STATUS = address.MISC_RAM + MiscReg.STATUS
FRAMED = Control.FIRST | Control.LAST


@pytest.mark.parametrize(
    ("request_bytes", "golden"),
    [
        (fwio.pack_read(2, STATUS), "02 01 10 00 5c 4a d1 41 1c e0 78 f0 ff 0f 00 00"),
        (
            fwio.pack_read(3, STATUS, address.MISC_RAM + MiscReg.DEVICE_ID),
            "03 01 18 00 ce 6c 12 ea 1c e0 78 f0 ff 0f 00 00 24 e0 78 f0 ff 0f 00 00",
        ),
        (
            fwio.pack_read(2, address.MISC_RAM + MiscReg.RESET),
            "02 01 10 00 ef 57 a5 8e ec e1 78 f0 ff 0f 00 00",
        ),
        (
            fwio.pack_request(2, fwio.Command.POST_METRICS, b"\x0c\x010\x0d\x082.24.7.0"),
            "02 02 15 00 67 73 e7 93 0c 01 30 0d 08 32 2e 32 34 2e 37 2e 30",
        ),
        (fwio.pack_response(2, fwio.Error.OK, b"\0\0\0\x80"), "02 00 08 00 00 00 00 80"),
    ],
)
def test_messages(request_bytes: bytes, golden: str) -> None:
    assert request_bytes == bytes.fromhex(golden)


def test_crc() -> None:
    assert fwio.crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    ("descriptor", "golden"),
    [
        (
            pack_tx(through(Window.HOST, 0x2000_0000), 65536, 1),
            "00 00 00 0d 03 00 08 01 00 00 00 20 00 40 00 00",
        ),
        (pack_rx(0x1000, 65536, 1), "00 00 00 01 00 00 00 00 00 10 00 00 00 00 00 00"),
        (
            pack_tx(through(Window.HOST, 0x2001_0000), 34464, 1, FRAMED | Control.DMB),
            "a0 86 00 4d 03 00 08 01 00 00 01 20 00 40 00 00",
        ),
        (pack_rx(0x1_1000, 34464, 1), "a0 86 00 01 00 00 00 00 00 10 01 00 00 00 00 00"),
        (
            pack_tx(through(Window.HOST, 0x3000_0000), 4, 1),
            "04 00 00 0d 03 00 08 01 00 00 00 30 00 40 00 00",
        ),
        (
            pack_rx(through(Window.HOST, 0x3000_0004), 4, 1),
            "04 00 00 01 00 00 00 00 04 00 00 30 00 40 00 00",
        ),
    ],
)
def test_descriptors(descriptor: bytes, golden: str) -> None:
    assert descriptor == bytes.fromhex(golden)


def test_engines_lie_where_the_facts_have_them() -> None:
    assert [udma.engine_base(e) for e in range(udma.ENGINES)] == [
        *(0x040000, 0x080000, 0x0C0000, 0x140000, 0x180000, 0x1C0000),
        *(0x240000, 0x280000, 0x2C0000, 0x340000, 0x380000, 0x3C0000),
    ]
    assert [udma.tdma_base(e) for e in range(udma.ENGINES)] == [
        *(0x000000, 0x001000, 0x002000, 0x100000, 0x101000, 0x102000),
        *(0x200000, 0x201000, 0x202000, 0x300000, 0x301000, 0x302000),
    ]
    doorbell = udma.engine_base(udma.memcpy_engine(0)) + udma.QueueReg.TAIL_INCREMENT
    assert doorbell + udma.m2s_queue(udma.MEMCPY_QUEUE) == 0xD0038
    assert doorbell + udma.s2m_queue(udma.MEMCPY_QUEUE) == 0xF0038


def test_neighbours_device_id() -> None:
    device_id = address.MISC_RAM + MiscReg.DEVICE_ID
    assert through(Window.EAST, device_id) == 0x8FFF_F078_E024
    assert through(Window.WEST, device_id) == 0xCFFF_F078_E024
    assert address.APB + misc_ram.BASE == address.MISC_RAM


def test_dram_in_its_bar() -> None:
    assert address.dram_bar_offset(0) == 0
    assert address.dram_bar_offset(address.dram_address(1, 5)) == (4 << 30) + 5
    assert address.dram_bar_offset(4 << 30) is None
    assert address.dram_bar_offset(address.dram_address(2)) is None


def test_notification_queues() -> None:
    assert queue_registers(NotificationType.ERROR) == (0x1074, 0x1078, 0x107C, 0x108C)
    assert queue_registers(NotificationType.EVENT) == (0x1094, 0x1098, 0x109C, 0x10AC)
    assert queue_registers(NotificationType.NOTIFY, 3) == (0xF08, 0xF0C, 0xF10, 0xF20)
    assert queue_registers(NotificationType.TRACE) == (0xC7C, 0xC80, 0xC84, 0xC94)
    assert putils.putils_base(3) == 0x43_4000


def test_start_records() -> None:
    assert start_record(2, NotificationType.NOTIFY, 3) == b"NQ2 NOTIFY3....."
    assert start_record(0, NotificationType.EVENT, 0) == b"NQ0 EVENT......."
    assert len(start_record(3, NotificationType.TRACE, 0)) == SIZE
