# SPDX-License-Identifier: Apache-2.0
"""Starting a program on a machine: what `npubox exec` and `npubox trace` share. No heavy imports."""

from __future__ import annotations

import sys
from collections.abc import Callable

from npubox.errors import NpuboxError
from npubox.machines.preset import find_preset
from npubox.serve.execute import Launched, Request, execute
from npubox.serve.launch import Wish
from npubox.serve.machine import ServedMachine
from npubox.serve.preset import PresetMachine
from npubox.serve.rendezvous import socket_path
from npubox.serve.supervisor import Observer

MACHINE = "imx93"
BAD_INPUT = 2


def find_machine(name: str) -> Callable[[], ServedMachine]:
    """What makes the machine of that name: one that `npubox serve` runs, or else a preset's own."""
    path = socket_path(name)
    if path.exists():
        from npubox.serve.forward import ForwardedMachine

        return lambda: ForwardedMachine(path)
    preset = find_preset(name)
    return lambda: PresetMachine(preset)


def run_program(
    command: list[str],
    machine: str | None = None,
    wish: Wish | None = None,
    watch: Callable[[Launched], Observer] | None = None,
) -> int:
    """The program's exit code; 126 and 127 where it could not be started."""
    try:
        return execute(Request(command, find_machine(machine or MACHINE), wish or Wish(), watch))
    except NpuboxError as error:
        print(f"npubox: {error}", file=sys.stderr)
    except OSError as error:
        print(f"npubox: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
    return BAD_INPUT
