# SPDX-License-Identifier: Apache-2.0
"""The networks that tests use: the shared ones, tiny ones built here, and what Vela makes of them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npubox.compiler.vela import compile_network
from npubox.formats.network import Network
from npubox.formats.tflite import read_network

SHARED = Path(os.environ.get("NPUBOX_SHARED") or Path(__file__).parents[2] / "shared")
MODELS = SHARED / "models"
SHARED_NAMES = (
    "hello_world_int8",
    "kws_dscnn_int8",
    "ic_resnet8_int8",
    "person_detect",
    "trained_lstm_int8",
    "coral_tf2_mobilenet_v2_1.0_224_ptq",
)


def shared_network(name: str) -> Path:
    """A network of the shared folder; the test is skipped where the folder is absent."""
    path = MODELS / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"needs {path.name} of the shared models (NPUBOX_SHARED)")
    return path


@functools.cache
def compiled_by_vela(content: bytes, accelerator: str, *extra: str) -> Network:
    """The network as Vela compiles it; each variant once a test run, nothing kept on disk."""
    return read_network(compile_network(content, accelerator, extra=extra, cache=False).content)


def raw_file(directory: Path, content: bytes, accelerator: str, *extra: str) -> Path:
    """The .npz of Vela's raw output, in `directory`, which holds no other."""
    (directory / "n.tflite").write_bytes(content)
    command = [sys.executable, "-P", "-m", "ethosu.vela", str(directory / "n.tflite"), *extra]
    command += ["--accelerator-config", accelerator, "--output-format", "raw", "--output-dir", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = directory.glob("*.npz")
    return path


def unpacked(content: bytes) -> Any:
    """The file as LiteRT's ModelT object, to be changed and packed again."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def packed(model: Any) -> bytes:
    import flatbuffers  # type: ignore[import-untyped]

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def fully_connected(dtype: type[np.generic] = np.int8) -> bytes:
    """A .tflite of one FULLY_CONNECTED, 8 inputs and 4 outputs, int8 or float32."""
    from ai_edge_litert import schema_py_generated as schema

    integer = dtype is np.int8
    rng = np.random.default_rng(1)
    types = schema.TensorType
    kind, bias_kind = (types.INT8, types.INT32) if integer else (types.FLOAT32, types.FLOAT32)
    weights = rng.integers(-127, 128, (4, 8)).astype(dtype)
    bias = rng.integers(-1000, 1000, 4).astype(np.int32 if integer else dtype)

    def buffer(data: Any = None) -> Any:
        made = schema.BufferT()
        made.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
        return made

    def tensor(name: str, shape: tuple[int, ...], type_: int, scale: float, buffer_index: int = 0) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), type_, buffer_index
        if integer:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
        return made

    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", (1, 8), kind, 0.05),
        tensor("weights", (4, 8), kind, 0.01, 1),
        tensor("bias", (4,), bias_kind, 0.05 * 0.01, 2),
        tensor("y", (1, 4), kind, 0.1),
    ]
    graph.inputs, graph.outputs = [0], [3]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if integer else 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(), buffer(weights), buffer(bias)]
    return packed(model)


def float_output() -> bytes:
    """The same int8 FULLY_CONNECTED with a DEQUANTIZE behind it, which Vela leaves to the CPU."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(fully_connected())
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    model.operatorCodes.append(code)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "float", [1, 4], schema.TensorType.FLOAT32, 0
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 1, [3], [4]
    (graph,) = model.subgraphs
    graph.tensors.append(tensor)
    graph.operators.append(operator)
    graph.outputs = [4]
    return packed(model)
