# SPDX-License-Identifier: Apache-2.0
"""Read a .tflite, compiled by Vela or not, into a `Network`.

The schema is the `tflite` package's. FlatBuffers' Python reader neither bounds its loops nor notices
offsets that point before the file, so every table is checked before it is read (`_checked`), and what
still goes wrong inside the reader becomes one `ModelError` (`read_network`). Source of what Vela writes:
the project's facts, ethosu-npu.md §1.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite

from npubox.errors import ModelError
from npubox.formats import detection
from npubox.formats.network import Network, NpuOperator, Operator, Quantization, Tensor
from npubox.formats.payload import parse_payload

ETHOS_U = "ethos-u"
OFFLINE_PLAN = b"OfflineMemoryAllocation"
OFFLINE_PLAN_HEADER = 3  # int32: version, subgraphs, number of tensors
IDENTIFIER = slice(4, 8)
MAX_TENSOR_BYTES = 1 << 32
MAX_RANK = 8

DTYPES: dict[int, np.dtype[Any]] = {
    tflite.TensorType.FLOAT32: np.dtype(np.float32),
    tflite.TensorType.FLOAT16: np.dtype(np.float16),
    tflite.TensorType.FLOAT64: np.dtype(np.float64),
    tflite.TensorType.BOOL: np.dtype(np.bool_),
    tflite.TensorType.INT8: np.dtype(np.int8),
    tflite.TensorType.INT16: np.dtype(np.int16),
    tflite.TensorType.INT32: np.dtype(np.int32),
    tflite.TensorType.INT64: np.dtype(np.int64),
    tflite.TensorType.UINT8: np.dtype(np.uint8),
    tflite.TensorType.UINT16: np.dtype(np.uint16),
    tflite.TensorType.UINT32: np.dtype(np.uint32),
    tflite.TensorType.UINT64: np.dtype(np.uint64),
}
TYPE_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.TensorType).items() if name.isupper()
}
BUILTIN_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if name.isupper()
}


def read_network(source: Path | str | bytes) -> Network:
    """Read a .tflite from a path, or from its bytes.

    Constants are read-only uint8 views into `Network.content`. Raises `ModelError` for a missing file,
    something else than a .tflite, a damaged one, and what npubox does not take: several subgraphs,
    sparse tensors, tensor types without a numpy dtype.
    """
    name, content = _load(source)
    if content[IDENTIFIER] != b"TFL3":
        raise ModelError(f"{name} is not a .tflite file: export the network with TensorFlow Lite's converter")
    try:
        return _network(name, content)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except (struct.error, LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise ModelError(f"{name} is damaged ({error}): export or download it again") from error


def without_offline_plan(content: bytes) -> bytes:
    """The file with its offline memory plan, if any, under a name that nobody looks for.

    Vela 5.2 takes a plan over from its source in place of its own, for tensors that are no longer there.
    """
    prefix = struct.pack("<I", len(OFFLINE_PLAN))
    return content.replace(prefix + OFFLINE_PLAN, prefix + OFFLINE_PLAN[::-1])


def require_quantized(network: Network) -> None:
    """Raise `ModelError` when nothing in the network computes in quantised integers."""
    if network.compiled:
        return
    produced = [network.tensors[index] for operator in network.operators for index in operator.outputs]
    if any(tensor.dtype.kind in "iu" and tensor.quantization is not None for tensor in produced):
        return
    if any(tensor.dtype.kind == "f" for tensor in produced):
        raise ModelError(
            f"{network.name} is a float network; quantise it to int8 first"
            " (TensorFlow Lite's converter does, given a representative dataset)"
        )


def _load(source: Path | str | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "the network", source
    path = Path(source)
    try:
        return str(path), path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _network(name: str, content: bytes) -> Network:
    model = _checked(tflite.Model.GetRootAs(content, 0))
    subgraphs = _tables(model, "Subgraphs")
    if len(subgraphs) != 1:
        raise ModelError(
            f"it has {len(subgraphs)} subgraphs; npubox runs networks of one, without IF or WHILE"
        )
    graph = subgraphs[0]
    buffers = [_buffer_data(buffer, content) for buffer in _tables(model, "Buffers")]
    tables = _tables(graph, "Tensors")
    offsets = _offline_plan(model, buffers, len(tables))
    tensors = tuple(_tensor(i, table, buffers, offsets[i]) for i, table in enumerate(tables))
    names = [_operator_name(code) for code in _tables(model, "OperatorCodes")]
    operator_tables = _tables(graph, "Operators")
    operators = tuple(_operator(i, table, names, tensors) for i, table in enumerate(operator_tables))
    return Network(
        tensors=_with_detections(tensors, operators, operator_tables),
        operators=operators,
        inputs=_indices(graph, "Inputs", tensors),
        outputs=_indices(graph, "Outputs", tensors),
        arena_size=_arena_size(tensors, operators),
        content=content,
        name=name,
        description=_text(model.Description()),
    )


def _checked(table: Any) -> Any:
    """The table, once its vtable and its fields are known to lie inside the file."""
    content, position = table._tab.Bytes, table._tab.Pos
    vtable = position - struct.unpack_from("<i", content, position)[0]
    if vtable < 0:
        raise ValueError("a table points before the file")
    vtable_size, table_size = struct.unpack_from("<HH", content, vtable)
    fields = struct.unpack_from(f"<{max(vtable_size - 4, 0) // 2}H", content, vtable + 4)
    if (
        vtable_size < 4
        or position + table_size > len(content)
        or max(fields, default=0) >= max(table_size, 1)
    ):
        raise ValueError("a table reaches beyond the file")
    return table


def _tables(parent: Any, field: str) -> list[Any]:
    count = getattr(parent, f"{field}Length")()
    if count * 4 > len(parent._tab.Bytes):
        raise ValueError(f"{field} counts more entries than the file can hold")
    return [_checked(getattr(parent, field)(index)) for index in range(count)]


def _vector(parent: Any, field: str) -> npt.NDArray[Any]:
    """A vector of numbers; numpy checks its bounds, absent ones are empty."""
    vector = getattr(parent, f"{field}AsNumpy")()
    return vector if isinstance(vector, np.ndarray) else np.empty(0, np.uint8)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _quoted(name: str) -> str:
    """A name for a message: in a damaged file it may be long and hold anything."""
    return ascii(name if len(name) <= 60 else f"{name[:57]}...")


def _buffer_data(buffer: Any, content: bytes) -> npt.NDArray[np.uint8] | None:
    offset, size = buffer.Offset(), buffer.Size()
    if offset > 1:  # files above 2 GB keep the data behind the flatbuffer
        return np.frombuffer(content, np.uint8, size, offset)
    data = _vector(buffer, "Data")
    return data if data.size else None


def _offline_plan(model: Any, buffers: list[npt.NDArray[np.uint8] | None], tensors: int) -> list[int | None]:
    for metadata in _tables(model, "Metadata"):
        if metadata.Name() != OFFLINE_PLAN:
            continue
        data = buffers[metadata.Buffer()]
        words = [] if data is None else np.frombuffer(data.tobytes(), "<i4").tolist()
        if len(words) != OFFLINE_PLAN_HEADER + tensors or words[2] != tensors:
            raise ModelError("its offline memory plan does not match its tensors: compile it again")
        return [offset if offset >= 0 else None for offset in words[OFFLINE_PLAN_HEADER:]]
    return [None] * tensors


def _tensor(
    index: int, table: Any, buffers: list[npt.NDArray[np.uint8] | None], offset: int | None
) -> Tensor:
    name = _text(table.Name())
    dtype = DTYPES.get(table.Type())
    if dtype is None:
        kind = TYPE_NAMES.get(table.Type(), f"number {table.Type()}")
        raise ModelError(f"tensor {index} ({_quoted(name)}) is of type {kind}, which npubox does not take")
    if table.Sparsity() is not None:
        raise ModelError(f"tensor {index} ({_quoted(name)}) is sparse, which npubox does not take")
    shape = tuple(_vector(table, "Shape").tolist())
    if len(shape) > MAX_RANK:
        raise ValueError(f"tensor {index} has {len(shape)} dimensions")
    nbytes = math.prod(shape) * dtype.itemsize
    if any(size < 0 for size in shape) or nbytes > MAX_TENSOR_BYTES:
        raise ValueError(f"tensor {index} has the shape {shape}")
    data = buffers[table.Buffer()]
    if data is not None and data.size != nbytes:
        raise ValueError(f"tensor {index} has {data.size} bytes of data for a shape of {nbytes}")
    quantization = _quantization(table.Quantization(), shape)
    return Tensor(index, name, shape, dtype, quantization, data, offset, bool(table.IsVariable()))


def _quantization(table: Any, shape: tuple[int, ...]) -> Quantization | None:
    if table is None:
        return None
    _checked(table)
    scales = tuple(_vector(table, "Scale").tolist())
    if not scales:
        return None
    zero_points = tuple(_vector(table, "ZeroPoint").tolist()) or (0,) * len(scales)
    axis = table.QuantizedDimension()
    if len(zero_points) != len(scales):
        raise ValueError(f"{len(scales)} scales come with {len(zero_points)} zero points")
    # Not compared with shape[axis]: old converters wrote the axis of the weights on biases too.
    if len(scales) > 1 and len(scales) not in shape:
        raise ValueError(f"{len(scales)} scales do not fit the shape {shape}")
    return Quantization(scales, zero_points, axis)


def _operator_name(code: Any) -> str:
    # Files from before the schema had more than 127 builtins fill the older field alone.
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if builtin not in BUILTIN_NAMES:
        raise ModelError(f"it uses builtin operator {builtin}, which is unknown")
    if builtin == tflite.BuiltinOperator.CUSTOM:
        return _text(code.CustomCode())
    return BUILTIN_NAMES[builtin]


def _operator(index: int, table: Any, names: list[str], tensors: tuple[Tensor, ...]) -> Operator:
    name = names[table.OpcodeIndex()]
    inputs = _indices(table, "Inputs", tensors, optional=True)
    outputs = _indices(table, "Outputs", tensors)
    npu = _npu_operator(inputs, tensors) if name == ETHOS_U else None
    return Operator(index, name, inputs, outputs, npu)


def _with_detections(
    tensors: tuple[Tensor, ...], operators: tuple[Operator, ...], tables: list[Any]
) -> tuple[Tensor, ...]:
    """Give the outputs of a detection their shapes. Vela plans no memory for what has none in the file."""
    found = list(tensors)
    for operator, table in zip(operators, tables, strict=True):
        if operator.name != detection.NAME:
            continue
        shapes = detection.output_shapes(_vector(table, "CustomOptions").tobytes())
        for index, shape in zip(operator.outputs, shapes, strict=False):
            if not found[index].shape:
                found[index] = replace(found[index], shape=shape, arena_offset=None)
    return tuple(found)


def _npu_operator(inputs: tuple[int, ...], tensors: tuple[Tensor, ...]) -> NpuOperator:
    if len(inputs) < 4 or -1 in inputs:
        raise ModelError(
            "its ethos-u operator lacks command stream, read-only data or scratch: compile it again"
        )
    payload, read_only, scratch, scratch_fast = inputs[:4]
    data = tensors[payload].data
    if data is None:
        raise ModelError("its ethos-u operator carries no command stream: compile it again")
    return NpuOperator(parse_payload(data.tobytes()), read_only, scratch, scratch_fast)


def _indices(
    parent: Any, field: str, tensors: tuple[Tensor, ...], *, optional: bool = False
) -> tuple[int, ...]:
    indices = tuple(_vector(parent, field).tolist())
    lowest = -1 if optional else 0
    if any(not lowest <= index < len(tensors) for index in indices):
        raise ValueError(f"{field} name a tensor that does not exist")
    return indices


def _arena_size(tensors: tuple[Tensor, ...], operators: tuple[Operator, ...]) -> int:
    """The end of the last planned tensor, without the fast scratch, which is a memory of its own."""
    shared = {operator.npu.scratch for operator in operators if operator.npu is not None}
    fast = {operator.npu.scratch_fast for operator in operators if operator.npu is not None} - shared
    return max(
        (t.arena_offset + t.nbytes for t in tensors if t.arena_offset is not None and t.index not in fast),
        default=0,
    )
