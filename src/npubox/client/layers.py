# SPDX-License-Identifier: Apache-2.0
"""What each operation of the NPU wrote, as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from npubox.client.hardware import Hardware
from npubox.errors import DeviceError

INDEX = "layers.json"


@contextmanager
def dump_layers(hardware: Hardware, directory: Path) -> Iterator[None]:
    """As `Device.dump_layers` says."""
    if hardware.machine is None:
        raise DeviceError(
            f"{hardware.name} is real hardware, which does not show what its operations write: open a virtual"
            " machine such as ethos-u65-256"
        )
    directory.mkdir(parents=True, exist_ok=True)
    dump = _Dump(directory)
    hardware.machine.watch(dump.take)
    try:
        yield
    finally:  # what a failed job did before is worth most
        hardware.machine.watch(None)
        dump.finish()


class _Dump:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._layers: list[dict[str, Any]] = []
        self._error: OSError | None = None

    def take(self, output: Any) -> None:
        """An operation ended: on the NPU's thread, where a full disk must not become a failed job."""
        if self._error is None:
            try:
                self._write(output)
            except OSError as error:
                self._error = error

    def finish(self) -> None:
        if self._error is not None:
            raise self._error
        (self._directory / INDEX).write_text(json.dumps({"layers": self._layers}, indent=1) + "\n", "utf-8")

    def _write(self, output: Any) -> None:
        name = f"{len(self._layers):03}_{output.command}_{output.offset:#x}.npy"
        np.save(self._directory / name, output.values)
        self._layers.append(
            {
                "file": name,
                "job": output.job[1],
                "command": output.command,
                "offset": output.offset,
                "shape": list(output.values.shape),
                "dtype": str(output.values.dtype),
                "zero_point": output.zero_point,
            }
        )
