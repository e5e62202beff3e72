# SPDX-License-Identifier: Apache-2.0
"""The reference kernels that small networks are compared with, each under the name that reports give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.corpus.apart import apart
from tests.networks import packed, unpacked

Array = npt.NDArray[Any]

TFLITE_MICRO = "tflite-micro"
LITERT_REF = "LiteRT BUILTIN_REF"
LITERT_OPTIMISED = "LiteRT builtin optimised"
LITERT_XNNPACK = "LiteRT XNNPACK"
SHIFTED = "tflite-micro, all uint8 shifted by 128 to int8"
PLAIN = "plain interpreter"  # tests/plain on the same stream: no reference kernel is right

MICRO_ARENA_BYTES = 4 << 20


def outputs(oracle: str, content: bytes, vectors: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """The outputs for each vector of inputs, from fresh state. Raises what the oracle raises, or Died."""
    made: list[list[Array]] = apart(ORACLES[oracle], content, [list(vector) for vector in vectors])
    return made


def _tflite_micro(content: bytes, vectors: list[list[Array]]) -> list[list[Array]]:
    from tflite_micro.python.tflite_micro import runtime

    from npubox.formats.tflite import read_network

    count = len(read_network(content).outputs)
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=MICRO_ARENA_BYTES)
    made = []
    for vector in vectors:
        interpreter.reset()
        for index, array in enumerate(vector):
            interpreter.set_input(array, index)
        interpreter.invoke()
        made.append([np.array(interpreter.get_output(index)) for index in range(count)])
    return made


def _shifted(content: bytes, vectors: list[list[Array]]) -> list[list[Array]]:
    """uint8 arithmetic is int8 arithmetic with every zero point and every value 128 less."""
    shifted = [[_signed(array) for array in vector] for vector in vectors]
    answers = _tflite_micro(_signed_network(content), shifted)
    return [[(array.view(np.uint8) ^ 0x80) for array in answer] for answer in answers]


def _signed(array: Array) -> Array:
    return (array ^ 0x80).view(np.int8)


def _signed_network(content: bytes) -> bytes:
    from ai_edge_litert.schema_py_generated import TensorType

    model = unpacked(content)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == TensorType.UINT8:
            tensor.type = TensorType.INT8
            tensor.quantization.zeroPoint = [zero - 128 for zero in tensor.quantization.zeroPoint]
            if tensor.buffer:
                buffer = model.buffers[tensor.buffer]
                buffer.data = _signed(np.asarray(buffer.data, np.uint8)).view(np.uint8)
    return packed(model)


def _litert(resolver: str) -> Callable[[bytes, list[list[Array]]], list[list[Array]]]:
    def run(content: bytes, vectors: list[list[Array]]) -> list[list[Array]]:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=getattr(OpResolverType, resolver),
            num_threads=1,
        )
        interpreter.allocate_tensors()
        made = []
        for vector in vectors:
            interpreter.reset_all_variables()
            for detail, array in zip(interpreter.get_input_details(), vector, strict=True):
                interpreter.set_tensor(detail["index"], array)
            interpreter.invoke()
            made.append(
                [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
            )
        return made

    return run


def _litert_ref(content: bytes, vectors: list[list[Array]]) -> list[list[Array]]:
    return _litert("BUILTIN_REF")(content, vectors)


def _litert_optimised(content: bytes, vectors: list[list[Array]]) -> list[list[Array]]:
    return _litert("BUILTIN_WITHOUT_DEFAULT_DELEGATES")(content, vectors)


def _litert_xnnpack(content: bytes, vectors: list[list[Array]]) -> list[list[Array]]:
    return _litert("AUTO")(content, vectors)


ORACLES: dict[str, Callable[[bytes, list[list[Array]]], list[list[Array]]]] = {
    TFLITE_MICRO: _tflite_micro,
    SHIFTED: _shifted,
    LITERT_REF: _litert_ref,
    LITERT_OPTIMISED: _litert_optimised,
    LITERT_XNNPACK: _litert_xnnpack,
}
