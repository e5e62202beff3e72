# SPDX-License-Identifier: Apache-2.0
"""Plans of families: operations that differ only in where their feature maps lie are decoded once, and every
one of them must come out as if it had been decoded by itself."""

from __future__ import annotations

import struct

import pytest

from npubox.devices.ethosu_npu.commands import RegisterFile, commands
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.cycles import Timeline
from npubox.devices.ethosu_npu.decode import build_operation
from npubox.devices.ethosu_npu.operations import Dma, FeatureMap, Irq, Operation, Stop
from npubox.devices.ethosu_npu.plan import Entry, Plan, build_plan
from npubox.devices.ethosu_npu.steps import build_step
from npubox.hw.ethosu.commands import CMD1_CONTROL, Cmd0, Cmd1
from tests.corpus.cases import DIRECTORY
from tests.devices.bench import npu_operator
from tests.networks import compiled_by_vela

ACCELERATOR = "ethos-u65-256"
CONFIGURATION = CONFIGURATIONS[ACCELERATOR]
MAPS = ("ifm", "ifm2", "ofm")


def places(fm: FeatureMap | None) -> list[int] | None:
    """The bases of the tiles that are used."""
    if fm is None:
        return None
    return [base for base, used in zip(fm.bases, fm.tiles_used, strict=True) if used]


def check(plan: Plan) -> None:
    """Decode again, one by one, without any memory of earlier operations."""
    registers, timeline = RegisterFile(), Timeline(CONFIGURATION)
    entries = iter(plan.entries)
    for command in commands(plan.words):
        if command.register is not None:
            registers.write(command)
            continue
        operation = build_operation(registers, command, CONFIGURATION.cores)
        if operation is None:
            timeline.wait(command)
            continue
        entry = next(entries)
        assert entry.command == command
        assert entry.cost == timeline.cost(operation, registers)
        check_entry(entry, operation)
        if isinstance(operation, Stop):
            break
    assert next(entries, None) is None


def check_entry(entry: Entry, operation: Operation) -> None:
    family = entry.family.operation
    assert type(family) is type(operation)
    if isinstance(operation, Stop | Irq):
        assert (entry.irq_mask, entry.step) == (operation.irq_mask, None)
        return
    made = build_step(operation, CONFIGURATION.ofm_microblock)
    assert entry.step is not None
    assert entry.step.scratch_bytes == made.scratch_bytes
    if isinstance(operation, Dma):
        assert family == operation
        return
    for name in MAPS:
        theirs = getattr(operation, name, None)
        ours = getattr(family, name, None)
        moved = ours.moved(getattr(entry.shift, name)) if ours is not None else None
        assert places(moved) == places(theirs)
    for name in ("_ifm", "_ifm2", "_ofm"):
        ours, theirs = getattr(entry.step, name, None), getattr(made, name, None)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.region, ours.start, ours.size) == (theirs.region, theirs.start, theirs.size)
            assert ours.vector.tolist() == theirs.vector.tolist()


@pytest.mark.parametrize(
    "name", ["gru_int16", "attention_int8", "bilinear_x2_int8", "dscnn_int8", "depthwise_3x3_int8"]
)
def test_every_member_is_as_decoded_by_itself(name: str) -> None:
    network = compiled_by_vela((DIRECTORY / f"{name}.tflite").read_bytes(), ACCELERATOR)
    plan = build_plan(npu_operator(network).stream.words, CONFIGURATION)
    assert plan.refusal is None
    check(plan)


def cmd0(code: Cmd0, parameter: int = 0) -> bytes:
    return struct.pack("<I", (parameter & 0xFFFF) << 16 | code)


def cmd1(code: Cmd1, value: int) -> bytes:
    value &= (1 << 40) - 1
    return struct.pack("<II", value >> 32 << 16 | CMD1_CONTROL | code, value & 0xFFFF_FFFF)


def max_pools(
    *bases: tuple[int, int, int], stride: int = 64, height: int = 4, height0: int = 4, extra: bytes = b""
) -> bytes:
    """2 x 1 max pools over int8 [height + 1, 4, 16] NHWC; for each the IFM base, the OFM base of its first
    tile and of its third."""
    fixed = {
        Cmd0.IFM_PRECISION: 1,
        Cmd0.IFM_REGION: 1,
        Cmd0.IFM_ZERO_POINT: 0,
        Cmd0.IFM_WIDTH0_M1: 3,
        Cmd0.IFM_HEIGHT0_M1: height,
        Cmd0.IFM_HEIGHT1_M1: height,
        Cmd0.IFM_DEPTH_M1: 15,
        Cmd0.IFM_UPSCALE: 0,
        Cmd0.IFM_PAD_TOP: 0,
        Cmd0.IFM_PAD_LEFT: 0,
        Cmd0.IFM_PAD_BOTTOM: 0,
        Cmd0.IFM_PAD_RIGHT: 0,
        Cmd0.OFM_PRECISION: 1,
        Cmd0.OFM_REGION: 1,
        Cmd0.OFM_ZERO_POINT: 0,
        Cmd0.OFM_WIDTH0_M1: 3,
        Cmd0.OFM_HEIGHT0_M1: height0 - 1,
        Cmd0.OFM_HEIGHT1_M1: height0 - 1,
        Cmd0.OFM_WIDTH_M1: 3,
        Cmd0.OFM_HEIGHT_M1: height - 1,
        Cmd0.OFM_DEPTH_M1: 15,
        Cmd0.OFM_BLK_HEIGHT_M1: 3,
        Cmd0.OFM_BLK_WIDTH_M1: 3,
        Cmd0.OFM_BLK_DEPTH_M1: 15,
        Cmd0.KERNEL_STRIDE: 0,
        Cmd0.KERNEL_HEIGHT_M1: 1,
        Cmd0.KERNEL_WIDTH_M1: 0,
        Cmd0.ACTIVATION: 0,
        Cmd0.ACTIVATION_MIN: -128,
        Cmd0.ACTIVATION_MAX: 127,
        Cmd0.ACC_FORMAT: 0,
    }
    words = b"".join(cmd0(code, value) for code, value in fixed.items())
    for fm, step in ((Cmd1.IFM_STRIDE_Y, 64), (Cmd1.OFM_STRIDE_Y, stride)):
        words += cmd1(fm, step)
    words += cmd1(Cmd1.IFM_STRIDE_X, 16) + cmd1(Cmd1.OFM_STRIDE_X, 16)
    for ifm, ofm, third in bases:
        words += cmd1(Cmd1.IFM_BASE0, ifm) + cmd1(Cmd1.OFM_BASE0, ofm) + cmd1(Cmd1.OFM_BASE2, third)
        words += cmd0(Cmd0.OP_POOL, 0)
    return words + extra + cmd0(Cmd0.OP_STOP, 0xFFFF)


def families(plan: Plan) -> int:
    return len({entry.family for entry in plan.entries})


def test_members_of_one_tile_are_one_family_wherever_they_lie() -> None:
    plan = build_plan(max_pools((0, 4096, 1), (640, 8192, 7), (64, 4096, 0)), CONFIGURATION)
    assert plan.refusal is None
    check(plan)
    assert families(plan) == 2, "the pools, and STOP"


def test_tiles_that_lie_otherwise_are_decoded_anew() -> None:
    moves = [(0, 4096, 8192), (64, 4160, 8256), (64, 4160, 9000), (0, 4224, 9064)]
    plan = build_plan(max_pools(*moves, height0=2), CONFIGURATION)
    assert plan.refusal is None
    check(plan)
    assert families(plan) == 3


def test_negative_strides_that_move_down_are_decoded_anew() -> None:
    plan = build_plan(max_pools((0, 8192, 0), (0, 8256, 0), (0, 4096, 0), stride=-64), CONFIGURATION)
    assert plan.refusal is None
    check(plan)
    assert families(plan) == 3


def test_another_register_makes_another_family() -> None:
    changed = cmd0(Cmd0.ACTIVATION_MAX, 99) + cmd0(Cmd0.OP_POOL, 0)
    back = cmd0(Cmd0.ACTIVATION_MAX, 127) + cmd0(Cmd0.OP_POOL, 0)
    plan = build_plan(max_pools((0, 4096, 0), (64, 4096, 0), extra=changed + back), CONFIGURATION)
    assert plan.refusal is None
    check(plan)
    pools = [entry.family for entry in plan.entries[:-1]]
    assert pools[0] is pools[1] is pools[3] is not pools[2]


def test_a_later_member_is_refused_as_the_first_would_be() -> None:
    wide = struct.pack("<II", 0x0100 << 16 | CMD1_CONTROL | Cmd1.OFM_BASE0, 0) + cmd0(Cmd0.OP_POOL, 0)
    later = build_plan(max_pools((0, 4096, 0), extra=wide), CONFIGURATION)
    first = build_plan(max_pools(extra=cmd1(Cmd1.IFM_BASE0, 0) + wide), CONFIGURATION)
    assert later.refusal is not None
    assert first.refusal is not None
    assert later.refusal.reason == first.refusal.reason
    assert "OFM_BASE0" in first.refusal.reason
    assert len(later.entries) == 1
