# SPDX-License-Identifier: Apache-2.0
"""`npubox neuron-ls`: the NeuronDevices there are, as the vendor's tool of that name tells.

Served programs find it as /opt/aws/neuron/bin/neuron-ls. Source: the project's facts (neuron-tools.md).
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

MACHINE_HELP = "A preset or machine file with NeuronDevices; without it, the nodes of this host."


def neuron_ls(
    machine: Annotated[str | None, typer.Option("--machine", "-m", help=MACHINE_HELP)] = None,
    json_output: Annotated[
        bool, typer.Option("--json-output", "-j", help="Print a JSON array, one object a device.")
    ] = False,
    topology: Annotated[
        bool, typer.Option("--topology", "-t", help="Draw the links between devices too.")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", "-w", help="Do not shorten commands.")] = False,
    show_all_procs: Annotated[
        bool,
        typer.Option("--show-all-procs", "-a", help="Also processes without the runtime."),
    ] = False,
) -> None:
    """List NeuronDevices: cores, memory, links, PCI addresses, and the processes that use them."""
    from npubox.client.neuron.listing import listing

    devices = listing(machine, all_processes=show_all_procs)
    if json_output:
        typer.echo(json.dumps([device.to_json() for device in devices], indent=4), nl=False)
        return
    from npubox.cli import neuron_table

    typer.echo(neuron_table.table(devices, wide=wide))
    if topology:
        typer.echo(neuron_table.drawing(devices))
