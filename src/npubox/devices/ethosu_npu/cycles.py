# SPDX-License-Identifier: Apache-2.0
"""The cost model: device cycles of each operation, from its registers alone. See docs/cycles.md.

A model, not a measurement of silicon. An OFM is made block by block; in each block the MAC array, the
weight decoder and the output unit work at the same time, and memory is read and written beside them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from npubox.devices.ethosu_npu.commands import Command, RegisterFile
from npubox.devices.ethosu_npu.configuration import Configuration
from npubox.devices.ethosu_npu.operations import (
    Convolution,
    Dma,
    Elementwise,
    FeatureMap,
    Operation,
    Pool,
)
from npubox.devices.ethosu_npu.rates import (
    BRICK,
    CORES,
    DEPTHWISE_TAPS,
    EXTERNAL,
    KERNELS,
    MEMORIES,
    POOL_TAP_CYCLES,
    POOL_TAPS,
    SIXTEENTHS,
    SRAM,
    STEP_CYCLES,
    STEP_PRODUCTS,
    SUB_KERNEL,
    WEIGHTS_PER_CYCLE,
    Core,
    Memories,
)
from npubox.hw.ethosu.commands import Activation, Cmd0, ElementwiseMode, PoolMode, Upscale

Kernel = Convolution | Pool | Elementwise


@dataclass(frozen=True)
class Cost:
    """`total`: cycles by which the job becomes longer. The rest is what the parts of the NPU do for the
    operation, maybe while others run: cycles in which they are active, and beats of the AXI ports."""

    total: int
    mac_active: int = 0
    output_active: int = 0
    weight_active: int = 0
    sram_read: int = 0
    sram_written: int = 0
    external_read: int = 0
    external_written: int = 0


@dataclass(frozen=True)
class Block:
    """The piece of an OFM that is made at once, by `cores` that share its depth."""

    height: int
    width: int
    depth: int
    cores: int = 1

    @classmethod
    def of(cls, registers: RegisterFile, configuration: Configuration) -> Block:
        sizes = (Cmd0.OFM_BLK_HEIGHT_M1, Cmd0.OFM_BLK_WIDTH_M1, Cmd0.OFM_BLK_DEPTH_M1)
        height, width, depth = (registers.optional(size) + 1 for size in sizes)
        return cls(height, width, depth, min(configuration.cores, registers.optional(Cmd0.PARALLEL_MODE) + 1))

    def pieces(self, ofm: FeatureMap) -> Iterator[tuple[int, int, int, int]]:
        """Height, width and depth of the blocks of `ofm`, and how many there are of each size."""
        axes = ((ofm.height, self.height), (ofm.width, self.width), (ofm.depth, self.depth))
        for (h, rows), (w, columns), (d, slices) in product(*(_cut(*axis) for axis in axes)):
            yield h, w, d, rows * columns * slices


class Timeline:
    """When the operations of one stream end: kernels one after the other, DMA transfers beside them, both
    as far as the waits of the stream let them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._memories = MEMORIES[configuration.product]
        self._parser = 0
        self._kernels = deque([0], maxlen=KERNELS + 1)
        self._transfers = deque([0], maxlen=self._memories.transfers + 1)

    def wait(self, command: Command) -> None:
        """OP_KERNEL_WAIT and OP_DMA_WAIT hold the parser until so many are outstanding; others nothing."""
        match command.operation:
            case Cmd0.OP_KERNEL_WAIT:
                self._hold(self._kernels, command.parameter)
            case Cmd0.OP_DMA_WAIT:
                self._hold(self._transfers, command.parameter)

    def cost(self, operation: Operation, registers: RegisterFile) -> Cost:
        """The cost of the next operation."""
        return self.place(operation, self.alone(operation, registers))

    def alone(self, operation: Operation, registers: RegisterFile) -> Cost:
        """What an operation costs if nothing else runs; OP_STOP and OP_IRQ cost one cycle."""
        match operation:
            case Dma():
                return transfer_cost(operation, self._memories)
            case Convolution() | Pool() | Elementwise():
                block = Block.of(registers, self._configuration)
                return kernel_cost(operation, block, self._configuration)
            case _:
                return Cost(1)

    def place(self, operation: Operation, alone: Cost) -> Cost:
        """The cost of the next operation, which costs `alone`. All totals together are when the last
        operation ends."""
        before = self._end
        match operation:
            case Dma():
                self._start(self._transfers, alone.total)
            case Convolution() | Pool() | Elementwise():
                self._start(self._kernels, alone.total)
            case _:
                return alone
        total = self._end - before
        return alone if total == alone.total else replace(alone, total=total)

    @property
    def _end(self) -> int:
        return max(self._kernels[-1], self._transfers[-1])

    def _hold(self, ends: deque[int], outstanding: int) -> None:
        if outstanding < len(ends):
            self._parser = max(self._parser, ends[-1 - outstanding])

    def _start(self, ends: deque[int], cycles: int) -> None:
        assert ends.maxlen is not None
        self._hold(ends, ends.maxlen - 2)
        ends.append(max(self._parser, ends[-1]) + cycles)


def transfer_cost(dma: Dma, memories: Memories) -> Cost:
    """What a DMA costs alone: the slower of both memories."""
    source, target = memories.port(dma.source_region), memories.port(dma.target_region)
    traffic = _Traffic(memories)
    traffic.read(dma.source_region, dma.length)
    if dma.target_region is not None:
        traffic.write(dma.target_region, dma.length)
    rate = min(source.bytes_per_cycle, target.bytes_per_cycle)
    return Cost(source.read_latency + _up(dma.length, rate), **traffic.beats())


def kernel_cost(operation: Kernel, block: Block, configuration: Configuration) -> Cost:
    """What an operation on feature maps costs alone."""
    core = CORES[configuration.macs // configuration.cores]
    memories = MEMORIES[configuration.product]
    if isinstance(operation, Elementwise):
        return _elementwise(operation, block, core, memories)
    return _windowed(operation, block, core, memories)


def _elementwise(operation: Elementwise, block: Block, core: Core, memories: Memories) -> Cost:
    rate = _output_rate(operation, core)
    output = sum(n * _output(h * w * d, rate, block) for h, w, d, n in block.pieces(operation.ofm))
    traffic = _Traffic(memories)
    for fm in (operation.ifm, operation.ifm2):
        if fm is not None:
            traffic.read_map(fm, fm.height, fm.width, fm.depth)
    traffic.write_map(operation.ofm, operation.ofm.height, operation.ofm.width, operation.ofm.depth, block)
    return Cost(max(output, traffic.cycles()), 0, output, 0, **traffic.beats())


def _windowed(operation: Convolution | Pool, block: Block, core: Core, memories: Memories) -> Cost:
    ifm, ofm = operation.ifm, operation.ofm
    rate = _output_rate(operation, core)
    own_channels = isinstance(operation, Pool) or operation.depthwise
    traffic = _Traffic(memories)
    busy = overlap = mac = output = weight = 0
    for h, w, d, n in block.pieces(ofm):
        pixels = _up(h, core.microblock[0]) * _up(w, core.microblock[1])
        steps, array, decoder = _steps(operation, _up(d, block.cores), core)
        array *= pixels
        multiply, finish = steps * max(array, decoder), _output(h * w * d, rate, block)
        busy += n * max(multiply, finish)
        overlap = max(overlap, min(multiply, finish))
        mac, output, weight = mac + n * steps * array, output + n * finish, weight + n * steps * decoder
        depth = min(d, ifm.depth) if own_channels and ofm.depth > 1 else ifm.depth
        traffic.read_map(ifm, *_receptive(operation, h, w), depth, n)
    traffic.write_map(ofm, ofm.height, ofm.width, ofm.depth, block)
    if isinstance(operation, Convolution):
        times = _up(ofm.height, block.height) * _up(ofm.width, block.width)
        traffic.read(operation.weight_region, times * sum(size for _, size in operation.weight_streams))
        traffic.read(operation.scale_region, sum(size for _, size in operation.scale_streams))
    total = max(busy + overlap, traffic.cycles()) + _ends(operation, block, memories)
    return Cost(total, mac, output, weight, **traffic.beats())


def _ends(operation: Convolution | Pool, block: Block, memories: Memories) -> int:
    """What nothing overlaps: the first block's input and the last block's output."""
    ifm, ofm = operation.ifm, operation.ofm
    height, width = min(block.height, ofm.height), min(block.width, ofm.width)
    first, last = _Traffic(memories), _Traffic(memories)
    channels = min(ifm.depth, STEP_PRODUCTS // ifm.element_size)
    first.read_map(ifm, *_receptive(operation, height, width), channels)
    last.write_map(ofm, height, width, min(block.depth, ofm.depth), block)
    latency = memories.port(ifm.region).read_latency + memories.port(ofm.region).write_latency
    return latency + first.cycles() + last.cycles()


def _receptive(operation: Convolution | Pool, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the stored IFM that so many of the OFM are made of."""
    ifm, window = operation.ifm, operation.window
    rows = (height - 1) * window.stride_y + (window.height - 1) * window.dilation_y + 1
    columns = (width - 1) * window.stride_x + (window.width - 1) * window.dilation_x + 1
    if window.upscale is not Upscale.NONE:
        rows, columns = rows // 2 + 1, columns // 2 + 1
    return min(rows, ifm.height), min(columns, ifm.width)


def _steps(operation: Convolution | Pool, depth: int, core: Core) -> tuple[int, int, int]:
    """Steps of a block with `depth` channels a core; cycles of a step in the MAC array for each microblock
    of pixels, and in the weight decoder for all."""
    window, size = operation.window, operation.ifm.element_size
    parts = [
        (h * w, m * n)
        for h, m in _cut(window.height, SUB_KERNEL // window.dilation_y)
        for w, n in _cut(window.width, SUB_KERNEL // window.dilation_x)
    ]
    outputs = _up(depth, core.microblock[2])
    if isinstance(operation, Pool):
        if operation.mode is PoolMode.REDUCE_SUM:
            return _up(operation.ifm.depth * size, STEP_PRODUCTS), STEP_CYCLES, 0
        taps = sum(max(POOL_TAPS, taps) * n for taps, n in parts)
        return outputs, POOL_TAP_CYCLES * taps * size, 0
    decoder = STEP_PRODUCTS * core.microblock[2] // WEIGHTS_PER_CYCLE
    if operation.depthwise:
        return outputs * sum(_up(taps, DEPTHWISE_TAPS) * n for taps, n in parts), STEP_CYCLES * size, decoder
    channels = 8 if operation.part_kernel_first else STEP_PRODUCTS // size
    together = STEP_PRODUCTS // size // channels
    steps = _up(operation.ifm.depth, channels) * sum(_up(taps, together) * n for taps, n in parts)
    return outputs * steps, STEP_CYCLES, decoder


def _output_rate(operation: Kernel, core: Core) -> int:
    """Sixteenths of a cycle that one core's output unit takes for an element."""
    match operation:
        case Elementwise(ifm=FeatureMap(element_size=4)):
            unary = operation.ifm2 is None and operation.scalar is None
            rate = core.unary_32 if unary else core.binary_32
        case Elementwise(mode=ElementwiseMode.MUL):
            rate = core.product_32 if operation.ofm.element_size == 4 else core.product
        case Elementwise(mode=ElementwiseMode.ADD | ElementwiseMode.SUB):
            rate = core.addition
        case Convolution(accumulator_bits=40) | Pool(accumulator_bits=40):
            rate = core.product
        case Pool(mode=PoolMode.MAX):
            rate = core.maximum
        case _:
            rate = core.plain
    return rate if operation.output.function is Activation.NONE else max(rate, core.table)


def _output(elements: int, rate: int, block: Block) -> int:
    return _up(elements * rate, SIXTEENTHS * block.cores)


class _Traffic:
    """Bytes through both ports. A run of bytes that is shorter than a burst takes as long as the burst."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories
        self._read = [0, 0]
        self._written = [0, 0]
        self._moved = [0, 0]

    def read(self, region: int, size: int) -> None:
        self._count(self._read, region, size, size)

    def write(self, region: int, size: int) -> None:
        self._count(self._written, region, size, size)

    def read_map(self, fm: FeatureMap, height: int, width: int, depth: int, times: int = 1) -> None:
        """`times` boxes of this size of a feature map."""
        run = width * BRICK if fm.nhcwb16 else depth * (width if depth == fm.depth else 1)
        self._box(self._read, fm, height * width * depth * times, run)

    def write_map(self, fm: FeatureMap, height: int, width: int, depth: int, block: Block) -> None:
        """What a block holds is written a brick a core at a time."""
        run = min(depth, BRICK * block.cores)
        if fm.nhcwb16 or run == fm.depth:
            run *= width
        self._box(self._written, fm, height * width * depth, run)

    def _box(self, way: list[int], fm: FeatureMap, elements: int, run: int) -> None:
        burst = self._memories.port(fm.region).burst
        size = elements * fm.element_size
        self._count(way, fm.region, size, _up(size * burst, min(burst, run * fm.element_size)))

    def _count(self, way: list[int], region: int, size: int, moved: int) -> None:
        place = self._memories.place(region)
        way[place] += size
        self._moved[place] += moved

    def cycles(self) -> int:
        """The ports work at the same time; each reads and writes one after the other."""
        return max(_up(self._moved[n], port.bytes_per_cycle) for n, port in enumerate(self._memories.ports))

    def beats(self) -> dict[str, int]:
        """The fields of Cost that count beats."""
        names = (("sram_read", "sram_written"), ("external_read", "external_written"))
        return {
            name: _up(way[place], self._memories.beat)
            for place in (SRAM, EXTERNAL)
            for name, way in zip(names[place], (self._read, self._written), strict=True)
        }


def _up(value: int, step: int) -> int:
    """How many steps cover `value`."""
    return -(-value // step)


def _cut(size: int, step: int) -> list[tuple[int, int]]:
    """`size` in pieces of `step` and a rest: each length and how often it occurs."""
    whole, rest = divmod(size, step)
    return [(length, count) for length, count in ((step, whole), (rest, 1)) if length and count]
