# SPDX-License-Identifier: Apache-2.0
"""`npubox serve`: a machine that outlives the programs that use it."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from npubox.cli.options import Failed

MACHINE = "imx93"


def serve(
    name: Annotated[str, typer.Argument(help="What `npubox exec --machine NAME` finds it by.")],
    preset: Annotated[str, typer.Option("--preset", "-p", help="What the machine is made of.")] = MACHINE,
) -> None:
    """Power a machine up and keep it until interrupted. Programs of one launch or of many share it."""
    from npubox.machines.preset import find_preset
    from npubox.serve.preset import PresetMachine
    from npubox.serve.rendezvous import socket_path
    from npubox.serve.server import Server, bind

    machine = PresetMachine(find_preset(preset))
    path = socket_path(name)
    try:
        listener = bind(path)
    except FileExistsError:
        raise Failed(f"a machine called {name} is served already: choose another name") from None
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        ready = threading.Event()
        machine.power_up(ready.set)
        ready.wait()
        server = Server(machine)
        threading.Thread(target=server.run, args=(listener,), name="npubox-accept", daemon=True).start()
        nodes = ", ".join(node.path for node in machine.nodes)
        print(f"{name}: {preset} with {nodes}; npubox exec --machine {name} -- PROGRAM", flush=True)
        ended.wait()
        server.close()
    finally:
        path.unlink(missing_ok=True)
        listener.close()
        machine.close()
