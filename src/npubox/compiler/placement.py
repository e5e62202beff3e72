# SPDX-License-Identifier: Apache-2.0
"""Which of a network's operators the compiler put on the NPU, and whether a device takes its stream."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from npubox.errors import ModelError
from npubox.formats.network import CommandStream, Network, Operator
from npubox.formats.payload import CONFIGURATIONS, config_name

PRODUCT = 0xF << 28
MACS = 0xF
STREAM_VERSION = 0xF << 4
SHRAM = 0xFF << 8  # U55 and U65
AXI_PORTS = 0x7 << 8  # U85
U85 = 2
ARCH_MAJOR = 0xF << 28
ARCH_MINOR = 0xFF << 20


@dataclass(frozen=True)
class Placement:
    """Operator names of the source network in its order, one entry an operator."""

    npu: tuple[str, ...]
    cpu: tuple[str, ...]


def operators_placed(source: Network, compiled: Network) -> Placement:
    """Where each operator of `source` runs in `compiled`.

    Vela keeps the name of most tensors that an operator left to the CPU writes. One that has lost it is
    taken for the first operator of its kind in `source` that nothing else stands for; one that is of no
    kind in `source` counts as a CPU operator of its own. The rest has gone into `ethos-u` operators.
    """
    if not compiled.compiled:
        return Placement(npu=(), cpu=tuple(op.name for op in source.operators))
    writers = {source.tensors[index].name: op.index for op in source.operators for index in op.outputs}
    writers.pop("", None)
    left = [op for op in compiled.operators if op.npu is None]
    on_cpu: set[int] = set()
    nameless: list[str] = []
    for operator in left:
        named = {writers[name] for name in _names(compiled, operator) if name in writers}
        on_cpu |= named
        if not named:
            nameless.append(operator.name)
    added: list[str] = []
    for kind in nameless:
        found = next(
            (op.index for op in source.operators if op.name == kind and op.index not in on_cpu), None
        )
        if found is None:
            added.append(kind)
        else:
            on_cpu.add(found)
    return Placement(
        npu=tuple(op.name for op in source.operators if op.index not in on_cpu),
        cpu=(*(op.name for op in source.operators if op.index in on_cpu), *added),
    )


def _names(network: Network, operator: Operator) -> list[str]:
    return [network.tensors[index].name for index in operator.outputs]


def check_made_for(
    stream: CommandStream, config: int, npu_id: int, name: str = "the network", others: Collection[str] = ()
) -> None:
    """Raise `ModelError` unless the NPU with these CONFIG and ID words takes the stream; `others` are
    devices that the user could open instead.

    The rule is that of Arm's driver (facts, ethosu-npu.md §1.2): equal MACs, stream version and SHRAM
    (on U85 AXI ports), equal architecture major, minor not above the hardware's. The product is compared
    too: U55-256 and U65-256 differ in nothing else.
    """
    buffers = AXI_PORTS if config >> 28 == U85 else SHRAM
    differs = (stream.config ^ config) & (PRODUCT | MACS | STREAM_VERSION | buffers)
    older = (stream.npu_id & ARCH_MINOR) > (npu_id & ARCH_MINOR)
    if not differs and not older and not (stream.npu_id ^ npu_id) & ARCH_MAJOR:
        return
    device = config_name(config, npu_id)
    made_for = config_name(stream.config, stream.npu_id)
    if made_for == device:
        made_for, device = (
            f"{n} of architecture {_arch(i)}" for n, i in ((made_for, stream.npu_id), (device, npu_id))
        )
        raise ModelError(
            f"{name} was compiled for {made_for}; this device is {device}: compile the original again"
        )
    known = device in CONFIGURATIONS.values()
    how = f"with `npubox compile --device {device}`" if known else "for that"
    instead = f", or open {made_for} (--device {made_for})" if made_for in others else ""
    raise ModelError(
        f"{name} was compiled for {made_for}; this device is {device}: compile the original, as it was"
        f" before Vela, {how}{instead}"
    )


def _arch(npu_id: int) -> str:
    return f"{npu_id >> 28}.{npu_id >> 20 & 0xFF}.{npu_id >> 16 & 0xF}"
