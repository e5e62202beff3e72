# SPDX-License-Identifier: Apache-2.0
"""`npubox devices`: what can be opened."""

from __future__ import annotations

import glob
from typing import Any

from npubox.cli import options

NODES = ("/dev/accel/accel*", "/dev/ethosu*", "/dev/neuron*", "/dev/adla*")


def devices(json: options.Json = False) -> None:
    """List the virtual machines that can be powered up, and the host's real NPU nodes."""
    from npubox import machines

    presets: list[dict[str, Any]] = [
        {
            "name": preset.name,
            "accelerator": preset.accelerator,
            "policy": preset.policy,
            "devices": list(preset.devices),
            "description": preset.description,
        }
        for preset in machines.presets()
    ]
    nodes = [_node(path) for pattern in NODES for path in sorted(glob.glob(pattern))]
    if json:
        import json as json_module

        print(json_module.dumps({"presets": presets, "nodes": nodes}))
        return
    print("virtual machines")
    width = max(len(preset["name"]) for preset in presets)
    for preset in presets:
        names = ", ".join(preset["devices"])
        print(f"  {preset['name']:<{width}} {names:<14} policy {preset['policy']:<9} {preset['description']}")
    print("nodes of this host's kernel" if nodes else "nodes of this host's kernel: none")
    for node in nodes:
        print(f"  {node['path']:<22} {node['driver'] or node['problem']}")


def _node(path: str) -> dict[str, Any]:
    """The DRM driver behind a node, or why it cannot be told."""
    from npubox.client.hardware import driver_name
    from npubox.client.node import HostNode
    from npubox.errors import DeviceError

    try:
        node = HostNode.open(path)
    except OSError as error:
        return {"path": path, "driver": None, "problem": f"cannot be opened: {error.strerror}"}
    try:
        return {"path": path, "driver": driver_name(path, node), "problem": None}
    except DeviceError as error:
        return {"path": path, "driver": None, "problem": str(error)}
    finally:
        node.close()
