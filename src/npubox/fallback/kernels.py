# SPDX-License-Identifier: Apache-2.0
"""Run the operators that a compiler left to the CPU, on the kernels of LiteRT and tflite-micro.

LiteRT's reference kernels come first. They lack a few versions of operators that its optimised ones have
(DEPTH_TO_SPACE 2, TILE 3), and some that tflite-micro has: `Kernels.stand_ins` names what ran on another.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from npubox.errors import InputError, ModelError
from npubox.fallback.oracles import LITERT_OPTIMISED, LITERT_REF, TFLITE_MICRO, installed
from npubox.fallback.process import CrashError, Process
from npubox.fallback.single import SingleOperator, single_operator
from npubox.fallback.worker import Slot, load_request, run_request
from npubox.formats.network import Network, Operator, Tensor

Array = npt.NDArray[Any]

ORDER = (LITERT_REF, LITERT_OPTIMISED, TFLITE_MICRO)
SVDF_ORDER = {"int8": (TFLITE_MICRO,), "int16": (TFLITE_MICRO, LITERT_REF, LITERT_OPTIMISED)}
"""By the dtype of an SVDF's state. LiteRT's kernels (2.3.0, all of them) take int8 state for int16 and write
beyond it; with int16 state they run it with RELU alone."""

ALIGNMENT = 64


@dataclass(frozen=True)
class _Loaded:
    """The arrays, by the network's tensor index, that the worker's kernel reads and writes."""

    kernels: str
    given: dict[int, Array]
    made: dict[int, Array]


class Kernels:
    """Kernels for the CPU operators of one network, in a process of their own that starts with the first
    run: they crash on some valid networks. Each is loaded at its first run and kept.

    Safe to use from several threads; runs are one after another. Nothing persists between them: state comes
    in and goes out. The process ends with `close`, and with this object.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._process: Process | None = None
        self._loaded: dict[int, _Loaded] = {}
        self._stand_ins: dict[int, tuple[str, str]] = {}
        self._lock = threading.Lock()

    @property
    def stand_ins(self) -> tuple[tuple[str, str], ...]:
        """The operators loaded so far that run on others than LiteRT's reference kernels, in their order:
        the name, and whose kernel it is."""
        with self._lock:
            return tuple(stand_in for _, stand_in in sorted(self._stand_ins.items()))

    def run(self, operator: Operator, arrays: Mapping[int, Array]) -> dict[int, Array]:
        """Run one operator.

        `arrays` holds, by the network's tensor index, every input that is not constant, and the state
        tensors it reads, each of that tensor's shape and dtype. Returns the outputs and the new state by
        tensor index. Raises `InputError` for a missing or wrong array and `ModelError` where there is no
        kernel for the operator, or its kernel fails or crashes.
        """
        with self._lock:
            process = self._running()
            try:
                loaded = self._loaded.get(operator.index) or self._load(process, operator)
                for index, array in loaded.given.items():
                    array[...] = self._array(operator, index, arrays)
                answer = process.ask(run_request(operator.index))
            except CrashError as error:
                raise ModelError(
                    f"the kernel of {_described(operator)} crashed ({error}), in a process of its own:"
                    " replace that operator in the network, or change its options"
                ) from error
            if answer:
                raise ModelError(
                    f"{loaded.kernels} failed in {_described(operator)} ({answer['error']}): check the values"
                    " it is given, or replace it in the network"
                )
            return {index: array.copy() for index, array in loaded.made.items()}

    def interrupt(self) -> None:
        """Have the run in progress, if any, fail as if its kernel had crashed. Does not wait for it."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process; another run would start one anew."""
        with self._lock:
            if self._process is not None:
                self._process.end()
            self._process = None
            self._loaded.clear()

    def _running(self) -> Process:
        if self._process is None or not self._process.alive:
            self._loaded.clear()
            if self._process is not None:
                self._process.end()
            self._process = Process()
        return self._process

    def _load(self, process: Process, operator: Operator) -> _Loaded:
        refusals: dict[str, dict[str, Any]] = {}
        for kernels in _order(self._network, operator):
            single = single_operator(self._network, operator, copy_state=kernels == TFLITE_MICRO)
            given, size = self._slots(single, (*single.inputs, *single.variables), 0)
            made, size = self._slots(single, (*single.outputs, *single.variables), size)
            memory = process.memory(max(size, len(single.content)))
            memory[: len(single.content)] = single.content
            answer = process.ask(
                load_request(
                    operator.index,
                    kernels,
                    len(memory),
                    len(single.content),
                    list(given.values()),
                    list(made.values()),
                )
            )
            if not answer:
                self._loaded[operator.index] = _Loaded(kernels, _views(given, memory), _views(made, memory))
                if kernels != LITERT_REF:
                    self._stand_ins[operator.index] = operator.name, kernels
                return self._loaded[operator.index]
            refusals[kernels] = answer
        raise _refused(operator, refusals)

    def _slots(
        self, single: SingleOperator, indices: Sequence[int], start: int
    ) -> tuple[dict[int, Slot], int]:
        """A slot a tensor, one behind the other from `start`, and the end of the last."""
        slots: dict[int, Slot] = {}
        for index in indices:
            tensor = self._network.tensors[index]
            slots[index] = Slot(single.position[index], tensor.shape, tensor.dtype.str, start)
            start += -(-max(tensor.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        return slots, start

    def _array(self, operator: Operator, index: int, arrays: Mapping[int, Array]) -> Array:
        tensor: Tensor = self._network.tensors[index]
        array = arrays.get(index)
        if array is None:
            raise InputError(f"{_described(operator)} lacks its input {tensor.name}")
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise InputError(
                f"{_described(operator)} takes {tensor.name} as {tensor.dtype} {list(tensor.shape)},"
                f" not {array.dtype} {list(array.shape)}"
            )
        return array


def _order(network: Network, operator: Operator) -> tuple[str, ...]:
    """The kernels to ask, in this order. Raises ModelError where there are none."""
    known: tuple[str, ...] = ORDER
    if operator.name == "SVDF":
        states = (network.tensors[index] for index in operator.inputs if index >= 0)
        dtypes = [tensor.dtype.name for tensor in states if tensor.is_variable]
        known = SVDF_ORDER.get(dtypes[0], ORDER) if dtypes else ORDER
    order = tuple(kernels for kernels in known if installed(kernels))
    if not order:
        raise ModelError(
            f"LiteRT's kernel of {_described(operator)} corrupts memory where the state is int8: install"
            " tflite-micro, which has another"
        )
    return order


def _views(slots: Mapping[int, Slot], memory: mmap.mmap) -> dict[int, Array]:
    return {index: slot.view(memory) for index, slot in slots.items()}


def _refused(operator: Operator, refusals: Mapping[str, dict[str, Any]]) -> ModelError:
    """Names the first that has a kernel and refuses the operator, if any has."""
    for kernels, answer in refusals.items():
        if not answer["missing"]:
            return ModelError(
                f"{kernels} refuses {_described(operator)} ({answer['error']}): replace that operator in the"
                " network, or change its options"
            )
    micro = "nor has tflite-micro" if TFLITE_MICRO in refusals else "and tflite-micro is not installed"
    return ModelError(
        f"LiteRT has no kernel for {_described(operator)}, {micro}: leave it out of the network, and compute"
        " it in your program"
    )


def _described(operator: Operator) -> str:
    return f"CPU operator {operator.index} ({operator.name})"
