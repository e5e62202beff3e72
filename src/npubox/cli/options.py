# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands take, and the failure that is nobody's bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEVICE = "ethos-u65-256"

Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL.tflite", help="The network, compiled by Vela or not; or Vela's raw .npz."),
]
Device = Annotated[
    str,
    typer.Option("--device", "-d", help="A preset, a device's name or a node; `npubox devices` lists them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SystemConfig = Annotated[
    str | None, typer.Option(help="Vela's, from its configuration file; the device's own unless given.")
]
MemoryMode = Annotated[
    str | None,
    typer.Option(help="Vela's, such as Sram_Only or Shared_Sram; the device's own unless given."),
]
Optimise = Annotated[str | None, typer.Option(help="What Vela optimises for: Performance or Size.")]
Legacy = Annotated[
    bool, typer.Option("--legacy", help="Compile with the generator that Vela had before version 4.")
]


class Failed(Exception):  # noqa: N818 - a failure to report, not an error in the program
    """The command did its work and the answer is no: exit code 1."""
