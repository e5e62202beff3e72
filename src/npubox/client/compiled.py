# SPDX-License-Identifier: Apache-2.0
"""Compiling for a device: its accelerator, and the system configuration its machine stands for."""

from __future__ import annotations

from pathlib import Path

from npubox.client.device import Device
from npubox.compiler.vela import ACCELERATORS, CompiledFile, compile_network
from npubox.errors import DeviceError


def compile_for(device: str, model: Path) -> tuple[str, CompiledFile]:
    """The accelerator behind `device` and `model` compiled for it. `device` is all that `npubox.open`
    takes, or an accelerator of which there is no virtual one but which Vela compiles for.

    Raises DeviceError for an unknown device, ModelError as loading a network does.
    """
    try:
        with Device(device) as opened:
            return opened.accelerator, opened.compile(model)
    except DeviceError:
        if device not in ACCELERATORS:
            raise
        return device, compile_network(model, device)
