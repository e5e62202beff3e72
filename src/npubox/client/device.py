# SPDX-License-Identifier: Apache-2.0
"""An opened NPU: what networks are loaded on and buffers come from."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from npubox.client.accel import AccelBackend
from npubox.client.backend import Backend
from npubox.client.buffers import Buffer
from npubox.client.ethosu_accel import NpuInfo
from npubox.client.lifetime import Closable, start_reaper
from npubox.client.network import Network
from npubox.client.node import Opened, open_node, virtual_devices
from npubox.client.subsystem import SubsystemBackend
from npubox.compiler.placement import Placement, check_made_for, operators_placed
from npubox.compiler.vela import CompiledFile, CompileOptions, compile_with
from npubox.errors import ModelError
from npubox.formats.model import read_model
from npubox.formats.network import Network as Graph
from npubox.formats.tflite import read_network


class Device(Closable):
    """An open node. Closing it takes nothing from the networks, buffers and inferences made from it: the
    node itself closes, and a virtual machine powers down, with the last of them.

    Opened as `npubox.open` says. Raises DeviceError."""

    _kind = "device"

    def __init__(self, name: str, policy: str | None = None) -> None:
        start_reaper()
        opened = open_node(name, policy)
        try:
            self._backend = _backend(opened)
        except BaseException:
            opened.close()
            raise
        super().__init__(self._backend.uses)

    @property
    def name(self) -> str:
        """What it was opened by."""
        return self._backend.name

    @property
    def npu(self) -> NpuInfo:
        """The registers ID and CONFIG and the SRAM size, as DEV_QUERY gives them; a subsystem's SRAM is its
        firmware's, 0 bytes for its host."""
        return self._backend.info

    @property
    def accelerator(self) -> str:
        """The NPU's name as Vela takes it, e.g. `ethos-u65-256`."""
        return self._backend.info.accelerator

    @property
    def machine(self) -> Any | None:
        """The `npubox.machines.Machine` behind it, with its control channel; None on real hardware."""
        return self._backend.machine

    @property
    def virtual(self) -> bool:
        """Whether a virtual machine is behind it, which tells cycles, device time and faults."""
        return self._backend.machine is not None

    @property
    def policy(self) -> str | None:
        """What the driver refuses: what "mainline" Linux does, or as little as the "hardware"; None on
        real hardware, where it is the host's kernel."""
        return self._backend.policy

    def load(
        self,
        model: str | os.PathLike[str] | bytes,
        options: CompileOptions | None = None,
        *,
        signed: bool | None = None,
    ) -> Network:
        """Load a .tflite, or the .npz of Vela's raw output, given by path or content; Vela compiles it, as
        `options` say, unless it already has.

        `signed` says whether the 8-bit tensors of an .npz are int8, where the file does not tell. Raises
        ModelError for a network that is missing, damaged, not quantised, compiled for another NPU, or that
        Vela or the driver refuses.
        """
        self._check_open()
        source = read_model(model if isinstance(model, bytes) else Path(model), signed=signed)
        compiled = source
        if not source.compiled:
            made = read_network(self.compile(model, options).content)
            compiled = replace(made.with_edges_of(source), name=source.name)
        elif options is not None:
            raise ModelError(f"{source.name} already is compiled: leave the options for compiling out")
        for operator in compiled.operators:
            if operator.npu is not None:
                check_made_for(
                    operator.npu.stream, self.npu.config, self.npu.id, source.name, virtual_devices()
                )
        return Network(self._backend.load(compiled), _placement(source, compiled))

    def compile(
        self, model: str | os.PathLike[str] | bytes, options: CompileOptions | None = None
    ) -> CompiledFile:
        """`model` compiled by Vela for this device, from the cache where it is there. Raises ModelError."""
        chosen = options or CompileOptions()
        if self._backend.machine is not None:
            chosen = chosen.for_machine(*self._backend.vela)
        return compile_with(chosen, model if isinstance(model, bytes) else Path(model), self.accelerator)

    def dump_layers(self, directory: str | os.PathLike[str]) -> AbstractContextManager[None]:
        """While it is entered, write what each operation of the NPU stores, in order: its OFM [height,
        width, channels] as `<number>_<command>_<stream offset>.npy`, and `layers.json`, which tells of each
        its file, the number of its job on this device, command, offset, shape, dtype and zero point. The
        stream does not hold the scale. An operation may be a part of a layer: Vela cuts them into stripes.

        Raises DeviceError on real hardware, OSError where the files cannot be written.
        """
        self._check_open()
        return self._backend.dump_layers(Path(directory))

    def buffer(self, size: int) -> Buffer:
        """A buffer object of `size` bytes, e.g. to give to `Network.submit` as an arena. Raises InputError
        for a subsystem, whose firmware has an arena of its own: `npubox.ethosu` has its buffers."""
        self._check_open()
        return self._backend.buffer(size)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(
                f"{self._backend.name} was left open: close it", ResourceWarning, source=self, stacklevel=1
            )
        super().__del__()


def _backend(opened: Opened) -> Backend:
    """The client of the driver behind a node. Raises DeviceError where there is none for it."""
    if os.path.basename(opened.path).startswith("ethosu"):
        return SubsystemBackend(opened)
    return AccelBackend(opened)


def _placement(source: Graph, compiled: Graph) -> Placement:
    """Of a network that came compiled only the `ethos-u` operators themselves are known."""
    if source is not compiled:
        return operators_placed(source, compiled)
    npu = tuple(operator.name for operator in compiled.operators if operator.npu is not None)
    return Placement(npu, tuple(operator.name for operator in compiled.operators if operator.npu is None))
