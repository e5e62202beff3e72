# SPDX-License-Identifier: Apache-2.0
"""What the common face (`Device`, `Network`, `Inference`) asks of a driver's own client.

Each kind of node has one: `accel` for mainline's `ethosu` driver, `subsystem` for Arm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from npubox.client.buffers import Buffer
from npubox.client.ethosu_accel import NpuInfo
from npubox.client.lifetime import Uses
from npubox.formats.network import Network as Graph
from npubox.formats.network import Tensor

Array = npt.NDArray[Any]


class Run(Protocol):
    """One inference under way. `outputs`, `cycles` and `device_time_ns` are there once it has ended without
    `error`; the latter two only if a virtual machine tells them."""

    uses: Uses
    error: BaseException | None
    outputs: tuple[Array, ...]
    cycles: int | None
    device_time_ns: int | None

    def advance(self, deadline: int) -> bool:
        """Go as far as it gets by `deadline` (CLOCK_MONOTONIC, ns); whether that was to the end."""

    def cancel(self) -> None:
        """Take it back. Raises CancelUnsupported where the driver cannot."""


class State(Protocol):
    """What persists between the inferences of a session."""

    def submit(self, values: list[Array]) -> Run:
        """Wait for the earlier one, then start. The run has one use more, for the caller to drop."""

    def reset(self) -> None: ...

    def free(self) -> None: ...


class LoadedNetwork(Protocol):
    """A network on a device. `stateful`: it has state that persists between inferences, in a session."""

    graph: Graph
    uses: Uses

    @property
    def inputs(self) -> Sequence[Tensor]: ...

    @property
    def outputs(self) -> Sequence[Tensor]: ...

    @property
    def stateful(self) -> bool: ...

    @property
    def generator(self) -> str | None: ...

    @property
    def stand_in_kernels(self) -> tuple[tuple[str, str], ...]: ...

    def start(self, values: list[Array], arena: Buffer | None) -> Run:
        """One inference. Raises InputError for an arena that it cannot work in."""

    def new_state(self) -> State:
        """State of its own. Raises InputError where the device keeps none."""


class Backend(Protocol):
    """An open node. It closes when the last object made from it has gone."""

    name: str
    info: NpuInfo
    machine: Any | None
    uses: Uses

    @property
    def policy(self) -> str | None: ...

    @property
    def vela(self) -> tuple[str | None, str | None]:
        """What the machine's system configuration and memory mode are called by Vela; None for unknown."""

    def load(self, graph: Graph) -> LoadedNetwork:
        """Put a compiled network on the device. Raises ModelError where that refuses it."""

    def buffer(self, size: int) -> Buffer:
        """An arena. Raises InputError where the device takes none."""

    def dump_layers(self, directory: Path) -> AbstractContextManager[None]:
        """As `Device.dump_layers` says."""
