# SPDX-License-Identifier: Apache-2.0
"""`npubox trace`: `npubox exec` that tells of each call on a node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from npubox.cli import options

MACHINE = "imx93"


def trace(
    command: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARG]...", help="What to run.")],
    machine: Annotated[
        str, typer.Option("--machine", "-m", help="A preset, or a machine that `npubox serve` runs.")
    ] = MACHINE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the trace goes; stderr unless given.")
    ] = None,
    mailbox: Annotated[
        bool, typer.Option("--mailbox", help="Also show the messages between a driver and its firmware.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Run PROGRAM and show each open, ioctl, mmap, poll and release of a node, and what jobs did.

    With --json one JSON object a line.
    """
    from npubox.cli.program import run_program
    from npubox.cli.watch import watcher
    from npubox.serve.launch import Wish

    wish = Wish(all_opens=True, poll=True)
    path = None if output is None else output.resolve()
    sys.exit(run_program(command, machine, wish, watcher(path, json, mailbox)))
