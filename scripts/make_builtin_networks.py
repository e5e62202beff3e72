# SPDX-License-Identifier: Apache-2.0
"""Compile the digits network for the subsystems' NPUs: what their presets link into the firmware.

    python -m scripts.make_builtin_networks

Anew after a change of the network or of Vela's version; tests/machines hold the files against it.
"""

from __future__ import annotations

from pathlib import Path

from npubox.compiler.vela import compile_network
from npubox.machines.preset import presets
from npubox.machines.subsystem import SubsystemPreset

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits" / "digits.tflite"
NETWORKS = ROOT / "src" / "npubox" / "machines" / "networks"


def built_in() -> dict[str, bytes]:
    """The files by name, `digits-<accelerator>.tflite`, for every accelerator of a subsystem."""
    subsystems = {
        part.accelerator: part
        for preset in presets()
        for part in preset.parts
        if isinstance(part, SubsystemPreset)
    }
    return {
        f"digits-{accelerator}.tflite": compile_network(
            DIGITS,
            accelerator,
            system_config=part.vela_system_config,
            memory_mode=part.vela_memory_mode,
            cache=False,
        ).content
        for accelerator, part in subsystems.items()
    }


if __name__ == "__main__":
    for name, content in built_in().items():
        (NETWORKS / name).write_bytes(content)
        print(name, len(content))
