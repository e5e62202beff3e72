# SPDX-License-Identifier: Apache-2.0
"""`npubox trace`: `npubox exec` that tells of each call on a node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from npubox.cli import options
from npubox.cli.program import BAD_INPUT


def trace(
    command: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARG]...", help="What to run.")],
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine", "-m", help="A preset, or a machine that `npubox serve` runs; imx93 unless given."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the trace goes; stderr unless given.")
    ] = None,
    mailbox: Annotated[
        bool, typer.Option("--mailbox", help="Also show the messages between a driver and its firmware.")
    ] = False,
    host: Annotated[
        bool,
        typer.Option(
            "--host", help="No virtual machine: trace the host's own nodes, whose drivers answer. Unverified."
        ),
    ] = False,
    node: Annotated[
        list[str] | None, typer.Option(help="With --host, also trace the device node at this path.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Run PROGRAM and show each open, ioctl, mmap, poll and release of a node, and what jobs did.

    With --json one JSON object a line.
    """
    if host:
        if machine is not None or mailbox:
            raise typer.BadParameter("--host traces nodes of no machine: leave --machine and --mailbox out")
        _trace_host(command, node or [], output, json)
    if node:
        raise typer.BadParameter("--node is for --host; a machine's nodes are all traced")
    from npubox.cli.program import run_program
    from npubox.cli.watch import watcher
    from npubox.serve.launch import Wish

    wish = Wish(all_opens=True)
    path = None if output is None else output.resolve()
    sys.exit(run_program(command, machine, wish, watcher(path, json, mailbox)))


def _trace_host(command: list[str], nodes: list[str], output: Path | None, as_json: bool) -> NoReturn:
    from npubox.cli.watch_host import trace_host
    from npubox.errors import DeviceError

    try:
        sys.exit(trace_host(command, nodes, output, as_json))
    except DeviceError as error:
        print(f"npubox: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
