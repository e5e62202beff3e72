# SPDX-License-Identifier: Apache-2.0
"""The work behind `npubox run`."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import npubox
from npubox.cli.inputs import Array, Pixels, read_input
from npubox.cli.options import Failed
from npubox.cli.report import RunReport, Verified, count_operators
from npubox.client import CompileOptions, Network
from npubox.client.progress import working
from npubox.errors import InputError, ModelError
from npubox.fallback.oracles import LITERT_OPTIMISED, TFLITE_MICRO
from npubox.fallback.verify import reference_outputs
from npubox.formats.model import read_model

STAND_INS = {LITERT_OPTIMISED: "LiteRT's optimised kernels", TFLITE_MICRO: "tflite-micro's kernels"}


@dataclass(frozen=True)
class Request:
    """What was typed."""

    model: Path
    inputs: list[Path]
    outputs: list[Path] | None
    device: str
    policy: str | None
    options: CompileOptions | None
    signed: bool | None
    dump_layers: Path | None
    repeat: int
    mean: float | None
    scale: float | None
    allow_fallback: bool
    verify: bool
    json: bool


def execute(request: Request) -> None:
    """Open, load, read, run, verify, write, report. Raises what the client does, Failed for a difference."""
    model = request.model
    read_model(
        model, signed=request.signed
    )  # a bad file is told at once: powering up a machine may compile its kernels
    with working(f"opening {request.device}"):
        device = npubox.open(request.device, policy=request.policy)
    with device:
        with working(f"compiling {model.name}"):
            network = device.load(model, request.options, signed=request.signed)
        with network:
            _check_placed(model, network, request.allow_fallback)
            _check_files(network, request.inputs, request.outputs)
            report = RunReport(model, device, network, written=list(request.outputs or []))
            arrays = _read(network, request.inputs, Pixels(request.mean, request.scale), report.notes)
            with working(f"running {model.name}"):
                dump = device.dump_layers(request.dump_layers) if request.dump_layers else nullcontext()
                with dump:
                    first = _run(network, arrays, report)
                for _ in range(request.repeat - 1):
                    _run(network, arrays, report)
            report.notes += [
                f"{name} ran on {STAND_INS[kernels]}: LiteRT's reference kernels lack it or get it wrong"
                for name, kernels in dict.fromkeys(network.stand_in_kernels)
            ]
            if request.verify:
                with working("running the reference kernels"):
                    report.verified = _verify(model, network, arrays, first)
            if report.written:
                _write(report.written, report.outputs)
            report.show(request.json)
    if report.verified is not None and report.verified.problem:
        raise Failed(report.verified.problem)


def _check_placed(model: Path, network: Network, allow_fallback: bool) -> None:
    if not network.placement.npu and not allow_fallback:
        raise ModelError(
            f"nothing of {model} runs on the NPU, only {count_operators(network.placement.cpu)} on the CPU:"
            " --allow-fallback runs it so"
        )


def _check_files(network: Network, inputs: list[Path], outputs: list[Path] | None) -> None:
    """Counts first, so that nothing runs in vain."""
    for option, files, infos in (("--input", inputs, network.inputs), ("--output", outputs, network.outputs)):
        if files is not None and len(files) != len(infos):
            raise InputError(
                f"{option} was given {len(files)} time(s) and the model has {len(infos)}: give it once each"
                f" for {', '.join(map(str, infos))}, in this order"
            )


def _read(network: Network, files: list[Path], pixels: Pixels, notes: list[str]) -> list[Array]:
    arrays = []
    for path, info in zip(files, network.inputs, strict=True):
        array, remarks = read_input(path, info, pixels)
        try:
            arrays.append(info.accept(array))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        notes += remarks
    return arrays


def _run(network: Network, arrays: list[Array], report: RunReport) -> tuple[Array, ...]:
    """Run once; the outputs, which the report gets too."""
    start = time.perf_counter_ns()
    with network.submit(*arrays) as inference:
        report.outputs = inference.outputs
        report.host_time_ns.append(time.perf_counter_ns() - start)
        report.cycles.append(inference.cycles)
        report.device_time_ns.append(inference.device_time_ns)
    return report.outputs


def _verify(model: Path, network: Network, arrays: list[Array], outputs: tuple[Array, ...]) -> Verified:
    source = read_model(model, signed=True)
    if source.compiled:
        raise ModelError(f"--verify needs the model as it was before Vela, and {model} already is compiled")
    reference = reference_outputs(source.content, arrays)
    told = (reference.oracle, reference.passed_over, reference.inexact)
    for info, ours, theirs in zip(network.outputs, outputs, reference.outputs, strict=True):
        if ours.shape != theirs.shape:
            return Verified(*told, f"output {info}: {reference.oracle} gives it as {list(theirs.shape)}")
        differing = np.argwhere(ours != theirs)
        if len(differing):
            at = tuple(differing[0].tolist())
            difference = f"output {info} is {ours[at]} at {list(at)}, {reference.oracle} has {theirs[at]}"
            return Verified(*told, f"{difference}; {len(differing)} of {ours.size} values differ")
    return Verified(*told, None)


def _write(files: list[Path], arrays: tuple[Array, ...]) -> None:
    for path, array in zip(files, arrays, strict=True):
        with path.open("wb") as file:
            np.save(file, array)
