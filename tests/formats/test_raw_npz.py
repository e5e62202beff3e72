# SPDX-License-Identifier: Apache-2.0
"""Vela's raw output says the same as its .tflite, and no file can run code."""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npubox.errors import ModelError
from npubox.formats.raw_npz import read_raw_npz
from tests.networks import compiled_by_vela, fully_connected, raw_file, shared_network


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return raw_file(tmp_path_factory.mktemp("raw"), fully_connected(), "ethos-u65-256").read_bytes()


@pytest.mark.parametrize("generator", [(), ("--debug-force-legacy-core",)])
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-256"])
@pytest.mark.parametrize("name", ["kws_dscnn_int8", "ic_resnet8_int8"])
def test_says_what_the_tflite_says(
    name: str, accelerator: str, generator: tuple[str, ...], tmp_path: Path
) -> None:
    content = shared_network(name).read_bytes()
    raw = read_raw_npz(raw_file(tmp_path, content, accelerator, *generator), signed=True)
    usual = compiled_by_vela(content, accelerator, *generator)
    ours, theirs = raw.operators[0].npu, usual.operators[0].npu
    assert ours is not None
    assert theirs is not None
    assert ours.stream == theirs.stream
    assert raw.arena_size == usual.arena_size
    assert np.array_equal(raw.tensors[ours.read_only].data, usual.tensors[theirs.read_only].data)  # type: ignore[arg-type]
    for mine, other in ((raw.inputs, usual.inputs), (raw.outputs, usual.outputs)):
        for a, b in zip(mine, other, strict=True):
            left, right = raw.tensors[a], usual.tensors[b]
            assert (left.nbytes, left.dtype, left.arena_offset) == (
                right.nbytes,
                right.dtype,
                right.arena_offset,
            )
            assert left.quantization == right.quantization


def test_state_tensors(tmp_path: Path) -> None:
    content = shared_network("trained_lstm_int8").read_bytes()
    raw = read_raw_npz(raw_file(tmp_path, content, "ethos-u65-256"), signed=True)
    usual = compiled_by_vela(content, "ethos-u65-256")

    def places(network: Any) -> set[tuple[object, ...]]:
        return {(t.arena_offset, t.nbytes, t.dtype) for t in network.variables}

    assert places(raw) == places(usual)
    assert len(places(raw)) == 2


def test_the_sign_is_asked_for_where_the_file_does_not_tell(tiny: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tiny.npz"
    path.write_bytes(tiny)
    with pytest.raises(ModelError, match="does not say whether input0 is int8 or uint8"):
        read_raw_npz(path)
    assert read_raw_npz(path, signed=False).tensors[4].dtype == np.uint8


def test_a_pickle_that_runs_code_is_refused(tiny: bytes, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "attacked",)  # type: ignore[return-value]

    with np.load(io.BytesIO(tiny), allow_pickle=True) as stored:
        arrays = {name: stored[name] for name in stored.files}
    attack = np.empty(1, object)
    attack[0] = Attack()
    path = tmp_path / "attack.npz"
    np.savez(path, **{**arrays, "input_quantization": attack})
    with pytest.raises(ModelError, match="it wants to load pathlib"):
        read_raw_npz(path, signed=True)
    assert not (tmp_path / "attacked").exists()
    pickle.loads(pickle.dumps(attack))
    assert (tmp_path / "attacked").exists(), "the attack would have worked"


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read_raw_npz(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(ModelError, match="no raw output of Vela: it has no cmd_data"):
        read_raw_npz(tmp_path / "other.npz")


@settings(deadline=None)
@given(at=st.integers(0, 2**16), flip=st.integers(1, 255), length=st.integers(0, 2**16))
def test_damage_is_a_model_error_or_a_network(
    at: int, flip: int, length: int, tiny: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    flipped = bytearray(tiny)
    flipped[at % len(tiny)] ^= flip
    for damaged in (bytes(flipped), tiny[: length % len(tiny)]):
        path.write_bytes(damaged)
        with contextlib.suppress(ModelError):
            read_raw_npz(path, signed=True)
