# SPDX-License-Identifier: Apache-2.0
"""The outputs that reference kernels give for a whole network: the oracle behind `npubox run --verify`.

`oracles` says which one is exact for the network; another stands in where that is not installed or does not
take it. They abort the process on some valid files, so they run in one of their own.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.errors import ModelError
from npubox.fallback.oracles import LITERT_OPTIMISED, LITERT_REF, TFLITE_MICRO, choices, installed
from npubox.fallback.process import environment
from npubox.formats.tflite import read_network

Array = npt.NDArray[Any]

MODEL_FILE, INPUTS_FILE, OUTPUTS_FILE = "network.tflite", "inputs.npz", "outputs.npz"
MICRO_ARENA_BYTES = 64 << 20


@dataclass(frozen=True)
class Reference:
    """Outputs in the network's order, and the oracle that gave them.

    `passed_over` says of each oracle that would have been asked first why it was not; `inexact` names what
    of the network this one is known to get wrong, such as "int16 MUL": a difference then tells nothing.
    """

    outputs: tuple[Array, ...]
    oracle: str
    passed_over: tuple[str, ...] = ()
    inexact: tuple[str, ...] = ()


def reference_outputs(content: bytes, inputs: Sequence[Array]) -> Reference:
    """The outputs from fresh state, by the first oracle that runs the network, those first that have no
    known difference from the NPU's arithmetic there.

    `content` is the .tflite before Vela; `inputs` have the network's shapes and dtypes. Raises
    `ModelError` with every oracle's reason when none runs the network.
    """
    ranked = choices(read_network(content))
    reasons = {c.oracle: f"is known to differ in {' and '.join(c.inexact)}" for c in ranked if c.inexact}
    with tempfile.TemporaryDirectory(prefix="npubox-verify-") as directory:
        (Path(directory) / MODEL_FILE).write_bytes(content)
        np.savez(Path(directory) / INPUTS_FILE, *inputs)
        for choice in ranked:
            reason = _run(choice.oracle, directory)
            if reason is None:
                with np.load(Path(directory) / OUTPUTS_FILE) as stored:
                    outputs = tuple(stored[key] for key in stored.files)
                passed_over = tuple(
                    f"{oracle} {reasons[oracle]}"
                    for oracle in itertools.takewhile(choice.oracle.__ne__, ORACLES)
                )
                return Reference(outputs, choice.oracle, passed_over, choice.inexact)
            reasons[choice.oracle] = reason
    told = "; ".join(f"{oracle} {reason}" for oracle, reason in reasons.items())
    raise ModelError(f"no reference kernels run this network: {told}")


def _run(oracle: str, directory: str) -> str | None:
    """None when the oracle left its outputs in the directory, else why it did not."""
    if not installed(oracle):
        return "is not installed"
    run = subprocess.run(
        _command(oracle, directory),
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(),
        check=False,
    )
    if run.returncode == 0:
        return None
    if run.returncode < 0:
        return f"died of signal {-run.returncode}"
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    return f"said: {lines[-1] if lines else 'nothing'}"


def _command(oracle: str, directory: str) -> list[str]:
    return [sys.executable, "-P", "-m", __name__, oracle, directory]


def _tflite_micro(content: bytes, inputs: list[Array]) -> list[Array]:
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=MICRO_ARENA_BYTES)
    for index, array in enumerate(inputs):
        interpreter.set_input(array, index)
    interpreter.invoke()
    return [np.array(interpreter.get_output(index)) for index in range(len(read_network(content).outputs))]


def _litert(resolver: str, content: bytes, inputs: list[Array]) -> list[Array]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=getattr(OpResolverType, resolver),
        num_threads=1,
    )
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


ORACLES: dict[str, Callable[[bytes, list[Array]], list[Array]]] = {
    TFLITE_MICRO: _tflite_micro,
    LITERT_REF: partial(_litert, "BUILTIN_REF"),
    LITERT_OPTIMISED: partial(_litert, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
}


def _main(oracle: str, directory: Path) -> None:
    with np.load(directory / INPUTS_FILE) as stored:
        inputs = [stored[key] for key in stored.files]
    content = (directory / MODEL_FILE).read_bytes()
    outputs = ORACLES[oracle](content, inputs)
    network = read_network(content)
    for index, output in zip(network.outputs, outputs, strict=True):
        if output.shape != network.tensors[index].shape:
            raise ValueError(f"output {network.tensors[index].name!r} comes as {list(output.shape)}")
    np.savez(directory / OUTPUTS_FILE, *outputs)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
