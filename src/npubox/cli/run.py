# SPDX-License-Identifier: Apache-2.0
"""`npubox run`: one network on one device, inputs from files, outputs to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from npubox.cli import options


def run(
    model: options.Model,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input", "-i", help="A .npy, .png or raw file; once for each input, in the model's order."
        ),
    ],
    outputs: Annotated[
        list[Path] | None,
        typer.Option("--output", help="Write an output as .npy; once for each output, in the model's order."),
    ] = None,
    device: options.Device = options.DEVICE,
    policy: Annotated[
        str | None,
        typer.Option(help="What the driver refuses: as mainline Linux does, or as little as the hardware."),
    ] = None,
    system_config: options.SystemConfig = None,
    memory_mode: options.MemoryMode = None,
    optimise: options.Optimise = None,
    legacy: options.Legacy = False,
    signed: Annotated[
        bool | None,
        typer.Option("--signed/--unsigned", help="An .npz does not always tell whether its bytes are int8."),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Run so many times; a model with state goes on from run to run.")
    ] = 1,
    mean: Annotated[float | None, typer.Option(help="Pictures: real value = (pixel - mean) * scale.")] = None,
    scale: Annotated[float | None, typer.Option(help="Pictures: see --mean; 1 unless given.")] = None,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="Run a model even if nothing of it is placed on the NPU.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare the first run's outputs with reference kernels, bit for bit."),
    ] = False,
    dump_layers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what each operation of the first run stores as .npy."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run MODEL.tflite on an NPU. Vela compiles it unless it already is compiled.

    A .png has the model's height and width: uint8 inputs take its pixels as they are, int8 inputs take
    pixel - 128, others need --mean and --scale. Colour is converted to what the model takes.
    """
    from npubox.cli.execute import Request, execute
    from npubox.client import CompileOptions

    given = CompileOptions(system_config, memory_mode, optimise, legacy)

    execute(
        Request(
            model=model,
            inputs=inputs,
            outputs=outputs,
            device=device,
            policy=policy,
            options=given if given != CompileOptions() else None,
            signed=signed,
            dump_layers=dump_layers,
            repeat=repeat,
            mean=mean,
            scale=scale,
            allow_fallback=allow_fallback,
            verify=verify,
            json=json,
        )
    )
