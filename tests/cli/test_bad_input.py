# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with what was typed: one sentence, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import DIGITS, Npubox, one_sentence
from tests.networks import compiled_by_vela, fully_connected

GOOD = np.zeros((1, 8, 8, 1), np.int8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for each thing that can be wrong, and `good.npy`."""
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "good.npy", GOOD)
    np.save(folder / "shape.npy", GOOD[0])
    np.save(folder / "dtype.npy", GOOD.astype(np.int16))
    np.save(folder / "nan.npy", np.full(GOOD.shape, np.nan))
    np.save(folder / "object.npy", np.array([{}]), allow_pickle=True)
    np.savez(folder / "archive.npz", GOOD)
    (folder / "archive.npy").write_bytes((folder / "archive.npz").read_bytes())
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:100])
    (folder / "empty.npy").touch()
    (folder / "short.bin").write_bytes(bytes(63))
    (folder / "text.png").write_text("no picture")
    Image.new("L", (9, 8)).save(folder / "size.png")
    Image.new("I;16", (8, 8)).save(folder / "deep.png")
    noise = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(noise).save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    content = DIGITS.read_bytes()
    (folder / "cut.tflite").write_bytes(content[: len(content) // 2])
    (folder / "text.tflite").write_text("no model")
    (folder / "empty.tflite").touch()
    (folder / "float.tflite").write_bytes(fully_connected(np.float32))
    other = compiled_by_vela(content, "ethos-u65-512").content
    (folder / "u65-512.tflite").write_bytes(other)
    (folder / "u55.tflite").write_bytes(compiled_by_vela(content, "ethos-u55-128").content)
    (folder / "u85.tflite").write_bytes(compiled_by_vela(content, "ethos-u85-256").content)
    (folder / "compiled.tflite").write_bytes(compiled_by_vela(content, "ethos-u65-256").content)
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.tflite", ["there is no file", "missing.tflite"]),
        ("cut.tflite", ["cut.tflite", "damaged"]),
        ("text.tflite", ["text.tflite", "not a .tflite"]),
        ("empty.tflite", ["empty.tflite", "not a .tflite"]),
        ("float.tflite", ["float.tflite", "float network", "quantise"]),
        ("u65-512.tflite", ["u65-512.tflite", "compiled for ethos-u65-512", "--device ethos-u65-512"]),
        ("u55.tflite", ["u55.tflite", "compiled for ethos-u55-128", "npubox compile"]),
    ],
)
def test_models(npubox: Npubox, files: Path, name: str, words: list[str]) -> None:
    one_sentence(npubox("run", files / name, "--input", files / "good.npy"), *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.npy", ["there is no file"]),
        ("missing.png", ["there is no file"]),
        ("missing.bin", ["there is no file"]),
        ("shape.npy", ["[8, 8, 1]", "give exactly [1, 8, 8, 1]"]),
        ("dtype.npy", ["int16", "give int8"]),
        ("nan.npy", ["NaN"]),
        ("object.npy", ["cannot be read as .npy"]),
        ("archive.npy", ["archive"]),
        ("archive.npz", ["archive", "as .npy"]),
        ("missing.npz", ["there is no file"]),
        ("cut.npy", ["cannot be read as .npy"]),
        ("empty.npy", ["cannot be read as .npy"]),
        ("short.bin", ["63 bytes", "exactly 64"]),
        ("text.png", ["cannot be read as a PNG"]),
        ("cut.png", ["cannot be read as a PNG"]),
        ("size.png", ["9 x 8 pixels", "8 x 8"]),
        ("deep.png", ["more than 8 bits"]),
    ],
)
def test_inputs(npubox: Npubox, files: Path, name: str, words: list[str]) -> None:
    one_sentence(npubox("run", DIGITS, "--input", files / name), name, *words)


def test_devices(npubox: Npubox, files: Path) -> None:
    good = files / "good.npy"
    one_sentence(npubox("run", DIGITS, "--input", good, "--device", "ethos-u99"), "ethos-u99", "imx93")
    one_sentence(
        npubox("run", DIGITS, "--input", good, "-d", "Ethos-U65_256"),
        "did you mean ethos-u65-256:",
        "device (ethos-u55-32, ethos-u55-64, ethos-u55-128,",
        "machine (corstone-300,",
    )
    one_sentence(npubox("run", DIGITS, "--input", good, "--device", "/dev/accel/accel77"), "accel77")
    one_sentence(npubox("run", DIGITS, "--input", good, "--device", "/dev/null"), "/dev/null")
    one_sentence(npubox("compile", DIGITS, "-o", files / "x", "--device", "ethos-u99"), "ethos-u99")


def test_options(npubox: Npubox, files: Path) -> None:
    good = files / "good.npy"
    one_sentence(npubox("run", DIGITS), "--input")
    one_sentence(npubox("run", DIGITS, "--input", good, "--input", good), "2 time(s)", "has 1")
    one_sentence(npubox("run", DIGITS, "--input", good, "--output", "a", "--output", "b"), "2 time(s)")
    one_sentence(npubox("run", DIGITS, "--input", good, "--repeat", "0"), "--repeat")
    one_sentence(npubox("run", DIGITS, "--input", good, "--mean", "1"), "--mean")
    one_sentence(npubox("run", files / "compiled.tflite", "--input", good, "--verify"), "before Vela")
    one_sentence(npubox("run", DIGITS, "--input", good, "--policy", "kind"), "kind", '"mainline"')
    one_sentence(
        npubox("run", DIGITS, "--input", good, "--policy", "mainline", "-d", "ethos-u55-64"), "u55-64"
    )
    one_sentence(npubox("run", DIGITS, "--input", good, "--memory-mode", "Flash_Only"), "Flash_Only")
    one_sentence(npubox("run", DIGITS, "--input", good, "--optimise", "Fast"), "Performance or Size")
    one_sentence(npubox("bogus"), "bogus")


def test_disasm_and_compile(npubox: Npubox, files: Path) -> None:
    one_sentence(npubox("disasm", DIGITS), "carries no command stream")
    one_sentence(npubox("disasm", files / "cut.tflite"), "damaged")
    one_sentence(npubox("disasm", files / "u85.tflite"), "for ethos-u85-256", "U55 and U65")
    one_sentence(npubox("disasm", files / "u85.tflite", "--json"), "for ethos-u85-256", "U55 and U65")
    one_sentence(npubox("compile", files / "compiled.tflite", "-o", files / "x"), "already is compiled")
    one_sentence(npubox("compile", files / "float.tflite", "-o", files / "x"), "float network")


def test_pictures_without_pillow(npubox: Npubox, files: Path) -> None:
    absent = "import sys; sys.modules['PIL'] = None"
    answer = npubox("run", DIGITS, "--input", files / "good.png", before=absent)
    one_sentence(answer, "pip install 'npubox[png]'")


def test_unwritable_output_is_a_failure(npubox: Npubox, files: Path) -> None:
    answer = npubox("run", DIGITS, "--input", files / "good.npy", "--output", files / "no" / "y.npy")
    assert answer.status == 1
    assert "y.npy" in answer.err
    assert answer.err.count("\n") == 1
