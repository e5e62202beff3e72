# SPDX-License-Identifier: Apache-2.0
"""What `npubox neuron-ls` prints for people: the table and the drawing of the links."""

from __future__ import annotations

from collections.abc import Sequence

from npubox.client.neuron.listing import Listed

COLUMNS = (
    ("NEURON", "DEVICE"),
    ("NEURON", "CORES"),
    ("NEURON", "MEMORY"),
    ("CONNECTED", "DEVICES"),
    ("PCI", "BDF"),
)
PROCESS_COLUMNS = (("PID", ""), ("COMMAND", ""), ("RUNTIME", "VERSION"))
COMMAND_WIDTH = 40
ROW_OF_DRAWING = 8
GIB = 1 << 30


def table(devices: Sequence[Listed], *, wide: bool) -> str:
    """One row a device; further ones, with the device's columns empty, for further processes."""
    with_processes = any(device.processes for device in devices)
    columns = (*COLUMNS, *PROCESS_COLUMNS) if with_processes else COLUMNS
    rows: list[list[str]] = []
    for device in devices:
        about = [
            str(device.index),
            str(device.cores),
            f"{device.memory // GIB} GB",
            ", ".join(map(str, device.neighbours)),
            device.bdf,
        ]
        processes = [
            [str(process.pid), _shortened(process.command, wide), process.runtime_version]
            for process in device.processes
        ] or [[""] * len(PROCESS_COLUMNS)]
        for number, process in enumerate(processes):
            row = about if number == 0 else [""] * len(about)
            rows.append([*row, *process][: len(columns)])
    return _framed([list(line) for line in zip(*columns, strict=True)], rows)


def drawing(devices: Sequence[Listed]) -> str:
    """The chain of devices, with a legend."""
    lines = ["", "Neuron Device Topology"]
    for start in range(0, len(devices), ROW_OF_DRAWING):
        row = devices[start : start + ROW_OF_DRAWING]
        text = ""
        for device in row:
            text += f"[{device.index:>2} ]"
            if device.index + 1 in device.neighbours:
                text += "───"
        lines.append(text)
    wrapped = [
        f"[{device.index:>2} ]┄┄┄[{other:>2} ]"
        for device in devices
        for other in device.neighbours
        if other > device.index + 1
    ]
    return "\n".join([*lines, *wrapped, "", "───  pipe link", "┄┄┄  pipe link that wraps around"])


def _shortened(command: str, wide: bool) -> str:
    return command if wide or len(command) <= COMMAND_WIDTH else command[: COMMAND_WIDTH - 3] + "..."


def _framed(heads: list[list[str]], rows: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in (*heads, *rows)) for column in range(len(heads[0]))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"

    def line(cells: list[str], *, centred: bool) -> str:
        padded = (
            cell.center(width) if centred else cell.ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    return "\n".join(
        [
            rule,
            *(line(head, centred=True) for head in heads),
            rule,
            *(line(row, centred=False) for row in rows),
            rule,
        ]
    )
