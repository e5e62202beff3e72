# SPDX-License-Identifier: Apache-2.0
"""From the registers that a stream has written to the operation that its next command starts.

Source of every rule: the project's facts, ethosu-npu.md §2.2, §3, §6 and §7. What those do not cover
is refused here, by name.
"""

from __future__ import annotations

from npubox.devices.ethosu_npu.commands import Command, RegisterFile
from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.operations import (
    Convolution,
    Dma,
    Elementwise,
    FeatureMap,
    Irq,
    Operation,
    Output,
    Pool,
    Shift,
    Stop,
    Window,
    tiles_used,
)
from npubox.hw.ethosu import commands as hw
from npubox.hw.ethosu.commands import (
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

_FM_REGISTERS = {
    "IFM": (
        Cmd0.IFM_PRECISION,
        Cmd0.IFM_REGION,
        Cmd0.IFM_ZERO_POINT,
        (Cmd0.IFM_WIDTH0_M1, Cmd0.IFM_HEIGHT0_M1, Cmd0.IFM_HEIGHT1_M1),
        (Cmd1.IFM_BASE0, Cmd1.IFM_BASE1, Cmd1.IFM_BASE2, Cmd1.IFM_BASE3),
        (Cmd1.IFM_STRIDE_Y, Cmd1.IFM_STRIDE_X, Cmd1.IFM_STRIDE_C),
    ),
    "IFM2": (
        Cmd0.IFM2_PRECISION,
        Cmd0.IFM2_REGION,
        Cmd0.IFM2_ZERO_POINT,
        (Cmd0.IFM2_WIDTH0_M1, Cmd0.IFM2_HEIGHT0_M1, Cmd0.IFM2_HEIGHT1_M1),
        (Cmd1.IFM2_BASE0, Cmd1.IFM2_BASE1, Cmd1.IFM2_BASE2, Cmd1.IFM2_BASE3),
        (Cmd1.IFM2_STRIDE_Y, Cmd1.IFM2_STRIDE_X, Cmd1.IFM2_STRIDE_C),
    ),
    "OFM": (
        Cmd0.OFM_PRECISION,
        Cmd0.OFM_REGION,
        Cmd0.OFM_ZERO_POINT,
        (Cmd0.OFM_WIDTH0_M1, Cmd0.OFM_HEIGHT0_M1, Cmd0.OFM_HEIGHT1_M1),
        (Cmd1.OFM_BASE0, Cmd1.OFM_BASE1, Cmd1.OFM_BASE2, Cmd1.OFM_BASE3),
        (Cmd1.OFM_STRIDE_Y, Cmd1.OFM_STRIDE_X, Cmd1.OFM_STRIDE_C),
    ),
}


# Bits with a meaning, of the registers that are made of fields.
_IFM_PRECISION_FIELDS = 0xC3CD
_OFM_PRECISION_FIELDS = 0xC1C7
_KERNEL_STRIDE_FIELDS = 0x027F
_ACTIVATION_FIELDS = 0x701F
_BROADCAST_FIELDS = 0x00C7
_DMA_REGION_FIELDS = 0x0707


def _feature_map(regs: RegisterFile, which: str, height: int, width: int, depth: int) -> FeatureMap:
    precision_reg, region_reg, zero_reg, sizes, bases, strides = _FM_REGISTERS[which]
    precision = regs.unsigned(
        precision_reg, _OFM_PRECISION_FIELDS if which == "OFM" else _IFM_PRECISION_FIELDS
    )
    size_code = precision >> 1 & 3 if which == "OFM" else precision >> 2 & 3
    if size_code == 3:
        raise Refused(f"{precision_reg.name} asks for 64-bit elements, which the U55 and U65 do not have")
    layout = precision >> 6 & 3
    if layout not in (Format.NHWC, Format.NHCWB16):
        raise Refused(f"{precision_reg.name} asks for format {layout}; NHWC (0) and NHCWB16 (1) exist")
    signed = bool(precision & 1)
    if size_code and not signed:
        raise Refused(
            f"{precision_reg.name} asks for unsigned {8 << size_code}-bit elements, which are unverified"
        )
    width0, height0, height1 = (regs.unsigned(register) + 1 for register in sizes)
    base0 = regs.address(bases[0])
    nhcwb16 = layout == Format.NHCWB16
    needed = tiles_used(height, width, width0, height0, height1)
    tile_bases = [
        regs.address(register) if used else regs.address_or(register, base0)
        for register, used in zip(bases, needed, strict=True)
    ]
    return FeatureMap(
        region=regs.unsigned(region_reg, 7),
        bases=(tile_bases[0], tile_bases[1], tile_bases[2], tile_bases[3]),
        stride_y=regs.stride(strides[0]),
        stride_x=regs.stride(strides[1]) if not nhcwb16 else 0,
        stride_c=regs.stride(strides[2]) if nhcwb16 else 0,
        width0=width0,
        height0=height0,
        height1=height1,
        nhcwb16=nhcwb16,
        element_size=1 << size_code,
        signed=signed,
        zero_point=regs.signed(zero_reg, signed),
        height=height,
        width=width,
        depth=depth,
    )


def shift_from(regs: RegisterFile, operation: Operation) -> Shift | None:
    """Where the operation that the registers describe now lies, next to `operation`, of which all registers
    but `FM_BASES` held the same. None if that has to be found out anew. Raises Refused."""
    if isinstance(operation, Dma | Stop | Irq):
        return Shift()
    ifm = _shift_of(regs, "IFM", operation.ifm)
    ofm = _shift_of(regs, "OFM", operation.ofm)
    ifm2: int | None = 0
    if isinstance(operation, Elementwise) and operation.ifm2 is not None:
        ifm2 = _shift_of(regs, "IFM2", operation.ifm2)
    return None if ifm is None or ifm2 is None or ofm is None else Shift(ifm, ifm2, ofm)


def _shift_of(regs: RegisterFile, which: str, fm: FeatureMap) -> int | None:
    """None where tiles lie otherwise, and where negative strides may now leave the address space."""
    bases = _FM_REGISTERS[which][4]
    shift = regs.address(bases[0]) - fm.bases[0]
    if shift < 0 and min(fm.stride_y, fm.stride_x, fm.stride_c) < 0:
        return None
    if fm.width > fm.width0 or fm.height > fm.height0:
        for register, base, used in zip(bases, fm.bases, fm.tiles_used, strict=True):
            if used and regs.address(register) - base != shift:
                return None
    return shift


def _ofm(regs: RegisterFile) -> FeatureMap:
    return _feature_map(
        regs,
        "OFM",
        regs.unsigned(Cmd0.OFM_HEIGHT_M1) + 1,
        regs.unsigned(Cmd0.OFM_WIDTH_M1) + 1,
        regs.unsigned(Cmd0.OFM_DEPTH_M1) + 1,
    )


def _window(regs: RegisterFile) -> Window:
    stride = regs.unsigned(Cmd0.KERNEL_STRIDE, _KERNEL_STRIDE_FIELDS)
    if stride & 1 << 5:
        raise Refused("KERNEL_STRIDE asks for 4x4 kernel decomposition, whose weight order is unverified")
    dilation_x, dilation_y = (stride >> 3 & 1) + 1, (stride >> 4 & 1) + 1
    dilated_height = regs.unsigned(Cmd0.KERNEL_HEIGHT_M1)
    dilated_width = regs.unsigned(Cmd0.KERNEL_WIDTH_M1)
    if dilated_height % dilation_y or dilated_width % dilation_x:
        raise Refused("KERNEL_HEIGHT_M1 or KERNEL_WIDTH_M1 is no multiple of the dilation")
    upscale = regs.unsigned(Cmd0.IFM_UPSCALE)
    if upscale not in (Upscale.NONE, Upscale.NEAREST, Upscale.ZEROS):
        raise Refused(f"IFM_UPSCALE {upscale} does not exist")
    return Window(
        height=dilated_height // dilation_y + 1,
        width=dilated_width // dilation_x + 1,
        stride_y=(stride >> 8 & 2 | stride >> 1 & 1) + 1,
        stride_x=(stride >> 5 & 2 | stride & 1) + 1,
        dilation_y=dilation_y,
        dilation_x=dilation_x,
        pad_top=regs.unsigned(Cmd0.IFM_PAD_TOP, 0x7F),
        pad_left=regs.unsigned(Cmd0.IFM_PAD_LEFT, 0x7F),
        pad_bottom=regs.unsigned(Cmd0.IFM_PAD_BOTTOM, 0xFF),
        pad_right=regs.unsigned(Cmd0.IFM_PAD_RIGHT, 0xFF),
        upscale=Upscale(upscale),
    )


def _windowed_ifm(regs: RegisterFile, window: Window, ofm: FeatureMap) -> FeatureMap:
    """The IFM as stored: its size is not in the stream but follows from the OFM and the window."""
    pads_y, pads_x = window.pad_top + window.pad_bottom, window.pad_left + window.pad_right
    reach_y = (window.height - 1) * window.dilation_y + 1
    reach_x = (window.width - 1) * window.dilation_x + 1
    height = (ofm.height - 1) * window.stride_y + reach_y - pads_y
    width = (ofm.width - 1) * window.stride_x + reach_x - pads_x
    if height < 1 or width < 1:
        raise Refused(f"its padding leaves an IFM of {height} x {width} pixels")
    if window.upscale is not Upscale.NONE:
        height, width = (height + 1) // 2, (width + 1) // 2
    return _feature_map(regs, "IFM", height, width, regs.unsigned(Cmd0.IFM_DEPTH_M1) + 1)


_ACCUMULATORS = {0: 32, 1: 40}


def _accumulator_bits(regs: RegisterFile) -> int:
    code = regs.unsigned(Cmd0.ACC_FORMAT)
    if code not in _ACCUMULATORS:
        raise Refused(f"ACC_FORMAT {code} is not modelled (0, int32, and 1, int40, are)")
    return _ACCUMULATORS[code]


_CLIP_TYPES = {ClipRange.UINT8: (0, 255), ClipRange.INT8: (-128, 127), ClipRange.INT16: (-32768, 32767)}


def _output(regs: RegisterFile, ofm: FeatureMap, scaled: bool) -> Output:
    rounding = regs.unsigned(Cmd0.OFM_PRECISION) >> 14
    if rounding == Rounding.TRUNCATE:
        raise Refused("OFM_PRECISION asks for truncating rounding, which is unverified")
    if rounding > Rounding.NATURAL:
        raise Refused("OFM_PRECISION asks for rounding mode 3, which does not exist")
    activation = regs.unsigned(Cmd0.ACTIVATION, _ACTIVATION_FIELDS)
    function = activation & 0x1F
    clip = activation >> 12 & 7
    if clip != ClipRange.OFM and clip not in _CLIP_TYPES:
        raise Refused(f"ACTIVATION asks for clip range {clip}, which does not exist")
    table = function - Activation.TABLE0 if function >= Activation.TABLE0 else None
    if table is not None and table > 7:
        raise Refused(f"ACTIVATION asks for table {table}; there are 8")
    if table is None and function not in (Activation.NONE, Activation.TANH, Activation.SIGMOID):
        raise Refused(f"ACTIVATION asks for function {function}, which does not exist")
    wide = ofm.element_size == 4 and clip == ClipRange.OFM
    low, high = (ofm.minimum, ofm.maximum) if clip == ClipRange.OFM else _CLIP_TYPES[ClipRange(clip)]
    clamp = None
    if not wide:
        signed = low < 0
        clamp = (
            max(low, regs.signed(Cmd0.ACTIVATION_MIN, signed)),
            min(high, regs.signed(Cmd0.ACTIVATION_MAX, signed)),
        )
        if clamp[0] > clamp[1]:
            raise Refused(f"ACTIVATION_MIN {clamp[0]} lies above ACTIVATION_MAX {clamp[1]}")
    table_16bit = (low, high) == (-32768, 32767)
    if table is not None:
        if wide:
            raise Refused("a table on a 32-bit OFM without a forced clip range is not modelled")
        if (low, high) == (0, 65535) or (table_16bit and ofm.element_size != 2):
            raise Refused("a table indexed by 16-bit values that stores no int16 is not modelled")
    if function in (Activation.TANH, Activation.SIGMOID) and (
        ofm.element_size != 2 or not ofm.signed or clip not in (ClipRange.OFM, ClipRange.INT16)
    ):
        raise Refused("tanh and sigmoid are modelled for int16 OFMs only")
    return Output(
        rounding=Rounding(rounding),
        scale=(regs.payload(Cmd1.OFM_SCALE), regs.shift(Cmd1.OFM_SCALE)) if scaled else None,
        zero_point=0 if wide else ofm.zero_point,
        clamp=clamp,
        function=Activation.TABLE0 if table is not None else Activation(function),
        table=table,
        table_16bit=table_16bit,
        table_offset=128 if low < 0 else 0,
    )


def _global_scale(regs: RegisterFile) -> bool:
    return bool(regs.unsigned(Cmd0.OFM_PRECISION) >> 8 & 1)


def _convolution(regs: RegisterFile, command: Command, cores: int, depthwise: bool) -> Convolution:
    if command.parameter:
        raise Refused(f"its parameter is {command.parameter}; weights from IFM2 are the U85's")
    if _global_scale(regs):
        raise Refused("a convolution with the global OFM_SCALE is not modelled")
    ofm = _ofm(regs)
    window = _window(regs)
    ifm = _windowed_ifm(regs, window, ofm)
    if ifm.element_size == 4:
        raise Refused("a convolution of 32-bit elements is not modelled")
    if depthwise and ifm.depth != ofm.depth:
        raise Refused(f"IFM depth {ifm.depth} and OFM depth {ofm.depth} differ")
    used_cores = _cores_used(regs, cores)
    weights = [(regs.address(Cmd1.WEIGHT_BASE), regs.address(Cmd1.WEIGHT_LENGTH))]
    scales = [(regs.address(Cmd1.SCALE_BASE), regs.address(Cmd1.SCALE_LENGTH))]
    if used_cores == 2:
        weights.append(_second_stream(regs, Cmd1.WEIGHT1_BASE, Cmd1.WEIGHT1_LENGTH, ofm.depth))
        scales.append(_second_stream(regs, Cmd1.SCALE1_BASE, Cmd1.SCALE1_LENGTH, ofm.depth))
    return Convolution(
        depthwise=depthwise,
        ifm=ifm,
        ofm=ofm,
        window=window,
        output=_output(regs, ofm, scaled=False),
        weight_region=regs.unsigned(Cmd0.WEIGHT_REGION, 7),
        scale_region=regs.unsigned(Cmd0.SCALE_REGION, 7),
        weight_streams=tuple(weights),
        scale_streams=tuple(scales),
        block_depth=regs.unsigned(Cmd0.OFM_BLK_DEPTH_M1) + 1,
        part_kernel_first=bool(regs.unsigned(Cmd0.KERNEL_STRIDE) >> 2 & 1),
        accumulator_bits=_accumulator_bits(regs),
    )


def _cores_used(regs: RegisterFile, cores: int) -> int:
    """How many weight streams an operation has: PARALLEL_MODE 1 splits the OFM depth over two cores."""
    mode = regs.optional(Cmd0.PARALLEL_MODE)
    if mode >= cores:
        raise Refused(f"PARALLEL_MODE {mode} on an NPU of {cores} cores")
    return mode + 1


def _second_stream(regs: RegisterFile, base: Cmd1, length: Cmd1, ofm_depth: int) -> tuple[int, int]:
    if ofm_depth < 2:
        return 0, 0
    return regs.address(base), regs.address(length)


def _pool(regs: RegisterFile, command: Command) -> Pool:
    try:
        mode = PoolMode(command.parameter)
    except ValueError:
        raise Refused(f"pool mode {command.parameter} does not exist on the U55 and U65") from None
    ofm = _ofm(regs)
    window = _window(regs)
    ifm = _windowed_ifm(regs, window, ofm)
    scaled = _global_scale(regs)
    if window.dilation_y != 1 or window.dilation_x != 1:
        raise Refused("a dilated pool is not modelled")
    if mode is PoolMode.REDUCE_SUM:
        if ofm.depth != 1 or not window.plain_1x1:
            raise Refused("REDUCE_SUM is modelled for 1x1 windows without padding and OFM depth 1")
    elif ifm.depth != ofm.depth:
        raise Refused(f"IFM depth {ifm.depth} and OFM depth {ofm.depth} differ")
    if mode is PoolMode.AVERAGE and window.padded:
        scaled = False
    elif mode is not PoolMode.MAX and not scaled:
        raise Refused("a sum with per-channel scales is not modelled; OFM_PRECISION bit 8 must be set")
    if mode is PoolMode.MAX and window.upscale is Upscale.ZEROS:
        raise Refused("a max pool over a zero-inserted IFM is not modelled")
    return Pool(mode, ifm, ofm, window, _output(regs, ofm, scaled), _accumulator_bits(regs))


_SCALED_MODES = frozenset(
    {
        ElementwiseMode.MUL,
        ElementwiseMode.ADD,
        ElementwiseMode.SUB,
        ElementwiseMode.ABS,
        ElementwiseMode.LRELU,
    }
)


def _elementwise(regs: RegisterFile, command: Command) -> Elementwise:
    try:
        mode = ElementwiseMode(command.parameter)
    except ValueError:
        raise Refused(f"element-wise mode {command.parameter} does not exist on the U55 and U65") from None
    ofm = _ofm(regs)
    ifm = _feature_map(regs, "IFM", ofm.height, ofm.width, ofm.depth)
    if regs.optional(Cmd0.IFM_UPSCALE):
        raise Refused("an element-wise operation on an upscaled IFM is not modelled")
    ifm2, scalar, swapped = None, None, False
    if mode not in hw.UNARY_MODES:
        broadcast = regs.unsigned(Cmd0.IFM2_BROADCAST, _BROADCAST_FIELDS)
        swapped = bool(broadcast & hw.IFM2_OPERAND_A)
        if broadcast & hw.IFM2_CONSTANT:
            precision = regs.unsigned(Cmd0.IFM2_PRECISION, _IFM_PRECISION_FIELDS)
            signed = bool(precision & 1)
            if (1 << (precision >> 2 & 3), signed) != (ifm.element_size, ifm.signed):
                raise Refused("operands of different precision are not modelled")
            scalar = regs.signed(Cmd0.IFM2_SCALAR, signed) - regs.signed(Cmd0.IFM2_ZERO_POINT, signed)
        else:
            ifm2 = _feature_map(
                regs,
                "IFM2",
                1 if broadcast & hw.IFM2_BROADCAST_H else ofm.height,
                1 if broadcast & hw.IFM2_BROADCAST_W else ofm.width,
                1 if broadcast & hw.IFM2_BROADCAST_C else ofm.depth,
            )
            if (ifm2.element_size, ifm2.signed) != (ifm.element_size, ifm.signed):
                raise Refused("operands of different precision are not modelled")
    if mode in (ElementwiseMode.CLZ, ElementwiseMode.SHR, ElementwiseMode.SHL) and ifm.element_size != 4:
        raise Refused(f"{mode.name} of elements that are not 32-bit is not modelled")
    scale_mode, opa, opb = ScaleMode.OPA_OPB_16, None, None
    if mode in (ElementwiseMode.ADD, ElementwiseMode.SUB):
        precision = regs.unsigned(Cmd0.IFM_PRECISION)
        if precision >> 8 & 3 == 3:
            raise Refused("IFM_PRECISION asks for scale mode 3, which does not exist")
        scale_mode = ScaleMode(precision >> 8 & 3)
        opa = (regs.payload(Cmd1.OPA_SCALE), regs.shift(Cmd1.OPA_SCALE))
        if scale_mode is ScaleMode.OPA_OPB_16:
            opb = regs.address(Cmd1.OPB_SCALE)
            if opb > 0xFFFF:
                raise Refused(f"OPB_SCALE is {opb:#x}, which has more than 16 bits")
            if ifm.element_size == 4 and (opa[0] & 0xFFFF, opb) != (1, 1):
                raise Refused("32-bit operands with input scales other than 1 are not modelled")
        elif precision >> 14:
            raise Refused(f"input rounding mode {precision >> 14} is unverified")
        elif ifm.element_size == 4:
            raise Refused(f"{scale_mode.name} with 32-bit operands is not modelled")
    scaled = mode in _SCALED_MODES
    return Elementwise(
        mode=mode,
        ifm=ifm,
        ifm2=ifm2,
        scalar=scalar,
        swapped=swapped,
        ofm=ofm,
        output=_output(regs, ofm, scaled),
        scale_mode=scale_mode,
        opa_scale=opa,
        opb_scale=opb,
    )


def _dma(regs: RegisterFile) -> Dma:
    source_region = regs.unsigned(Cmd0.DMA0_SRC_REGION, _DMA_REGION_FIELDS)
    target_region = regs.unsigned(Cmd0.DMA0_DST_REGION, _DMA_REGION_FIELDS)
    mode = target_region >> 9 & 3
    if mode != StrideMode.D1:
        raise Refused(f"DMA stride mode {mode} is unverified on the U65 and absent on the U55")
    if source_region & hw.INTERNAL_REGION_BIT:
        raise Refused("a DMA that reads the internal memory is not modelled")
    return Dma(
        source_region=source_region & 7,
        source=regs.address(Cmd1.DMA0_SRC),
        target_region=None if target_region & hw.INTERNAL_REGION_BIT else target_region & 7,
        target=regs.address(Cmd1.DMA0_DST),
        length=regs.address(Cmd1.DMA0_LEN),
    )


def build_operation(regs: RegisterFile, command: Command, cores: int) -> Operation | None:
    """The operation that `command` starts, or None where it has no effect on results. Raises Refused."""
    match command.operation:
        case Cmd0.OP_STOP:
            return Stop(command.parameter)
        case Cmd0.OP_IRQ:
            return Irq(command.parameter)
        case Cmd0.OP_CONV:
            return _convolution(regs, command, cores, depthwise=False)
        case Cmd0.OP_DEPTHWISE:
            return _convolution(regs, command, cores, depthwise=True)
        case Cmd0.OP_POOL:
            return _pool(regs, command)
        case Cmd0.OP_ELEMENTWISE:
            return _elementwise(regs, command)
        case Cmd0.OP_DMA_START:
            return _dma(regs)
        case Cmd0.OP_DMA_WAIT | Cmd0.OP_KERNEL_WAIT | Cmd0.OP_PMU_MASK:
            return None
        case _:
            raise Refused("the U55 and U65 have no such operation")
