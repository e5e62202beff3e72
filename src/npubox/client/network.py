# SPDX-License-Identifier: Apache-2.0
"""A network loaded on a device, and the session in which one with state runs in order."""

from __future__ import annotations

import threading

import numpy.typing as npt

from npubox.client.backend import LoadedNetwork
from npubox.client.buffers import Buffer
from npubox.client.inference import Inference, Outputs, unpack
from npubox.client.lifetime import Closable, Uses
from npubox.client.tensors import TensorInfo, accept_all
from npubox.compiler.placement import Placement
from npubox.errors import InputError


class Network(Closable):
    """A network whose constants and command streams are on the device. It lives while it is open or an
    inference of it runs, and serves many inferences at once, from many threads.

    `inputs` and `outputs` describe the tensors in the network's order; `placement` says which operators
    run on the NPU and which on the CPU; `arena_size` is in bytes; `generator` is Vela's back end that made
    the command streams, "Regor" or "legacy", None where there are none.
    """

    _kind = "network"

    def __init__(self, program: LoadedNetwork, placement: Placement) -> None:
        self.inputs = tuple(map(TensorInfo.of, program.inputs))
        self.outputs = tuple(map(TensorInfo.of, program.outputs))
        self.placement = placement
        self.arena_size = program.graph.arena_size
        self.generator = program.generator
        self.stateful = program.stateful
        self._program = program
        self._session: Session | None = None
        self._session_lock = threading.Lock()
        super().__init__(program.uses)

    @property
    def stand_in_kernels(self) -> tuple[tuple[str, str], ...]:
        """CPU operators that ran on others than LiteRT's reference kernels, as those lack them or corrupt
        memory: the operator's name, and whose kernel it was."""
        return self._program.stand_in_kernels

    def __call__(self, *inputs: npt.ArrayLike) -> Outputs:
        """Run once and wait: one array an input; gives one array, or a tuple where there are several outputs.

        Integer arrays are taken as they are and must have the input's dtype; float arrays are quantised
        with its scale and zero point. A network with state runs in its default session. Raises InputError
        for what does not fit, JobFailed when the NPU does not finish.
        """
        with self.submit(*inputs) as inference:
            return unpack(inference.outputs)

    def submit(self, *inputs: npt.ArrayLike, arena: Buffer | None = None) -> Inference:
        """Start one inference. It works in an arena of its own, or in `arena` where one is given (at
        least `arena_size` bytes, which nothing else runs in). Raises InputError for what does not fit."""
        self._check_open()
        values = accept_all(self.inputs, inputs)
        if self.stateful:
            if arena is not None:
                raise InputError(
                    "this network has state, which lives in its session's arena: leave `arena` out"
                )
            return self._default_session().submit(*inputs)
        return Inference(self._program.start(values, arena))

    def session(self) -> Session:
        """A new session: an arena of its own in which inferences run in order and state persists. Raises
        InputError where the device keeps no state."""
        self._check_open()
        return Session(self._program, self.inputs)

    def _default_session(self) -> Session:
        with self._session_lock:
            if self._session is None:
                self._session = self.session()
            return self._session

    def _release(self) -> None:
        with self._session_lock:
            if self._session is not None:
                self._session.close()
        super()._release()


class Session(Closable):
    """Inferences of one network in order, in one arena, so that its state tensors persist between them."""

    _kind = "session"

    def __init__(self, program: LoadedNetwork, inputs: tuple[TensorInfo, ...]) -> None:
        self._inputs = inputs
        self._state = program.new_state()
        super().__init__(Uses(self._state.free))

    def __call__(self, *inputs: npt.ArrayLike) -> Outputs:
        """As calling the network does. Raises InputError and JobFailed as that does."""
        with self.submit(*inputs) as inference:
            return unpack(inference.outputs)

    def submit(self, *inputs: npt.ArrayLike) -> Inference:
        """Wait for the session's earlier inference, then start this one. Raises NpuboxError when the
        earlier one failed, as its state is lost: `reset()`."""
        self._check_open()
        return Inference(self._state.submit(accept_all(self._inputs, inputs)))

    def reset(self) -> None:
        """Wait for the session's last inference, then start its state afresh."""
        self._check_open()
        self._state.reset()
