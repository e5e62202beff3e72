# SPDX-License-Identifier: Apache-2.0
"""`npubox compile`: a network compiled for a device, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from npubox.cli import options


def compile_(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.tflite", help="Where to write it.")],
    device: options.Device = options.DEVICE,
    system_config: options.SystemConfig = None,
    memory_mode: options.MemoryMode = None,
    optimise: options.Optimise = None,
    legacy: options.Legacy = False,
    json: options.Json = False,
) -> None:
    """Compile MODEL.tflite with Vela for the accelerator of a device, or for any that Vela names."""
    from npubox.cli.report import count_operators
    from npubox.client.compiled import compile_for
    from npubox.client.progress import working
    from npubox.compiler.placement import operators_placed
    from npubox.compiler.vela import CompileOptions
    from npubox.formats.tflite import read_network

    chosen = CompileOptions(system_config, memory_mode, optimise, legacy)
    with working(f"compiling {model.name}"):
        accelerator, compiled = compile_for(device, model, chosen)
    placement = operators_placed(read_network(model), read_network(compiled.content))
    output.write_bytes(compiled.content)
    if json:
        import json as json_module

        report = {
            "model": str(model),
            "written": str(output),
            "accelerator": accelerator,
            "vela": compiled.version,
            "cached": compiled.cached,
            "operators": {"npu": list(placement.npu), "cpu": list(placement.cpu)},
        }
        print(json_module.dumps(report))
        return
    print(
        f"{model.name} for {accelerator} with Vela {compiled.version}"
        + (" (cached)" if compiled.cached else "")
    )
    print(f"NPU: {count_operators(placement.npu)}")
    print(f"CPU: {count_operators(placement.cpu)}")
    print(f"wrote {output}")
