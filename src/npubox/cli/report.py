# SPDX-License-Identifier: Apache-2.0
"""What `npubox run` has to tell, for people and as JSON."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.client import Device, Network, TensorInfo

_SHOWN_VALUES = 16
_JSON_VALUES = 4096


@dataclass(frozen=True)
class Verified:
    """Which oracle ran beside the NPU, why no other, what of the network it is known to get wrong, and the
    first value that differs, if any."""

    oracle: str
    passed_over: tuple[str, ...]
    inexact: tuple[str, ...]
    difference: str | None

    @property
    def problem(self) -> str | None:
        """What to say of a difference."""
        if self.difference is None or not self.inexact:
            return self.difference
        return (
            f"not verified: {self.difference}; that need not be the NPU: {self.oracle} is known to differ in"
            f" {' and '.join(self.inexact)}, and no better reference runs this network"
        )


@dataclass
class RunReport:
    model: Path
    device: Device
    network: Network
    outputs: tuple[npt.NDArray[Any], ...] = ()
    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cycles: list[int | None] = field(default_factory=list)
    device_time_ns: list[int | None] = field(default_factory=list)
    host_time_ns: list[int] = field(default_factory=list)
    verified: Verified | None = None

    def show(self, as_json: bool) -> None:
        print(json.dumps(self._to_json()) if as_json else "\n".join(self._lines()))

    def _to_json(self) -> dict[str, Any]:
        placement = self.network.placement
        return {
            "model": str(self.model),
            "device": self.device.name,
            "accelerator": self.device.accelerator,
            "virtual": self.device.virtual,
            "policy": self.device.policy,
            "generator": self.network.generator,
            "operators": {"npu": list(placement.npu), "cpu": list(placement.cpu)},
            "inputs": [_describe(info) for info in self.network.inputs],
            "outputs": [
                {**_describe(info), "values": array.tolist() if array.size <= _JSON_VALUES else None}
                for info, array in zip(self.network.outputs, self.outputs, strict=True)
            ],
            "written": [str(path) for path in self.written],
            "notes": self.notes,
            "runs": len(self.host_time_ns),
            "cycles": self.cycles,
            "device_time_ns": self.device_time_ns,
            "host_time_ns": self.host_time_ns,
            "verified": None
            if self.verified is None
            else {
                "oracle": self.verified.oracle,
                "passed_over": list(self.verified.passed_over),
                "inexact": list(self.verified.inexact),
                "difference": self.verified.difference,
            },
        }

    def _lines(self) -> Iterator[str]:
        kind = f"virtual, policy {self.device.policy}" if self.device.virtual else "real hardware"
        yield f"{self.model.name} on {self.device.accelerator} ({self.device.name}, {kind})"
        made = f" ({self.network.generator} stream)" if self.network.generator else ""
        yield f"NPU: {count_operators(self.network.placement.npu)}{made}"
        yield f"CPU: {count_operators(self.network.placement.cpu)}"
        yield from (f"note: {note}" for note in self.notes)
        for info, array in zip(self.network.outputs, self.outputs, strict=True):
            yield f"output {info}: {_summary(array)}"
        yield from (f"wrote {path}" for path in self.written)
        if self.verified is not None and self.verified.difference is None:
            yield f"verified: every output equals {self.verified.oracle}, bit for bit"
            yield from (f"not asked: {reason}" for reason in self.verified.passed_over)
        yield " · ".join(self._times())

    def _times(self) -> Iterator[str]:
        cycles = [value for value in self.cycles if value is not None]
        device = [value for value in self.device_time_ns if value is not None]
        runs = len(self.host_time_ns)
        if cycles and device:
            yield f"{statistics.median(cycles):,.0f} NPU cycles"
            yield f"{statistics.median(device) / 1e3:,.1f} µs device time"
        yield f"{statistics.median(self.host_time_ns) / 1e6:,.2f} ms host time"
        if runs > 1:
            yield f"medians of {runs} runs, host {min(self.host_time_ns) / 1e6:,.2f} ms at best"


def count_operators(names: Sequence[str]) -> str:
    """`4 operators: 3 CONV_2D, SOFTMAX`, or `none`."""
    if not names:
        return "none"
    kinds = ", ".join(f"{count} {name}" if count > 1 else name for name, count in Counter(names).items())
    return f"{len(names)} operator{'s' if len(names) > 1 else ''}: {kinds}"


def _describe(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "shape": list(info.shape),
        "dtype": str(info.dtype),
        "scale": info.scale,
        "zero_point": info.zero_point,
    }


def _summary(array: npt.NDArray[Any]) -> str:
    if array.size <= _SHOWN_VALUES:
        return " ".join(map(str, array.reshape(-1).tolist()))
    best = int(np.argmax(array))
    return f"min {array.min()}, max {array.reshape(-1)[best]} at {best}, mean {array.mean():.3f}"
