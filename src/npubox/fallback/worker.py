# SPDX-License-Identifier: Apache-2.0
"""The process in which kernels of CPU operators run: those of LiteRT and tflite-micro take a process down on
some valid networks, and must not take down the one that asked.

`python -P -m npubox.fallback.worker <channel> <memory>`: file descriptors of a socket, over which every
message is its length and JSON, and of a memfd, in which lie the arrays and, while it is loaded, the .tflite
of an operator. It ends when its stdin or its socket does, at once in either case: nobody needs its result.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from npubox.fallback.oracles import LITERT_OPTIMISED, LITERT_REF, TFLITE_MICRO

Array = npt.NDArray[Any]

MICRO_ARENA_BYTES = 1 << 20  # and 16 times the arrays: they, their copies, scratch of 64-bit sums
NOT_THERE = ("Didn't find op for builtin opcode", "unresolved custom op", "Failed to get registration")
"""What the two say of an operator, or a version of it, that they lack."""


@dataclass(frozen=True)
class Slot:
    """Where an array lies in the memory, and which tensor of the operator's .tflite it is."""

    position: int
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def view(self, memory: mmap.mmap) -> Array:
        return np.ndarray(self.shape, self.dtype, memory, self.offset)


class Runner(Protocol):
    def __call__(self, given: Sequence[Array], made: Sequence[Array]) -> None:
        """Run once. Raises RuntimeError and ValueError with the runtime's own words."""


class LiteRt:
    """Variables are tensors that can be set and read, as any other. It does not copy `content`."""

    def __init__(self, resolver: str, content: bytes, given: Sequence[Slot], made: Sequence[Slot]) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._content = content
        self._given, self._made = given, made
        self._interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=getattr(OpResolverType, resolver),
            num_threads=1,
        )
        self._interpreter.allocate_tensors()

    def __call__(self, given: Sequence[Array], made: Sequence[Array]) -> None:
        for slot, array in zip(self._given, given, strict=True):
            self._interpreter.set_tensor(slot.position, array)
        self._interpreter.invoke()
        for slot, array in zip(self._made, made, strict=True):
            _store(self._interpreter.tensor(slot.position)(), array)


class TfliteMicro:
    """The .tflite is one with `copy_state`: variables are inputs and outputs. What is wrong it prints."""

    def __init__(self, content: bytes, given: Sequence[Slot], made: Sequence[Slot]) -> None:
        from tflite_micro.python.tflite_micro import runtime

        self._content = content
        arrays = sum(slot.nbytes for slot in (*given, *made))
        try:
            self._interpreter = runtime.Interpreter.from_bytes(
                content, arena_size=MICRO_ARENA_BYTES + 16 * arrays
            )
        except RuntimeError as error:
            raise RuntimeError(_printed() or str(error)) from error

    def __call__(self, given: Sequence[Array], made: Sequence[Array]) -> None:
        for index, array in enumerate(given):
            self._interpreter.set_input(array, index)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise RuntimeError(_printed() or str(error)) from error
        for index, array in enumerate(made):
            _store(self._interpreter.get_output(index), array)


RUNNERS: dict[str, Callable[[bytes, Sequence[Slot], Sequence[Slot]], Runner]] = {
    LITERT_REF: partial(LiteRt, "BUILTIN_REF"),
    LITERT_OPTIMISED: partial(LiteRt, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
    TFLITE_MICRO: TfliteMicro,
}


def load_request(
    key: int, kernels: str, size: int, content: int, given: Sequence[Slot], made: Sequence[Slot]
) -> dict[str, Any]:
    """Load the .tflite that is the first `content` bytes of the memory, now of `size` bytes, as `key`."""
    slots = {"given": [astuple(slot) for slot in given], "made": [astuple(slot) for slot in made]}
    return {"load": key, "kernels": kernels, "size": size, "content": content, **slots}


def run_request(key: int) -> dict[str, Any]:
    """Run what was loaded as `key` on the arrays in their slots."""
    return {"run": key}


class Worker:
    """What the process knows: the operators loaded so far."""

    def __init__(self, memory: int) -> None:
        self._file = memory
        self._memory = mmap.mmap(-1, 1)
        self._loaded: dict[int, Callable[[], None]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """{} when done, else why not: `error` is what the runtime said, `missing` that it has no kernel."""
        os.ftruncate(sys.stderr.fileno(), 0)
        try:
            if "load" in request:
                self._load(**request)
            else:
                self._loaded[request["run"]]()
        except (RuntimeError, ValueError) as error:
            return {
                "error": _reason(str(error)),
                "missing": any(text in str(error) for text in NOT_THERE),
            }
        return {}

    def _load(
        self,
        load: int,
        kernels: str,
        size: int,
        content: int,
        given: list[list[Any]],
        made: list[list[Any]],
    ) -> None:
        if size > len(self._memory):
            self._memory = mmap.mmap(self._file, size)  # arrays in the one before see the same bytes
        inputs, outputs = [Slot(*slot) for slot in given], [Slot(*slot) for slot in made]
        runner = RUNNERS[kernels](self._memory[:content], inputs, outputs)
        self._loaded[load] = partial(
            runner,
            [slot.view(self._memory) for slot in inputs],
            [slot.view(self._memory) for slot in outputs],
        )


def _store(result: Array, array: Array) -> None:
    """Shapes may differ in their axes of 1, where Vela made other ones of them around the operator."""
    if result.squeeze().shape != array.squeeze().shape or result.dtype != array.dtype:
        raise ValueError(
            f"its result is {result.dtype} {list(result.shape)}, which the network has as {array.dtype}"
            f" {list(array.shape)}"
        )
    array[...] = result.reshape(array.shape)


def _printed() -> str:
    """What the runtimes printed: stdout and stderr are one file."""
    return os.pread(sys.stderr.fileno(), 1 << 16, 0).decode("utf-8", "replace")


def _reason(text: str) -> str:
    """The first line, without the node number that LiteRT runs into it: there is only one."""
    lines = (line.partition("Node number")[0].strip().rstrip(".") for line in text.splitlines())
    return next((line for line in lines if line), "nothing")


def _end_with_stdin() -> None:
    """End by SIGIO, inside a kernel too, when the other end of the pipe closes; nobody writes to it."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    stdin = sys.stdin.fileno()
    fcntl.fcntl(stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(stdin, fcntl.F_SETFL, fcntl.fcntl(stdin, fcntl.F_GETFL) | os.O_ASYNC)


def _main(channel: Connection, worker: Worker) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt in a terminal goes to all; ours decides
    _end_with_stdin()
    channel.send_bytes(json.dumps({}).encode())
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except EOFError:
            return
        channel.send_bytes(json.dumps(worker.answer(request)).encode())


if __name__ == "__main__":
    _main(Connection(int(sys.argv[1])), Worker(int(sys.argv[2])))
