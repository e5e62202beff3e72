# SPDX-License-Identifier: Apache-2.0
"""`npubox vfio-user`: a machine's PCI devices behind sockets, for QEMU or for a driver in another process."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def vfio_user(
    machine: Annotated[str, typer.Argument(help="A machine with PCI devices, such as inf1.xlarge.")],
    socket: Annotated[
        Path, typer.Option("--socket", "-s", help="Where to listen; chip N of several at SOCKET.N.")
    ],
    revision: Annotated[
        int | None, typer.Option("--revision", min=0, max=255, help="PCI revision, instead of the machine's.")
    ] = None,
) -> None:
    """Serve a machine's PCI devices over vfio-user until interrupted.

    Each has one client at a time, and is reset when that goes.
    """
    from npubox.machines.neuron_sockets import NeuronSockets, find_chips
    from npubox.machines.preset import find_preset

    preset = find_chips(find_preset(machine))
    if revision is not None:
        preset = replace(preset, revision=revision)
    paths = [f"{socket}.{chip}" for chip in range(preset.chips)] if preset.chips > 1 else [str(socket)]
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    served = NeuronSockets(preset, paths)
    try:
        for chip, path in enumerate(paths):
            print(f"neuron{chip}: {preset.device:04x} revision {preset.revision} at {path}", flush=True)
        ended.wait()
    finally:
        served.close()
