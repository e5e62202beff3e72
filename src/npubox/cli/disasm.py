# SPDX-License-Identifier: Apache-2.0
"""`npubox disasm`: the command streams of a compiled network in the field's own names."""

from __future__ import annotations

from npubox.cli import options
from npubox.errors import ModelError


def disasm(model: options.Model, json: options.Json = False) -> None:
    """Show each command: its offset in the stream in bytes, its words, its name and its fields."""
    from npubox.formats.model import read_model
    from npubox.formats.payload import config_name
    from npubox.tools.disasm import disassemble_stream

    network = read_model(model, signed=True)  # the signs of its tensors do not matter here
    if not network.compiled:
        raise ModelError(f"{model} carries no command stream: `npubox compile` makes one")
    streams = [
        (operator.index, operator.npu.stream) for operator in network.operators if operator.npu is not None
    ]
    if json:
        import json as json_module

        report = [
            {
                "operator": index,
                "accelerator": config_name(stream.config, stream.npu_id),
                "commands": [line.to_json() for line in disassemble_stream(stream)],
            }
            for index, stream in streams
        ]
        print(json_module.dumps({"model": str(model), "streams": report}))
        return
    listing = []  # whole before any of it is printed: what cannot be shown leaves nothing on stdout
    for index, stream in streams:
        made_for = config_name(stream.config, stream.npu_id)
        listing.append(f"; operator {index}: {len(stream.words)} bytes for {made_for} ({stream.cop})")
        listing += [line.text for line in disassemble_stream(stream)]
    print("\n".join(listing))
