# SPDX-License-Identifier: Apache-2.0
"""Read what Vela writes with `--output-format raw`: one command stream and its tensors in an .npz.

Source: the project's facts, ethosu-npu.md §1.4. The quantisation is pickled there; it is read by an
unpickler that knows numpy arrays and plain values and nothing else, so that a file cannot run code.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.errors import ModelError
from npubox.formats.network import Network, NpuOperator, Operator, Quantization, Tensor
from npubox.formats.payload import parse_payload

# Places in the network's tensor list, as in a compiled .tflite: then inputs, outputs, variables.
COMMAND_STREAM, READ_ONLY, SCRATCH, SCRATCH_FAST = range(4)
ARENA_REGION = 1
DTYPES = {(1, True): np.int8, (1, False): np.uint8, (2, None): np.int16, (4, None): np.int32}
RECONSTRUCT = np.empty(0).__reduce__()[0]  # what numpy pickles arrays with; its module differs by version
PICKLED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
}


def read_raw_npz(source: Path | str | bytes, *, signed: bool | None = None) -> Network:
    """Read an .npz of either generator, by path or content, as a network of one `ethos-u` operator.

    Shapes are filled with ones in front (six dimensions by Regor, four by the legacy core) and names are
    input0, output0, variable0 …: the file has no others. It gives sizes but no signs: 8-bit tensors are
    int8 where `signed`, uint8 where it is False; without it only a zero point outside 0..127 tells.
    Raises `ModelError` for a missing or damaged file and where the sign is not told.
    """
    name = "the network" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror}") from error
    try:
        arrays = _arrays(content)
        return _network(name, content, arrays, signed)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except KeyError as error:
        raise ModelError(f"{name} is no raw output of Vela: it has no {error.args[0]}") from error
    except (
        zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, NotImplementedError, RuntimeError,
        ValueError, TypeError, LookupError, AttributeError, EOFError, OSError,
    ) as error:  # fmt: skip
        raise ModelError(f"{name} is damaged ({error}): compile the network again") from error


def _network(name: str, content: bytes, arrays: dict[str, Any], signed: bool | None) -> Network:
    payload = np.frombuffer(arrays["cmd_data"].tobytes(), np.uint8)
    weights = np.frombuffer(arrays["weight_data"].tobytes(), np.uint8)
    scratch, fast = int(arrays["scratch_size"]), int(arrays["scratch_fast_size"])
    if int(arrays["weight_region"]) != 0 or int(arrays["scratch_region"]) != ARENA_REGION:
        raise ModelError("its regions are not Vela's usual ones, which is not modelled")
    bytes_ = np.dtype(np.uint8)
    tensors = [
        Tensor(COMMAND_STREAM, "cmd_data", payload.shape, bytes_, data=payload),
        Tensor(READ_ONLY, "weight_data", weights.shape, bytes_, data=weights),
        Tensor(SCRATCH, "scratch", (scratch,), bytes_, arena_offset=0),
        Tensor(SCRATCH_FAST, "scratch_fast", (fast,), bytes_, arena_offset=0),
    ]
    groups = {}
    for kind in ("input", "output", "variable"):
        first = len(tensors)
        tensors += _tensors(kind, first, arrays, signed)
        groups[kind] = tuple(range(first, len(tensors)))
    npu = NpuOperator(parse_payload(payload.tobytes()), READ_ONLY, SCRATCH, SCRATCH_FAST if fast else SCRATCH)
    reads = (COMMAND_STREAM, READ_ONLY, SCRATCH, npu.scratch_fast, *groups["input"], *groups["variable"])
    operator = Operator(0, "ethos-u", reads, groups["output"], npu)
    ends = [
        t.arena_offset + t.nbytes for t in tensors if t.arena_offset is not None and t.index > SCRATCH_FAST
    ]
    arena = max([scratch, *ends])
    return Network(tuple(tensors), (operator,), groups["input"], groups["output"], arena, content, name)


def _tensors(kind: str, first: int, arrays: dict[str, Any], signed: bool | None) -> list[Tensor]:
    columns = [
        arrays[f"{kind}_{field}"] for field in ("shape", "elem_size", "region", "offset", "quantization")
    ]
    made = []
    for at, (shape, size, region, offset, given) in enumerate(zip(*columns, strict=True)):
        name = f"{kind}{at}"
        quantization = _quantization(given)
        dtype = _dtype(name, int(size), quantization, signed)
        place = int(offset) if int(region) == ARENA_REGION else None
        dims = tuple(int(n) for n in shape)
        if min(dims, default=1) < 0 or int(offset) < 0:
            raise ValueError(f"{name} has the shape {dims} at {int(offset)}")
        made.append(
            Tensor(first + at, name, dims, dtype, quantization, None, place, is_variable=kind == "variable")
        )
    return made


def _quantization(given: dict[str, Any]) -> Quantization | None:
    scales = tuple(given["scale"].tolist())
    zero_points = tuple(given["zero_point"].tolist())
    if len(scales) != len(zero_points):
        raise ValueError(f"{len(scales)} scales come with {len(zero_points)} zero points")
    return Quantization(scales, zero_points) if scales else None


def _dtype(name: str, size: int, quantization: Quantization | None, signed: bool | None) -> np.dtype[Any]:
    if size == 1 and signed is None:
        zero_point = quantization.zero_points[0] if quantization is not None else 0
        if 0 <= zero_point <= 127:
            raise ModelError(f"it does not say whether {name} is int8 or uint8: say --signed or --unsigned")
        signed = zero_point < 0
    found = DTYPES.get((size, signed if size == 1 else None))
    if found is None:
        raise ModelError(f"{name} has elements of {size} bytes, which npubox does not take")
    return np.dtype(found)


def _arrays(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}


def _array(member: bytes) -> npt.NDArray[Any] | list[Any]:
    stream = io.BytesIO(member)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is of another version than 1.0")
    _shape, _order, dtype = np.lib.format.read_array_header_1_0(stream)
    if not dtype.hasobject:
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    loaded: npt.NDArray[Any] = _Unpickler(stream).load()
    return list(loaded)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PICKLED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return PICKLED[module, name]
