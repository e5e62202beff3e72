# SPDX-License-Identifier: Apache-2.0
"""Compiling for a device: its accelerator, and the system configuration its machine stands for."""

from __future__ import annotations

from pathlib import Path

from npubox.client.device import Device
from npubox.compiler.vela import ACCELERATORS, CompiledFile, CompileOptions, compile_with
from npubox.errors import DeviceError


def compile_for(device: str, model: Path, options: CompileOptions | None = None) -> tuple[str, CompiledFile]:
    """The accelerator behind `device` and `model` compiled for it. `device` is all that `npubox.open`
    takes, or an accelerator of which there is no virtual one but which Vela compiles for.

    Raises DeviceError for an unknown device, ModelError as loading a network does.
    """
    try:
        with Device(device) as opened:
            return opened.accelerator, opened.compile(model, options)
    except DeviceError:
        if device not in ACCELERATORS:
            raise
        return device, compile_with(options or CompileOptions(), model, device)
