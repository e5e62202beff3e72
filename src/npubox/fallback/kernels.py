# SPDX-License-Identifier: Apache-2.0
"""Run the operators that a compiler left to the CPU, on LiteRT's reference kernels.

Its BUILTIN_REF resolver lacks a few versions of operators that its optimised one has (DEPTH_TO_SPACE 2,
TILE 3): those run on the optimised kernels, and `Kernels.optimised` names them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.errors import InputError, ModelError
from npubox.fallback.single import SingleOperator, single_operator
from npubox.formats.network import Network, Operator, Tensor

Array = npt.NDArray[Any]

NOT_THERE = "Didn't find op for builtin opcode"  # LiteRT, of a resolver without the operator's version


@dataclass
class _Loaded:
    """An interpreter runs one inference at a time, hence the lock."""

    single: SingleOperator
    interpreter: Any
    optimised: str | None  # the operator's name, where it runs on the optimised kernels
    lock: threading.Lock = field(default_factory=threading.Lock)


class Kernels:
    """Kernels for the CPU operators of one network; each is loaded at its first run and kept.

    Safe to use from several threads. Nothing persists between runs: state comes in and goes out.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._loaded: dict[int, _Loaded] = {}
        self._lock = threading.Lock()

    @property
    def optimised(self) -> tuple[str, ...]:
        """The names of those loaded so far of which LiteRT has no reference kernel, but an optimised one."""
        with self._lock:
            names = (loaded.optimised for _, loaded in sorted(self._loaded.items()))
            return tuple(name for name in names if name is not None)

    def run(self, operator: Operator, arrays: Mapping[int, Array]) -> dict[int, Array]:
        """Run one operator.

        `arrays` holds, by the network's tensor index, every input that is not constant, and the state
        tensors it reads, each of that tensor's shape and dtype. Returns the outputs and the new state by
        tensor index. Raises `InputError` for a missing or wrong array and `ModelError` where LiteRT has
        no kernel for the operator.
        """
        loaded = self._load(operator)
        single, interpreter = loaded.single, loaded.interpreter
        given = {index: self._array(operator, index, arrays) for index in (*single.inputs, *single.variables)}
        with loaded.lock:
            for index, array in given.items():
                interpreter.set_tensor(single.position[index], array)
            try:
                interpreter.invoke()
            except (RuntimeError, ValueError) as error:
                raise ModelError(f"LiteRT failed in {_described(operator)}: {error}") from error
            results = (*single.outputs, *single.variables)
            return {index: interpreter.get_tensor(single.position[index]) for index in results}

    def _load(self, operator: Operator) -> _Loaded:
        with self._lock:
            if operator.index not in self._loaded:
                single = single_operator(self._network, operator)
                interpreter, reference = _interpreter(operator, single.content)
                name = None if reference else operator.name
                self._loaded[operator.index] = _Loaded(single, interpreter, name)
            return self._loaded[operator.index]

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
        return np.ascontiguousarray(array)


def _interpreter(operator: Operator, content: bytes) -> tuple[Any, bool]:
    """LiteRT with the operator loaded, and whether its kernel is a reference kernel."""
    from ai_edge_litert.interpreter import OpResolverType

    try:
        return _loaded_with(OpResolverType.BUILTIN_REF, content), True
    except (RuntimeError, ValueError) as error:
        if NOT_THERE not in str(error):
            raise _no_kernel(operator, error) from error
    try:
        return _loaded_with(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, content), False
    except (RuntimeError, ValueError) as error:
        raise _no_kernel(operator, error) from error


def _loaded_with(resolver: Any, content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _no_kernel(operator: Operator, error: Exception) -> ModelError:
    return ModelError(f"LiteRT has no kernel for {_described(operator)}: {error}")


def _described(operator: Operator) -> str:
    return f"CPU operator {operator.index} ({operator.name})"
