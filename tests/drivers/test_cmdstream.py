# SPDX-License-Identifier: Apache-2.0
"""The command-stream validator: what each operation uses, and every refusal, by the rules of mainline."""

from __future__ import annotations

import random

import pytest

from npubox.drivers.accel.ethosu.cmdstream import CommandStream, Refused, validate
from npubox.hw.ethosu.commands import Cmd0, Cmd1
from tests.drivers.streams import CONV, STOP, Command, copy, feature_map, stream, vela_streams, words
from tests.networks import SHARED_NAMES, compiled_by_vela, shared_network


def change(commands: list[Command], **values: int | None) -> bytes:
    """A stream with other values for some commands; None leaves a command out."""
    changed: list[Command] = []
    for code, value in commands:
        new = values.get(code.name, value)
        if new is not None:
            changed.append((code, new))  # type: ignore[arg-type]
    return stream(changed)


def sizes(data: bytes) -> dict[int, int]:
    return {region: size for region, size in enumerate(validate(data).region_size) if size}


def written(data: bytes) -> list[int]:
    return [region for region, flag in enumerate(validate(data).written) if flag]


def test_the_shortest_stream() -> None:
    assert validate(words(STOP)) == CommandStream(4, (0,) * 8, (False,) * 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        words(STOP)[:3],
        words(0x105),
        words(STOP, STOP),
        words(STOP, 0x105),
        words(0x4000),
        words(STOP, 0x4000),
        words(0x4000, 0),
        words(Cmd0.OP_RESIZE, STOP),
        words(STOP | 0x400),
        words(STOP | 0x8000),
    ],
)
def test_shapes_that_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        validate(data)


def test_a_remainder_counts_in_the_size_only() -> None:
    assert validate(words(STOP) + b"\1\2\3").size == 7


def test_payload_words_are_no_commands() -> None:
    assert sizes(words(Cmd1.OFM_SCALE | 0x4000, 0, Cmd1.IFM_BASE0 | 0x4000, Cmd0.OP_RESIZE, STOP)) == {}


def test_unknown_commands_are_ignored() -> None:
    unknown = [0x3FF, Cmd0.OP_RESIZE | 0x400, Cmd0.OP_CONV | 0x8000, 0x40, Cmd0.OP_DMA_START | 0x2000]
    assert sizes(words(*unknown, 0xC000, 0x1234, 0x43FF, 0, STOP)) == {}


def test_reserved_bits_make_a_register_write_another_one() -> None:
    data = stream(CONV).replace(words(Cmd0.IFM_REGION | 1 << 16), words(Cmd0.IFM_REGION | 1 << 16 | 0x400))
    with pytest.raises(Refused, match="IFM_REGION"):
        validate(data)


def test_convolution() -> None:
    assert sizes(stream(CONV)) == {0: 0x330, 1: 0x1000 + 1600}
    assert written(stream(CONV)) == [1]
    depthwise: list[Command] = [*CONV[:-1], (Cmd0.OP_DEPTHWISE, 0)]
    assert sizes(stream(depthwise)) == sizes(stream(CONV))


def test_ifm_end() -> None:
    assert sizes(change(CONV, OFM_REGION=5))[1] == 800
    # Stride 2 in y and 3 in x: (9*2+2-2) rows, (9*3+2-2) columns.
    strides = 1 << 1 | 0 << 9 | 1 << 6 | 0
    assert sizes(change(CONV, OFM_REGION=5, KERNEL_STRIDE=strides))[1] == 18 * 80 + 27 * 8 + 7 + 1
    strides = 1 << 1 | 1 << 9 | 1 << 6 | 1
    assert sizes(change(CONV, OFM_REGION=5, KERNEL_STRIDE=strides))[1] == 36 * 80 + 36 * 8 + 7 + 1


def test_the_end_is_the_last_address_plus_one_whatever_the_element() -> None:
    precision = 2 << 2
    assert sizes(change(CONV, OFM_REGION=5, IFM_PRECISION=precision))[1] == 9 * 80 + 9 * 8 + 7 * 4 + 1


def test_nhcwb16() -> None:
    data = change(CONV, IFM_REGION=5, OFM_PRECISION=1 << 6, OFM_DEPTH_M1=17)
    assert sizes(data)[1] == 0x1000 + 9 * 160 + 1 * 1 + (16 * 9 + 1) + 1


def test_other_layouts_count_rows_only() -> None:
    assert sizes(change(CONV, IFM_REGION=5, OFM_PRECISION=2 << 6))[1] == 0x1000 + 9 * 160 + 1


def test_tiles() -> None:
    tiles: list[Command] = [
        (Cmd0.OFM_WIDTH0_M1, 4),
        (Cmd0.OFM_HEIGHT0_M1, 6),
        (Cmd0.OFM_HEIGHT1_M1, 3),
        (Cmd1.OFM_BASE1, 0x2000),
        (Cmd1.OFM_BASE3, 0x8000),
    ]
    # Column 9 is column 4 of the right half, row 9 there is row 5 of the lower tile.
    assert sizes(stream([*CONV[:-1], *tiles, CONV[-1]]))[1] == 0x8000 + 5 * 160 + 4 * 16 + 15 + 1
    edge: list[Command] = [(Cmd0.OFM_WIDTH0_M1, 9), (Cmd0.OFM_HEIGHT0_M1, 9)]
    assert sizes(stream([*CONV[:-1], *edge, CONV[-1]])) == sizes(stream(CONV))
    with pytest.raises(Refused, match="OFM_BASE3"):
        validate(stream([*CONV[:-1], *tiles[:-1], CONV[-1]]))
    tiles[2] = (Cmd0.OFM_HEIGHT1_M1, 9)
    assert sizes(stream([*CONV[:-1], *tiles, CONV[-1]]))[1] == 0x2000 + 9 * 160 + 4 * 16 + 15 + 1


@pytest.mark.parametrize(
    "name",
    [
        *("IFM_REGION", "IFM_BASE0", "KERNEL_STRIDE", "OFM_REGION", "OFM_BASE0"),
        *("WEIGHT_REGION", "WEIGHT_BASE", "WEIGHT_LENGTH", "SCALE_REGION", "SCALE_BASE", "SCALE_LENGTH"),
    ],
)
def test_what_must_be_set(name: str) -> None:
    with pytest.raises(Refused, match=name):
        validate(change(CONV, **{name: None}))


def test_padding_larger_than_the_window() -> None:
    with pytest.raises(Refused, match="padding"):
        validate(change(CONV, OFM_HEIGHT_M1=0, IFM_PAD_TOP=3))
    # Top and left keep seven bits, so 0x80 is 0; bottom and right keep eight.
    assert sizes(change(CONV, OFM_REGION=5, IFM_PAD_TOP=0x80))[1] == 880
    assert sizes(change(CONV, OFM_REGION=5, IFM_PAD_LEFT=0x80))[1] == 808
    for side in ("IFM_PAD_BOTTOM", "IFM_PAD_RIGHT"):
        with pytest.raises(Refused, match="padding"):
            validate(change(CONV, **{side: 0x80}))
    with pytest.raises(Refused, match="padding"):
        validate(change(CONV, IFM_PAD_TOP=None))


def test_global_scale_needs_no_scales() -> None:
    assert sizes(change(CONV, OFM_PRECISION=1 << 8, SCALE_REGION=None))[0] == 0x330
    assert sizes(change(CONV, OFM_PRECISION=1 << 8, WEIGHT_REGION=3)) == {1: 0x1000 + 1600, 3: 0x330}


def test_convolution_with_weights_from_ifm2() -> None:
    data = stream([*feature_map("IFM2", 4, 0x40, 1, 16), *CONV[:-1], (Cmd0.OP_CONV, 1)])
    assert sizes(data) == {0: 0x1A0, 1: 0x1000 + 1600, 4: 0x40 + 7 * 16 + 15 + 1}


def test_pool() -> None:
    assert sizes(stream([*CONV[:-1], (Cmd0.OP_POOL, 1)])) == {0: 0x1A0, 1: 0x1000 + 1600}
    pool: list[Command] = [*CONV[:-1], (Cmd0.OP_POOL, 4)]
    assert sizes(change(pool, IFM_REGION=None)) == {0: 0x1A0, 1: 0x1000 + 1600}
    with pytest.raises(Refused, match="IFM_REGION"):
        validate(change([*CONV[:-1], (Cmd0.OP_POOL, 0)], IFM_REGION=None))


ELEMENTWISE: list[Command] = [
    *feature_map("IFM", 1, 0, 80, 8),
    *feature_map("IFM2", 3, 0, 80, 8),
    *feature_map("OFM", 4, 0, 80, 8),
    (Cmd0.IFM_BROADCAST, 0),
    (Cmd0.IFM2_BROADCAST, 0),
    (Cmd0.OFM_HEIGHT_M1, 9),
    (Cmd0.OFM_WIDTH_M1, 9),
    (Cmd0.OFM_DEPTH_M1, 7),
    (Cmd0.OP_ELEMENTWISE, 1),
]


def test_elementwise() -> None:
    assert sizes(stream(ELEMENTWISE)) == {1: 800, 3: 800, 4: 800}
    assert written(stream(ELEMENTWISE)) == [4]
    for bits, end in ((1, 80), (2, 728), (4, 793), (7, 1)):
        assert sizes(change(ELEMENTWISE, IFM2_BROADCAST=bits))[3] == end
        assert sizes(change(ELEMENTWISE, IFM_BROADCAST=bits))[1] == end
    assert sizes(change(ELEMENTWISE, IFM_BROADCAST=8)) == {3: 800, 4: 800}
    assert sizes(change(ELEMENTWISE, IFM2_BROADCAST=0x80)) == {1: 800, 4: 800}
    for mode in (5, 6, 7, 0x24):
        assert sizes(change(ELEMENTWISE, OP_ELEMENTWISE=mode)) == {1: 800, 4: 800}
    for mode in (0, 2, 3, 4, 8, 9):
        assert sizes(change(ELEMENTWISE, OP_ELEMENTWISE=mode)) == {1: 800, 3: 800, 4: 800}


def test_unset_broadcasts_are_all_ones() -> None:
    assert sizes(change(ELEMENTWISE, IFM_BROADCAST=None))[1] == 1
    assert 3 not in sizes(change(ELEMENTWISE, IFM2_BROADCAST=None))


def test_dma() -> None:
    data = stream(copy(0, 2, 0x100, src=0x10, dst=0x20))
    assert sizes(data) == {0: 0x110, 2: 0x120}
    assert written(data) == [2]
    assert sizes(stream(copy(0, 0x103, 0x100))) == {0: 0x100}
    assert sizes(stream(copy(0x100, 2, 0x100))) == {2: 0x100}
    with pytest.raises(Refused, match="DMA0_LEN"):
        validate(change(copy(0, 2, 16), DMA0_LEN=None))
    assert sizes(change(copy(0, 2, 16), DMA0_SRC_REGION=None, DMA0_DST_REGION=None)) == {}
    with pytest.raises(Refused, match="DMA0_SRC"):
        validate(change(copy(0, 2, 16), DMA0_SRC=None))


def test_strided_dma() -> None:
    def dma(mode: int, **more: int) -> bytes:
        extra: list[Command] = [
            (Cmd0.DMA0_SIZE0, 3),
            (Cmd0.DMA0_SIZE1, 5),
            (Cmd1.DMA0_SKIP0, more.get("skip0", 4)),
            (Cmd1.DMA0_SKIP1, more.get("skip1", 6)),
            (Cmd1.DMA0_DST_STRIDE0, 0),
            (Cmd1.DMA0_DST_STRIDE1, 0),
        ]
        return stream([*extra, *copy(mode << 9, 2, 16)])

    assert sizes(dma(0)) == {0: 16, 2: 16}
    assert sizes(dma(1)) == {0: 20 * 3, 2: 16 * 3}
    assert sizes(dma(2)) == {0: (20 * 3 + 6) * 5, 2: 16 * 3 * 5}
    assert sizes(dma(3)) == sizes(dma(1))
    assert sizes(dma(1, skip0=(1 << 40) - 16))[2] == 48
    assert 0 not in sizes(dma(1, skip0=(1 << 40) - 16))
    with pytest.raises(Refused, match="negative"):
        validate(dma(1, skip0=(1 << 40) - 17))
    with pytest.raises(Refused, match="negative"):
        validate(dma(2, skip1=1 << 39))


def test_unset_dma_strides_are_minus_one() -> None:
    assert sizes(stream([(Cmd0.DMA0_SIZE0, 3), *copy(1 << 9, 2, 16)])) == {0: 45, 2: 45}


def test_a_dma_beyond_64_bits() -> None:
    data = stream(
        [
            (Cmd0.DMA0_SIZE0, 0xFFFE),
            (Cmd0.DMA0_SIZE1, 0xFFFE),
            (Cmd1.DMA0_SKIP0, (1 << 39) - 1),
            (Cmd1.DMA0_SKIP1, 0),
            *copy(2 << 9, 0x103, 16),
        ]
    )
    with pytest.raises(Refused, match="address space"):
        validate(data)


def test_unset_map_strides_wrap_like_64_bit_arithmetic() -> None:
    assert sizes(change(CONV, OFM_REGION=5, IFM_BASE0=0x100, IFM_STRIDE_Y=None))[1] == 0x100 - 9 + 72 + 7 + 1
    assert sizes(change(CONV, OFM_REGION=5, IFM_STRIDE_Y=None, IFM_STRIDE_X=None))[1] == (1 << 64) - 18 + 8


def test_regions_keep_three_bits() -> None:
    assert sizes(change(CONV, IFM_REGION=9, WEIGHT_REGION=0x10)) == sizes(stream(CONV))
    assert sizes(stream(copy(0x8, 0x1A, 16))) == {0: 16, 2: 16}


def test_parameter_bits_above_an_address_and_of_a_length_are_ignored() -> None:
    data = stream(copy(0, 0x103, 16, src=0x40))
    source, length = words(Cmd1.DMA0_SRC | 0x4000), words(Cmd1.DMA0_LEN | 0x4000)
    for command, changed in ((source, 0xAB00_0000), (length, 0x00AB_0000)):
        word = int.from_bytes(command, "little")
        assert sizes(data.replace(command, words(word | changed))) == {0: 0x50}


def test_addresses_have_40_bits() -> None:
    assert sizes(stream(copy(0, 0x103, 1, src=0xAB_1234_5678))) == {0: 0xAB_1234_5679}


def test_the_highest_use_of_a_region_counts() -> None:
    data = stream([*copy(0, 1, 16, src=0x500), *copy(0, 1, 16, src=0x100, dst=0x900)])
    assert sizes(data) == {0: 0x510, 1: 0x910}


def test_the_refusal_names_offset_and_reason() -> None:
    with pytest.raises(Refused) as caught:
        validate(words(0x105, 0x4000, 0, Cmd0.OP_DMA_START, STOP))
    assert caught.value.offset == 12
    assert "offset 0xc" in str(caught.value)
    assert "DMA0_LEN" in str(caught.value)


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED_NAMES)
def test_real_streams_of_vela_pass_and_fit_their_regions(name: str) -> None:
    network = compiled_by_vela(shared_network(name).read_bytes(), "ethos-u65-256")
    for data, needs in vela_streams(network):
        checked = validate(data)
        assert checked.size == len(data)
        for region, used in enumerate(checked.region_size):
            assert used <= needs[region], f"region {region}"
        assert checked.written[1] or checked.written[2]
        assert not checked.written[0]
        assert checked.region_size[0] > 0.9 * needs[0]


@pytest.mark.shared
def test_flipped_words_of_a_real_stream_never_do_worse_than_a_refusal() -> None:
    network = compiled_by_vela(shared_network("hello_world_int8").read_bytes(), "ethos-u65-256")
    data = next(vela_streams(network))[0]
    rng, refused = random.Random(5), 0
    for _ in range(2000):
        position = rng.randrange(len(data))
        flipped = data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]
        try:
            result = validate(flipped)
        except Refused:
            refused += 1
        else:
            assert all(0 <= size < 1 << 64 for size in result.region_size)
    assert 0 < refused < 2000
