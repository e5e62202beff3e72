# SPDX-License-Identifier: Apache-2.0
"""`npubox exec`: run a program on a virtual machine's device nodes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

MACHINE = "imx93"


def exec_(
    command: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARG]...", help="What to run.")],
    machine: Annotated[
        str, typer.Option("--machine", "-m", help="A preset, or a machine that `npubox serve` runs.")
    ] = MACHINE,
    all_opens: Annotated[
        bool, typer.Option("--all-opens", help="Serve read-only opens with any flags. Each open costs 8 µs.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            "--notify-all",
            help="Also readlink, fdinfo, any ioctl, and calls on any descriptor number answer as a device's. "
            "Slows programs down.",
        ),
    ] = False,
    card0: Annotated[
        bool,
        typer.Option(
            "--card0", help="Also show the first accel node as /dev/dri/card0, for DRM's test suites."
        ),
    ] = False,
    seccomp_only: Annotated[
        bool,
        typer.Option("--seccomp-only", help="Without a mount namespace, as in an unprivileged container."),
    ] = False,
) -> None:
    """Run PROGRAM; it finds the machine's nodes under /dev, and its exit code is ours."""
    from npubox.cli.program import run_program
    from npubox.serve.launch import Wish

    wish = Wish(all_opens=all_opens or full, files=full, seccomp_only=seccomp_only, card0=card0)
    sys.exit(run_program(command, machine, wish))
