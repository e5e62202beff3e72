# SPDX-License-Identifier: Apache-2.0
"""The evidence: what the command streams hold of networks that equal their oracle bit for bit."""

from __future__ import annotations

import datetime
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from scripts.ethosu_coverage.features import kind_of, shown
from tests.corpus import oracles, test_corpus
from tests.corpus.apart import Died
from tests.corpus.cases import LEGACY_ON_CPU, NAMES, REFUSED, SUBSET, load, oracle_of
from tests.corpus.single_operators import BUILDERS, Single, single
from tests.corpus.vela import LEGACY, compiled
from tests.networks import MODELS
from tests.vectors import digits_vectors, shared_vectors

import npubox
from npubox.devices.ethosu_npu.commands import RegisterFile, commands
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.decode import build_operation
from npubox.formats.tflite import read_network

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
EXAMPLES = 12  # random networks of each operator and type
NAMED = 3  # networks that are named for a value
COMMANDS = "commands"  # the kind under which commands and registers are noted

Array = npt.NDArray[Any]


class Seen(TypedDict):
    """How often a value was seen in exact runs: of a network, on an accelerator, by a generator."""

    runs: int
    networks: list[str]


class Evidence(TypedDict):
    date: str
    vela: str
    runs: dict[str, int]
    not_exact: dict[str, int]
    seen: dict[str, dict[str, dict[str, Seen]]]


def record() -> Evidence:
    """Run everything, and note what the streams of exact runs hold."""
    found: dict[str, dict[str, dict[str, set[tuple[str, str]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(set))
    )
    runs: dict[str, int] = defaultdict(int)
    not_exact: dict[str, int] = defaultdict(int)
    for name, label, device, file, vectors in chain(_runs(), _random_runs()):
        if not _exact(device, file, vectors):
            not_exact[f"{name.partition(' #')[0]} on {label}"] += 1
            continue
        runs[label] += 1
        for kind, aspect, value in held(file, device.accelerator):
            found[kind][aspect][value].add((name, label))
    return Evidence(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        vela=metadata.version("ethos-u-vela"),
        runs=dict(runs),
        not_exact=dict(not_exact),
        seen={
            kind: {
                aspect: {
                    value: Seen(runs=len(those), networks=sorted({name for name, _ in those})[:NAMED])
                    for value, those in sorted(values.items())
                }
                for aspect, values in sorted(aspects.items())
            }
            for kind, aspects in sorted(found.items())
        },
    )


Run = tuple[str, str, npubox.Device, bytes, list[tuple[list[Array], list[Array]]]]


def _runs() -> Iterator[Run]:
    """What the tests hold bit-exact: network, on what, the device, the compiled file, inputs and outputs."""
    plain = {name for name in NAMES if oracle_of(name) == oracles.PLAIN}
    usual = [name for name in NAMES if name not in {*REFUSED, *plain}]
    legacy = [name for name in SUBSET if name not in LEGACY_ON_CPU]
    plans: list[tuple[str, tuple[str, ...], Iterable[str]]] = [
        *((accelerator, (), usual) for accelerator in test_corpus.DEVICES),
        *((accelerator, (), SUBSET) for accelerator in test_corpus.OTHER_DEVICES),
        *((accelerator, (LEGACY,), legacy) for accelerator in test_corpus.LEGACY_DEVICES),
    ]
    for accelerator, options, names in plans:
        label = f"{accelerator}, {'legacy' if options else 'Regor'}"
        print(label, file=sys.stderr)
        with npubox.open(accelerator, policy="hardware") as device:
            for name in names:
                case = load(name)
                vectors = [(case.vector(k), [o[k] for o in case.outputs]) for k in range(case.vectors)]
                yield name, label, device, compiled(case.content, accelerator, *options), vectors
            for path in [*sorted(MODELS.glob("*.tflite")), DIGITS]:
                stored = digits_vectors(2) if path.stem == "digits" else shared_vectors(path.stem)
                vectors = [(vector.inputs, vector.outputs) for vector in stored]
                yield path.stem, label, device, compiled(path.read_bytes(), accelerator, *options), vectors


def _random_runs() -> Iterator[Run]:
    """Random networks of one operator, the same ones each time."""
    plans: list[tuple[str, tuple[str, ...]]] = [
        *((accelerator, ()) for accelerator in test_corpus.DEVICES),
        *((accelerator, (LEGACY,)) for accelerator in test_corpus.LEGACY_DEVICES),
    ]
    drawn = [
        (f"{name} {dtype} #{n}", network)
        for name, (_, dtypes) in BUILDERS.items()
        for dtype in dtypes
        for n, network in enumerate(_drawn(name, dtype))
    ]
    answers = cache(lambda n: oracles.outputs(drawn[n][1].oracle, drawn[n][1].content, drawn[n][1].vectors))
    for accelerator, options in plans:
        label = f"{accelerator}, {'legacy' if options else 'Regor'}, random operators"
        print(label, file=sys.stderr)
        with npubox.open(accelerator, policy="hardware") as device:
            for n, (title, network) in enumerate(drawn):
                try:
                    file = compiled(network.content, accelerator, *options)
                except (RuntimeError, Died):  # the legacy core takes less
                    continue
                if all(operator.npu is not None for operator in read_network(file).operators):
                    yield title, label, device, file, list(zip(network.vectors, answers(n), strict=True))


def _drawn(name: str, dtype: np.dtype[Any]) -> list[Single]:
    drawn: list[Single] = []

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    @given(network=single(name, dtype))
    def draw(network: Single) -> None:
        drawn.append(network)

    draw()
    return drawn


def _exact(device: npubox.Device, file: bytes, vectors: list[tuple[list[Array], list[Array]]]) -> bool:
    try:
        with device.load(file) as network:
            for inputs, expected in vectors:
                with network.session() as session, session.submit(*inputs) as inference:
                    pairs = zip(inference.outputs, expected, strict=True)
                    if not all(np.array_equal(ours.reshape(theirs.shape), theirs) for ours, theirs in pairs):
                        return False
    except npubox.NpuboxError:
        return False
    return True


def held(file: bytes, accelerator: str) -> Iterator[tuple[str, str, str]]:
    """Operation, aspect and value of everything in the streams of a compiled file."""
    for operator in read_network(file).operators:
        if operator.npu is None:
            continue
        registers = RegisterFile()
        for command in commands(operator.npu.stream.words):
            yield COMMANDS, "written", command.name
            if command.register is not None:
                registers.write(command)
                continue
            operation = build_operation(registers, command, CONFIGURATIONS[accelerator].cores)
            kind = kind_of(operation) if operation is not None else None
            if operation is None or kind is None:
                continue
            yield COMMANDS, "operations", kind
            for aspect, values in shown(operation, registers).items():
                for value in values:
                    yield kind, aspect, value
