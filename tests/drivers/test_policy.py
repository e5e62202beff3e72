# SPDX-License-Identifier: Apache-2.0
"""The driver with the policy "hardware": what it takes beyond mainline's, and what it refuses still."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from npubox.core import reaper
from npubox.core.drm.device import DrmDevice
from npubox.core.node import Node
from npubox.drivers.accel.ethosu.cmdstream import Policy, Refused, frame, validate
from npubox.drivers.accel.ethosu.drv import probe
from npubox.hw.ethosu.commands import Cmd0
from npubox.hw.ethosu.registers import Reg
from tests.core.refaccel import fails
from tests.drivers.fake_npu import (
    DRAM,
    SRAM,
    SRAM_SIZE,
    FakePort,
    bo_create,
    bo_wait,
    cmdstream,
    job,
    platform,
    submit,
)
from tests.drivers.streams import CONV, STOP, words
from tests.drivers.test_cmdstream import change

U55_128_CONFIG = 0x0000_1807
U85_ID = 0x2000_7000
BACKWARDS = change(CONV, OFM_STRIDE_Y=(1 << 40) - 80)


@pytest.fixture
def port() -> FakePort:
    return FakePort(config=U55_128_CONFIG)


@pytest.fixture
def device(port: FakePort) -> Iterator[DrmDevice]:
    resources = platform(port)
    made = probe(resources, Policy.HARDWARE)
    port.writes.clear()
    yield made
    reaper.drain()
    made.unregister()
    assert made.object_count == 0
    assert resources.sram is not None
    os.close(resources.sram.fd)


@pytest.fixture
def node(device: DrmDevice) -> Iterator[Node]:
    with Node.open(device) as opened:
        yield opened


def test_a_u85_is_nobodys() -> None:
    with pytest.raises(OSError, match="architecture 2") as caught:
        probe(platform(FakePort(id_=U85_ID)), Policy.HARDWARE)
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (words(STOP)[:3], 0),
        (words(STOP) + b"\0", 4),
        (words(Cmd0.OP_KERNEL_WAIT), 4),
        (words(STOP, STOP), 0),
        (words(STOP, Cmd0.OP_KERNEL_WAIT), 0),
        (words(0x4000, STOP), 8),
    ],
    ids=["empty", "no word", "a byte too many", "no STOP", "two", "STOP before the end", "STOP as a payload"],
)
def test_a_stream_needs_a_frame(node: Node, data: bytes, offset: int) -> None:
    with pytest.raises(Refused) as caught:
        frame(data)
    assert (caught.value.errno, caught.value.offset) == (errno.EINVAL, offset)
    if data:
        with fails(errno.EINVAL):
            cmdstream(node, data)


@pytest.mark.parametrize(
    "data",
    [
        words(Cmd0.OP_RESIZE, STOP),
        words(Cmd0.OP_CONV, STOP),
        words(Cmd0.OP_POOL, STOP),
        words(Cmd0.OP_DMA_START, STOP),
    ],
    ids=["OP_RESIZE", "CONV without registers", "POOL", "DMA"],
)
def test_operations_are_not_looked_at(node: Node, port: FakePort, data: bytes) -> None:
    with pytest.raises(Refused):
        validate(data)
    submit(node, job(cmdstream(node, data)))
    port.complete()


def test_regions_are_not_measured(node: Node, port: FakePort) -> None:
    """Negative strides, buffers that are too small by mainline's reckoning, missing and surplus ones."""
    assert validate(BACKWARDS).region_size[1] > 1 << 40
    small, other = bo_create(node, 1), bo_create(node, 1)
    for handles in ({"r1": small}, {}, {"r0": small, "r1": other, "r2": bo_create(node, 1), "r7": other}):
        submit(node, job(cmdstream(node, BACKWARDS), **handles))
        port.complete()
    assert port.runs == 3


def test_no_region_is_left_from_an_earlier_job(node: Node, port: FakePort) -> None:
    code, buffer = cmdstream(node, words(STOP)), bo_create(node, 4096)
    submit(node, job(code, sram_size=SRAM_SIZE, r0=buffer, r5=buffer))
    bases = [port.registers.get(Reg.BASEP0 + 8 * region, 0) for region in range(8)]
    assert bases == [DRAM + 0x2000, 0, SRAM, 0, 0, DRAM + 0x2000, 0, 0]
    port.complete()
    submit(node, job(code, r1=buffer))
    bases = [port.registers.get(Reg.BASEP0 + 8 * region, 0) for region in range(8)]
    assert bases == [0, DRAM + 0x2000, 0, 0, 0, 0, 0, 0]
    port.complete()


def test_every_buffer_counts_as_written(node: Node, port: FakePort) -> None:
    both, third = bo_create(node, 4096), bo_create(node, 4096)
    submit(node, job(cmdstream(node, words(STOP)), r0=both, r1=both, r6=third))
    for handle in (both, third):
        with fails(errno.ETIME):
            bo_wait(node, handle)
    port.complete()
    for handle in (both, third):
        bo_wait(node, handle)


def test_what_no_npu_could_start_is_refused(node: Node, port: FakePort) -> None:
    code, buffer = cmdstream(node, words(STOP)), bo_create(node, 4096)
    for bad, error in (
        (job(99), errno.ENOENT),
        (job(buffer), errno.EINVAL),
        (job(code, r3=99), errno.ENOENT),
        (job(code, r3=code), errno.EINVAL),
        (job(code, sram_size=SRAM_SIZE + 1), errno.EINVAL),
        (job(code, sram_size=1, r2=buffer), errno.EINVAL),
    ):
        with fails(error):
            submit(node, bad)
    assert port.runs == 0
