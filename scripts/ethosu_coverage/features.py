# SPDX-License-Identifier: Apache-2.0
"""What an NPU operation can ask for, aspect by aspect: read from operations, and tried on the decoder.

Each aspect names its values, says which of them an operation shows, and how registers ask for one; so the
same table tells what a command stream holds and what the virtual NPU takes or refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from npubox.devices.ethosu_npu.commands import Command, RegisterFile
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.decode import build_operation
from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.operations import (
    Convolution,
    Dma,
    Elementwise,
    FeatureMap,
    Operation,
    Output,
    Pool,
    Window,
)
from npubox.devices.ethosu_npu.steps import build_step
from npubox.hw.ethosu.commands import (
    IFM2_BROADCAST_C,
    IFM2_BROADCAST_H,
    IFM2_BROADCAST_W,
    IFM2_CONSTANT,
    IFM2_OPERAND_A,
    INTERNAL_REGION_BIT,
    UNARY_MODES,
    Activation,
    ClipRange,
    Cmd0,
    Cmd1,
    ElementwiseMode,
    Format,
    PoolMode,
    Rounding,
    ScaleMode,
    StrideMode,
    Upscale,
)

Kernel = Convolution | Pool | Elementwise
Write = tuple[Cmd0 | Cmd1, int]
Writes = tuple[Write, ...]

PROBED_ON = CONFIGURATIONS["ethos-u65-512"]
HEIGHT, WIDTH, DEPTH = 4, 6, 16
TYPES = {
    f"{'' if signed else 'u'}int{8 * size}": (size, signed) for size in (1, 2, 4) for signed in (True, False)
}
CODES = {1: 0, 2: 1, 4: 2}  # element size in bytes to its code in a PRECISION register
CONVOLUTIONS = ("CONV", "DEPTHWISE")
POOLS = tuple(f"POOL {mode.name}" for mode in PoolMode)
ELEMENTWISE = tuple(f"ELEMENTWISE {mode.name}" for mode in ElementwiseMode)
BINARY = tuple(f"ELEMENTWISE {mode.name}" for mode in ElementwiseMode if mode not in UNARY_MODES)
KERNELS = (*CONVOLUTIONS, *POOLS, *ELEMENTWISE)
ON_32_BIT = ("ELEMENTWISE CLZ", "ELEMENTWISE SHR", "ELEMENTWISE SHL")


def kind_of(operation: Operation) -> str | None:
    """The row of the page's tables that an operation counts for; None for OP_STOP and OP_IRQ."""
    match operation:
        case Convolution():
            return "DEPTHWISE" if operation.depthwise else "CONV"
        case Pool():
            return f"POOL {operation.mode.name}"
        case Elementwise():
            return f"ELEMENTWISE {operation.mode.name}"
        case Dma():
            return "DMA"
    return None


@dataclass(frozen=True)
class Aspect:
    """One thing that operations of `kinds` can differ in. `values` tells which registers ask for each value,
    beside those of a plain operation of the kind; `shown` which of them an operation has."""

    name: str
    kinds: tuple[str, ...]
    values: Mapping[str, Callable[[str], Writes]]
    shown: Callable[[Operation, RegisterFile], Iterable[str]]


def shown(operation: Operation, registers: RegisterFile) -> dict[str, set[str]]:
    """By aspect, the values that an operation shows."""
    kind = kind_of(operation)
    return {a.name: set(a.shown(operation, registers)) for a in ASPECTS if kind in a.kinds}


def refusal(kind: str, aspect: Aspect, value: str) -> str | None:
    """Why the virtual NPU does not execute an operation with this value; None if it does."""
    registers = RegisterFile()
    for register, number in (*_plain(kind), *aspect.values[value](kind)):
        registers.write(_command(register, number))
    try:
        operation = build_operation(registers, _operation_command(kind), PROBED_ON.cores)
        assert operation is not None
        build_step(operation, PROBED_ON.ofm_microblock)
    except Refused as error:
        return str(error)
    return None


def _command(register: Cmd0 | Cmd1, number: int) -> Command:
    if isinstance(register, Cmd1):
        return Command(0, register.name, None, register, number >> 32 & 0xFFFF, number & 0xFFFFFFFF)
    return Command(0, register.name, None, register, number & 0xFFFF)


def _operation_command(kind: str) -> Command:
    name, _, mode = kind.partition(" ")
    code, parameter = {
        "CONV": (Cmd0.OP_CONV, 0),
        "DEPTHWISE": (Cmd0.OP_DEPTHWISE, 0),
        "POOL": (Cmd0.OP_POOL, PoolMode[mode] if name == "POOL" else 0),
        "ELEMENTWISE": (Cmd0.OP_ELEMENTWISE, ElementwiseMode[mode] if name == "ELEMENTWISE" else 0),
        "DMA": (Cmd0.OP_DMA_START, 0),
    }[name]
    return Command(0, code.name, code, None, int(parameter))


# Registers of a plain operation: a 4 x 6 x 16 OFM, int8 (int32 where nothing else is defined), NHWC, 1x1.


def _plain(kind: str) -> Writes:
    if kind == "DMA":
        places: Writes = ((Cmd0.DMA0_SRC_REGION, 0), (Cmd1.DMA0_SRC, 0), (Cmd0.DMA0_DST_REGION, 1))
        return (*places, (Cmd1.DMA0_DST, 0), (Cmd1.DMA0_LEN, 256))
    usual = "int32" if kind in ON_32_BIT else "int8"
    ones = (Cmd1.OPA_SCALE, Cmd1.OPB_SCALE, Cmd1.OFM_SCALE)
    zeros = (
        *(Cmd0.IFM_PAD_TOP, Cmd0.IFM_PAD_LEFT, Cmd0.IFM_PAD_BOTTOM, Cmd0.IFM_PAD_RIGHT),
        *(Cmd0.IFM_ZERO_POINT, Cmd0.IFM2_ZERO_POINT, Cmd0.OFM_ZERO_POINT, Cmd0.IFM_UPSCALE),
        *(Cmd0.KERNEL_WIDTH_M1, Cmd0.KERNEL_HEIGHT_M1, Cmd0.KERNEL_STRIDE, Cmd0.PARALLEL_MODE),
        *(Cmd0.ACC_FORMAT, Cmd0.ACTIVATION, Cmd0.WEIGHT_REGION, Cmd0.SCALE_REGION, Cmd0.IFM2_BROADCAST),
        *(Cmd0.IFM2_SCALAR, Cmd1.WEIGHT_BASE, Cmd1.SCALE_BASE, Cmd1.WEIGHT1_BASE, Cmd1.SCALE1_BASE),
    )
    lengths = (Cmd1.WEIGHT_LENGTH, Cmd1.SCALE_LENGTH, Cmd1.WEIGHT1_LENGTH, Cmd1.SCALE1_LENGTH)
    return (
        *((register, 0) for register in zeros),
        *((register, 1) for register in ones),
        *((register, 160) for register in lengths),
        (Cmd0.OFM_WIDTH_M1, WIDTH - 1),
        (Cmd0.OFM_HEIGHT_M1, HEIGHT - 1),
        (Cmd0.OFM_DEPTH_M1, 0 if kind == "POOL REDUCE_SUM" else DEPTH - 1),
        (Cmd0.IFM_DEPTH_M1, DEPTH - 1),
        (Cmd0.OFM_BLK_WIDTH_M1, 7),
        (Cmd0.OFM_BLK_HEIGHT_M1, 7),
        (Cmd0.OFM_BLK_DEPTH_M1, 15),
        *_map("IFM", 0, kind=kind),
        *_map("IFM2", 1, kind=kind),
        *_map("OFM", 2, kind=kind),
        *_types(usual, usual, kind),
    )


def _map(
    which: str, at: int, *, kind: str, brick: bool = False, negative: str = "", tiles: str = ""
) -> Writes:
    """Where and how a feature map of 32-bit elements at most lies; `negative` names the axes that descend."""
    step = 4 * DEPTH
    strides = {"Y": 2 * WIDTH * step, "X": step, "C": 16 * 4 * WIDTH}
    for axis in negative:
        strides[axis] *= -1
    base = at << 16 | 0x8000
    return (
        (Cmd0[f"{which}_REGION"], 1),
        (Cmd0[f"{which}_WIDTH0_M1"], 1 if "columns" in tiles else WIDTH - 1),
        (Cmd0[f"{which}_HEIGHT0_M1"], 1 if "rows" in tiles else HEIGHT - 1),
        (Cmd0[f"{which}_HEIGHT1_M1"], 1 if "rows" in tiles else HEIGHT - 1),
        *((Cmd1[f"{which}_BASE{n}"], base + n * 0x2000) for n in range(4)),
        *((Cmd1[f"{which}_STRIDE_{axis}"], stride & (1 << 40) - 1) for axis, stride in strides.items()),
    )


def _types(ifm: str, ofm: str, kind: str, *, low: int | None = None, high: int | None = None) -> Writes:
    size, signed = TYPES[ofm]
    bits = 8 * size
    least = (-(1 << bits - 1) if signed else 0) if low is None else low
    most = ((1 << bits - signed) - 1) if high is None else high
    wide = size == 4
    return (
        *((Cmd0[f"{which}_PRECISION"], _precision(which, ifm)) for which in ("IFM", "IFM2")),
        (Cmd0.OFM_PRECISION, _precision("OFM", ofm) | (0 if kind in CONVOLUTIONS else 1 << 8)),
        (Cmd0.ACTIVATION_MIN, 0 if wide else least),
        (Cmd0.ACTIVATION_MAX, 0 if wide else most),
    )


def _precision(which: str, type_: str) -> int:
    size, signed = TYPES[type_]
    return int(signed) | CODES[size] << (1 if which == "OFM" else 2)


def _changed(register: Cmd0, value: int) -> Callable[[str], Writes]:
    """Bits added to what a plain operation of the kind writes."""

    def writes(kind: str) -> Writes:
        plain = [number for name, number in _plain(kind) if type(name) is Cmd0 and name is register]
        return ((register, plain[-1] | value),)

    return writes


def _set(register: Cmd0 | Cmd1, value: int) -> Callable[[str], Writes]:
    return lambda kind: ((register, value),)


def _nothing(kind: str) -> Writes:
    return ()


# What operations show.


def _type_name(fm: FeatureMap) -> str:
    return f"{'' if fm.signed else 'u'}int{8 * fm.element_size}"


def _kernel(operation: Operation) -> Kernel:
    assert isinstance(operation, Convolution | Pool | Elementwise)
    return operation


def _maps(operation: Operation) -> dict[str, FeatureMap]:
    kernel = _kernel(operation)
    maps = {"IFM": kernel.ifm, "OFM": kernel.ofm}
    if isinstance(kernel, Elementwise) and kernel.ifm2 is not None:
        maps["IFM2"] = kernel.ifm2
    return maps


def _tiles(fm: FeatureMap) -> str:
    axes = [
        name for name, many in (("rows", fm.height > fm.height0), ("columns", fm.width > fm.width0)) if many
    ]
    return " and ".join(axes) if axes else "one"


def _descending(fm: FeatureMap) -> str:
    strides = {"Y": fm.stride_y, "X": fm.stride_x, "C": fm.stride_c}
    return "".join(axis for axis, stride in strides.items() if stride < 0) or "none"


def _window(operation: Operation) -> Window:
    assert isinstance(operation, Convolution | Pool)
    return operation.window


def _reach(operation: Operation) -> str:
    window = _window(operation)
    reach = max(
        (window.height - 1) * window.dilation_y + 1,
        (window.width - 1) * window.dilation_x + 1,
    )
    return "1x1" if reach == 1 else "up to 8x8" if reach <= 8 else "larger"


def _index_type(output: Output) -> str:
    return "int16" if output.table_16bit else "int8" if output.table_offset else "uint8"


def _function(operation: Operation, registers: RegisterFile) -> Iterable[str]:
    output = _kernel(operation).output
    if output.function is not Activation.NONE:
        yield "table" if output.function is Activation.TABLE0 else output.function.name
    elif output.clamp is None:
        yield "none, 32-bit store"
    else:
        ofm = _kernel(operation).ofm
        yield "none" if output.clamp == (ofm.minimum, ofm.maximum) else "clamp"


def _clip(operation: Operation, registers: RegisterFile) -> Iterable[str]:
    clip = ClipRange(registers.unsigned(Cmd0.ACTIVATION) >> 12 & 7)
    if clip is not ClipRange.OFM:
        yield f"{clip.name} on {_type_name(_kernel(operation).ofm)}"


def _table(operation: Operation, registers: RegisterFile) -> Iterable[str]:
    kernel = _kernel(operation)
    if kernel.output.table is not None:
        yield f"{_index_type(kernel.output)} to {_type_name(kernel.ofm)}"


def _second(operation: Operation, registers: RegisterFile) -> Iterable[str]:
    assert isinstance(operation, Elementwise)
    if operation.scalar is not None:
        yield "scalar"
    else:
        flags = registers.unsigned(Cmd0.IFM2_BROADCAST)
        yield _BROADCASTS[flags & (IFM2_BROADCAST_H | IFM2_BROADCAST_W | IFM2_BROADCAST_C)]


def _input_scales(operation: Operation, registers: RegisterFile) -> Iterable[str]:
    assert isinstance(operation, Elementwise)
    yield f"{operation.scale_mode.name}, {8 * operation.ifm.element_size} bit"


def _transfer(operation: Operation, registers: RegisterFile) -> Iterable[str]:
    assert isinstance(operation, Dma)
    yield "to the lookup tables" if operation.target_region is None else "memory to memory"


_BROADCASTS = {
    sum(bit for bit, _ in chosen): " and ".join(name for _, name in chosen) or "feature map"
    for chosen in (
        [pair for n, pair in enumerate(((1, "H"), (2, "W"), (4, "C"))) if which >> n & 1]
        for which in range(8)
    )
}


def _type_values() -> dict[str, Callable[[str], Writes]]:
    return {
        f"{ifm} to {ofm}": lambda kind, ifm=ifm, ofm=ofm: _types(ifm, ofm, kind)  # type: ignore[misc]
        for ifm in TYPES
        for ofm in TYPES
    }


def _clipped(clip: ClipRange, ofm: str, table: bool = False) -> Callable[[str], Writes]:
    low, high = {
        ClipRange.UINT8: (0, 255),
        ClipRange.INT8: (-128, 127),
        ClipRange.INT16: (-32768, 32767),
        ClipRange.OFM: (None, None),
    }[clip]
    function = Activation.TABLE0 if table else Activation.NONE

    def writes(kind: str) -> Writes:
        size, _ = TYPES[ofm]
        bounds = _types("int32" if kind in ON_32_BIT else "int8", ofm, kind, low=low, high=high)
        if size == 4 and low is not None and high is not None:
            bounds = (*bounds, (Cmd0.ACTIVATION_MIN, low), (Cmd0.ACTIVATION_MAX, high))
        return (*bounds, (Cmd0.ACTIVATION, clip << 12 | function))

    return writes


def _table_values() -> dict[str, Callable[[str], Writes]]:
    clips = {"int8": ClipRange.INT8, "uint8": ClipRange.UINT8, "int16": ClipRange.INT16}
    return {
        f"{index} to {ofm}": _clipped(ClipRange.OFM if index == ofm else clip, ofm, table=True)
        for index, clip in clips.items()
        for ofm in TYPES
    }


def _scaled(mode: int, type_: str) -> Callable[[str], Writes]:
    return lambda kind: (
        *_types(type_, type_, kind),
        (Cmd0.IFM_PRECISION, _precision("IFM", type_) | mode << 8),
    )


def _of_map(which: str, kinds: tuple[str, ...]) -> tuple[Aspect, ...]:
    """Layout, tiles and strides of a feature map."""
    at = {"IFM": 0, "IFM2": 1, "OFM": 2}[which]
    register = Cmd0[f"{which}_PRECISION"]
    axes = ("Y", "X", "YX", "C")

    def turned(axis: str) -> Callable[[str], Writes]:
        def writes(kind: str) -> Writes:
            made = _map(which, at, kind=kind, negative=axis)
            return (*made, *_changed(register, Format.NHCWB16 << 6)(kind)) if "C" in axis else made

        return writes

    def tiled(tiles: str) -> Callable[[str], Writes]:
        return lambda kind: _map(which, at, kind=kind, tiles=tiles)

    def read(what: Callable[[FeatureMap], str]) -> Callable[[Operation, RegisterFile], Iterable[str]]:
        return lambda operation, registers: [
            what(fm) for name, fm in _maps(operation).items() if name == which
        ]

    return (
        Aspect(
            f"{which} layout",
            kinds,
            {form.name: _changed(register, form << 6) for form in Format},
            read(lambda fm: (Format.NHCWB16 if fm.nhcwb16 else Format.NHWC).name),
        ),
        Aspect(
            f"{which} tiles",
            kinds,
            {tiles: tiled(tiles) for tiles in ("one", "rows", "columns", "rows and columns")},
            read(_tiles),
        ),
        Aspect(
            f"{which} descending strides",
            kinds,
            {"none": _nothing, **{axis: turned(axis) for axis in axes}},
            read(_descending),
        ),
    )


def _windowed(name: str, register: Cmd0, values: dict[str, int], shown: Callable[[Window], str]) -> Aspect:
    return Aspect(
        name,
        (*CONVOLUTIONS, *POOLS),
        {value: _set(register, number) for value, number in values.items()},
        lambda operation, registers: [shown(_window(operation))],
    )


PADDED: Writes = ((Cmd0.KERNEL_HEIGHT_M1, 2), (Cmd0.IFM_PAD_TOP, 1), (Cmd0.IFM_PAD_BOTTOM, 1))
SCALES: dict[str, Callable[[str], Writes]] = {
    "per channel": lambda kind: ((Cmd0.OFM_PRECISION, _precision("OFM", "int8")),),
    "OFM_SCALE": lambda kind: ((Cmd0.OFM_PRECISION, _precision("OFM", "int8") | 1 << 8),),
}


def _scale(registers: RegisterFile) -> str:
    return "OFM_SCALE" if registers.unsigned(Cmd0.OFM_PRECISION) >> 8 & 1 else "per channel"


def _counted(operation: Operation) -> bool:
    """Whether it is an average that divides by how many elements of the window are no padding."""
    return isinstance(operation, Pool) and operation.mode is PoolMode.AVERAGE and operation.window.padded


ASPECTS: tuple[Aspect, ...] = (
    Aspect(
        "types, IFM to OFM",
        KERNELS,
        _type_values(),
        lambda o, r: [f"{_type_name(_kernel(o).ifm)} to {_type_name(_kernel(o).ofm)}"],
    ),
    *_of_map("IFM", KERNELS),
    *_of_map("IFM2", BINARY),
    *_of_map("OFM", KERNELS),
    Aspect(
        "kernel",
        (*CONVOLUTIONS, *POOLS),
        {
            "1x1": _nothing,
            "up to 8x8": _set(Cmd0.KERNEL_HEIGHT_M1, 7),
            "larger": _set(Cmd0.KERNEL_HEIGHT_M1, 8),
        },
        lambda o, r: [_reach(o)],
    ),
    _windowed(
        "stride y",
        Cmd0.KERNEL_STRIDE,
        {"1": 0, "2": 2, "3": 1 << 9, "4": 1 << 9 | 2},
        lambda w: str(w.stride_y),
    ),
    _windowed(
        "stride x",
        Cmd0.KERNEL_STRIDE,
        {"1": 0, "2": 1, "3": 1 << 6, "4": 1 << 6 | 1},
        lambda w: str(w.stride_x),
    ),
    _windowed("dilation y", Cmd0.KERNEL_STRIDE, {"1": 0, "2": 1 << 4}, lambda w: str(w.dilation_y)),
    _windowed("dilation x", Cmd0.KERNEL_STRIDE, {"1": 0, "2": 1 << 3}, lambda w: str(w.dilation_x)),
    _windowed("kernel decomposition", Cmd0.KERNEL_STRIDE, {"8x8": 0, "4x4": 1 << 5}, lambda w: "8x8"),
    Aspect(
        "padding",
        (*CONVOLUTIONS, *POOLS),
        {
            "none": _nothing,
            "some": lambda kind: PADDED,
        },
        lambda o, r: ["some" if _window(o).padded else "none"],
    ),
    Aspect(
        "IFM upscale",
        KERNELS,
        {mode.name: _set(Cmd0.IFM_UPSCALE, mode) for mode in Upscale},
        lambda o, r: [_window(o).upscale.name if not isinstance(o, Elementwise) else Upscale.NONE.name],
    ),
    Aspect(
        "weight order",
        CONVOLUTIONS,
        {"depth-first": _nothing, "part-kernel-first": _set(Cmd0.KERNEL_STRIDE, 1 << 2)},
        lambda o, r: [
            "part-kernel-first" if isinstance(o, Convolution) and o.part_kernel_first else "depth-first"
        ],
    ),
    Aspect(
        "cores",
        CONVOLUTIONS,
        {str(n + 1): _set(Cmd0.PARALLEL_MODE, n) for n in range(2)},
        lambda o, r: [str(len(o.weight_streams)) if isinstance(o, Convolution) else "1"],
    ),
    Aspect(
        "accumulator",
        (*CONVOLUTIONS, *POOLS),
        {name: _set(Cmd0.ACC_FORMAT, code) for code, name in enumerate(("int32", "int40", "fp16"))},
        lambda o, r: [f"int{o.accumulator_bits}" if isinstance(o, Convolution | Pool) else ""],
    ),
    Aspect(
        "scale",
        (*CONVOLUTIONS, *POOLS),
        SCALES,
        lambda o, r: [] if _counted(o) else [_scale(r)],
    ),
    Aspect(
        "scale of padded averages",
        ("POOL AVERAGE",),
        {name: lambda kind, mode=mode: (*PADDED, *mode(kind)) for name, mode in SCALES.items()},  # type: ignore[misc]
        lambda o, r: [_scale(r)] if _counted(o) else [],
    ),
    Aspect(
        "rounding",
        KERNELS,
        {rounding.name: _changed(Cmd0.OFM_PRECISION, rounding << 14) for rounding in Rounding},
        lambda o, r: [_kernel(o).output.rounding.name],
    ),
    Aspect(
        "activation",
        KERNELS,
        {
            "none": _nothing,
            "none, 32-bit store": lambda kind: _types(
                "int32" if kind in ON_32_BIT else "int8", "int32", kind
            ),
            "clamp": lambda kind: _types(
                "int32" if kind in ON_32_BIT else "int8", "int8", kind, low=-5, high=100
            ),
            "table": _clipped(ClipRange.INT8, "int8", table=True),
            **{
                function.name: (
                    lambda kind, function=function: (  # type: ignore[misc]
                        *_types("int32" if kind in ON_32_BIT else "int16", "int16", kind),
                        (Cmd0.ACTIVATION, function),
                    )
                )
                for function in (Activation.TANH, Activation.SIGMOID)
            },
        },
        _function,
    ),
    Aspect(
        "forced clip range",
        KERNELS,
        {
            f"{clip.name} on {ofm}": _clipped(clip, ofm)
            for clip in ClipRange
            if clip is not ClipRange.OFM
            for ofm in TYPES
        },
        _clip,
    ),
    Aspect("table, index to OFM", KERNELS, _table_values(), _table),
    Aspect(
        "second operand, broadcast over",
        BINARY,
        {
            **{name: _set(Cmd0.IFM2_BROADCAST, flags) for flags, name in _BROADCASTS.items()},
            "scalar": _set(Cmd0.IFM2_BROADCAST, IFM2_CONSTANT),
        },
        _second,
    ),
    Aspect(
        "operand A",
        BINARY,
        {"IFM": _nothing, "IFM2": _set(Cmd0.IFM2_BROADCAST, IFM2_OPERAND_A)},
        lambda o, r: ["IFM2" if isinstance(o, Elementwise) and o.swapped else "IFM"],
    ),
    Aspect(
        "input scales",
        ("ELEMENTWISE ADD", "ELEMENTWISE SUB"),
        {
            f"{mode.name}, {8 * TYPES[type_][0]} bit": _scaled(mode, type_)
            for mode in ScaleMode
            for type_ in ("int8", "int16", "int32")
        },
        _input_scales,
    ),
    Aspect(
        "transfer",
        ("DMA",),
        {
            "memory to memory": _nothing,
            "to the lookup tables": _set(Cmd0.DMA0_DST_REGION, 3 | INTERNAL_REGION_BIT),
            "from internal memory": _set(Cmd0.DMA0_SRC_REGION, 3 | INTERNAL_REGION_BIT),
            "2D": _set(Cmd0.DMA0_DST_REGION, 1 | StrideMode.D2 << 9),
            "3D": _set(Cmd0.DMA0_DST_REGION, 1 | StrideMode.D3 << 9),
        },
        _transfer,
    ),
)
