# SPDX-License-Identifier: Apache-2.0
"""`npubox inference-runner`: Arm's runner, with its options, over `npubox.ethosu`.

Its lines on stdout are Arm's, so that scripts that read those go on working (facts, ethosu-linux.md §3.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npubox.cli.options import Failed

if TYPE_CHECKING:
    from npubox import ethosu

NODE, MACHINE = "/dev/ethosu0", "imx93-linux"
NANOSECONDS = 1e9
LINE_BYTES = 16


def inference_runner(
    network: Annotated[
        Path | None, typer.Option("--network", "-n", help="A .tflite, as Vela compiled it for the device.")
    ] = None,
    index: Annotated[
        int | None, typer.Option(min=0, help="A network in the firmware instead of a file.")
    ] = None,
    ifms: Annotated[
        list[Path] | None,
        typer.Option("--ifm", "-i", help="The bytes of all inputs, one after the other; once an inference."),
    ] = None,
    ofm: Annotated[
        Path | None, typer.Option("--ofm", "-o", help="Write the outputs of inference N to OFM.N.")
    ] = None,
    pmu: Annotated[
        list[str] | None, typer.Option("--pmu", "-P", metavar="COUNTER EVENT", help="Count a PMU event.")
    ] = None,
    cycles: Annotated[bool, typer.Option("--cycles", "-C", help="Count cycles.")] = False,
    timeout: Annotated[
        int, typer.Option("--timeout", "-t", help="How long to wait for an inference, in nanoseconds.")
    ] = 60_000_000_000,
    print_: Annotated[bool, typer.Option("-p", help="Print the outputs in hexadecimal.")] = False,
    device: Annotated[
        str | None,
        typer.Option("--dev", "-d", help=f"A node or a machine: {NODE} where there is one, or {MACHINE}."),
    ] = None,
) -> None:
    """Run inferences on a subsystem, /dev/ethosu<N>, as Arm's inference_runner does."""
    from npubox import ethosu
    from npubox.errors import InputError

    if (network is None) == (index is None):
        raise InputError("give the network either as a file (--network) or by its number (--index)")
    events = _events(pmu or [])
    with ethosu.Device(device or (NODE if Path(NODE).exists() else MACHINE)) as opened:
        _ask(opened)
        print("Create network")
        with opened.network(network if network is not None else index or 0) as loaded:
            _run(opened, loaded, ifms or [], ofm, events, cycles, timeout / NANOSECONDS, print_)


def join_pairs(arguments: list[str]) -> list[str]:
    """`--pmu COUNTER EVENT` with its two values as one argument: typer has no option that takes pairs again
    and again."""
    joined: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        joined.append(argument)
        if argument in ("-P", "--pmu"):
            joined.append(" ".join(value for value in (next(rest, None), next(rest, None)) if value))
    return joined


def _ask(device: ethosu.Device) -> None:
    print("Send Ping")
    device.ping()
    print("Send version request")
    device.request_version()
    print("Send capabilities request")
    told = device.capabilities
    print("Capabilities:")
    print(f"\taccelerator: {told.accelerator}")
    print(f"\tversion: {_dotted(told.version)}, status {told.version_status}, product {told.product}")
    print(f"\tarchitecture: {_dotted(told.architecture)}")
    print(f"\tdriver: {_dotted(told.driver)}")
    print(f"\tMACs per cycle: {told.macs}")
    print(f"\tcommand stream version: {told.command_stream_version}")
    print(f"\tcustom DMA: {told.custom_dma}")


def _run(
    device: ethosu.Device,
    network: ethosu.Network,
    ifms: list[Path],
    ofm: Path | None,
    events: list[int],
    cycles: bool,
    timeout: float,
    show: bool,
) -> None:
    started = []
    for path in ifms:
        print("Create inference")
        outputs = [device.buffer(size) for size in network.output_sizes]
        inputs = _inputs(device, network, path)
        started.append((network.infer(inputs, outputs, events=events, cycles=cycles), outputs))
    print("Wait for inferences")
    failed = [
        number
        for number, (inference, outputs) in enumerate(started)
        if not _finish(inference, outputs, timeout, bool(events), cycles)
    ]
    for number, (_, outputs) in enumerate(started):
        if number not in failed:
            content = b"".join(bytes(buffer.valid()) for buffer in outputs)
            if ofm is not None:
                ofm.with_name(f"{ofm.name}.{number}").write_bytes(content)
            if show:
                print(_dump(content))
    if failed:
        raise Failed(f"inference {', '.join(map(str, failed))} did not succeed")


def _finish(
    inference: ethosu.Inference, outputs: list[ethosu.Buffer], timeout: float, events: bool, cycles: bool
) -> bool:
    from npubox import ethosu

    print("Wait for inference")
    if not inference.finished(timeout):
        print("Cancel inference")
        inference.cancel()
    print(f"Inference status: {inference.status.name.lower()}")
    if inference.status is not ethosu.Status.OK:
        return False
    for buffer in outputs:
        print(f"OFM size: {buffer.size}")
    if events:
        print(f"PMUs : [ {' '.join(map(str, inference.pmu.counts))} ]")
    if cycles:
        print(f"Cycle counter: {inference.pmu.cycles}")
    return True


def _inputs(device: ethosu.Device, network: ethosu.Network, path: Path) -> list[ethosu.Buffer]:
    from npubox.errors import InputError

    content = path.read_bytes()
    if len(content) != sum(network.input_sizes):
        raise InputError(
            f"{path} has {len(content)} bytes: the network's inputs take {sum(network.input_sizes)}"
        )
    buffers, start = [], 0
    for size in network.input_sizes:
        buffer = device.buffer(size)
        buffer.fill(content[start : start + size])
        buffers.append(buffer)
        start += size
    return buffers


def _events(given: list[str]) -> list[int]:
    """`COUNTER EVENT` as an event for each counter."""
    from npubox.errors import InputError
    from npubox.uapi.ethosu_linux import PMU_EVENT_MAX

    events = [0] * PMU_EVENT_MAX
    for text in given:
        try:
            counter, event = map(int, text.split())
            if counter < 0:
                raise IndexError
            events[counter] = event
        except (ValueError, IndexError):
            raise InputError(
                f"--pmu {text!r} is none: give COUNTER EVENT, counters from 0 to {PMU_EVENT_MAX - 1}"
            ) from None
    return events if given else []


def _dump(content: bytes) -> str:
    lines = (content[start : start + LINE_BYTES] for start in range(0, len(content), LINE_BYTES))
    return "\n".join(line.hex(" ") for line in lines)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
