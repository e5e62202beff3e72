# SPDX-License-Identifier: Apache-2.0
"""What the commands do when all is well."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import npubox as package
from npubox.client.regions import used_regions
from npubox.formats.tflite import read_network
from tests.cli.conftest import DIGITS, IMAGES, ROOT, Npubox, one_sentence
from tests.client.graphs import float_edges, only_quantize
from tests.networks import compiled_by_vela, raw_file

OPERATORS = [operator.name for operator in read_network(DIGITS).operators]  # Vela places them all
CORPUS = ROOT / "tests" / "corpus" / "networks"
HEAVY = ("numpy", "numba", "llvmlite", "tflite", "ai_edge_litert", "ethosu", "PIL", "npubox.client")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.npy"
    np.save(path, np.load(IMAGES)["inputs"][:1])
    return path


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return np.load(IMAGES)["expected"][:1].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("arguments", [["--help"], [], ["run", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(npubox: Npubox, arguments: list[str]) -> None:
    watch = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr))"
    )
    answer = npubox(*arguments, before=watch)
    assert answer.status == 0
    assert answer.err == "[]\n"


def test_version(npubox: Npubox) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert npubox("--version").out == f"npubox {project['version']}\n"
    assert package.__version__ == project["version"]


def test_run_writes_what_the_oracle_expects(
    npubox: Npubox, image: Path, expected: list[list[int]], tmp_path: Path
) -> None:
    answer = npubox("run", DIGITS, "--input", image, "--output", tmp_path / "y.npy")
    assert answer.status == 0, answer.err
    assert answer.err == ""
    assert np.load(tmp_path / "y.npy").tolist() == expected
    for words in (
        "ethos-u65-256",
        f"NPU: {len(OPERATORS)} operators",
        "CPU: none",
        "NPU cycles",
        f"wrote {tmp_path}",
    ):
        assert words in answer.out


def test_run_json(npubox: Npubox, image: Path, expected: list[list[int]]) -> None:
    answer = npubox("run", DIGITS, "--input", image, "--repeat", 3, "--json")
    report = json.loads(answer.out)
    assert answer.status == 0
    assert report["outputs"][0]["values"] == expected
    assert (report["runs"], len(report["cycles"]), len(report["host_time_ns"])) == (3, 3, 3)
    assert all(cycles > 0 for cycles in report["cycles"])
    assert report["operators"] == {"npu": OPERATORS, "cpu": []}


def test_run_compiled(npubox: Npubox, image: Path, expected: list[list[int]], tmp_path: Path) -> None:
    path = tmp_path / "compiled.tflite"
    path.write_bytes(compiled_by_vela(DIGITS.read_bytes(), "ethos-u65-256").content)
    report = json.loads(npubox("run", path, "--input", image, "--device", "imx93", "--json").out)
    assert report["outputs"][0]["values"] == expected


def test_run_raw_and_floats(npubox: Npubox, image: Path, expected: list[list[int]], tmp_path: Path) -> None:
    stored = np.load(image)
    (tmp_path / "image.bin").write_bytes(stored.tobytes())
    np.save(tmp_path / "real.npy", (stored.astype(np.float32) + 128) / 255)
    for name in ("image.bin", "real.npy"):
        report = json.loads(npubox("run", DIGITS, "--input", tmp_path / name, "--json").out)
        assert report["outputs"][0]["values"] == expected


def test_run_pictures(npubox: Npubox, tmp_path: Path) -> None:
    """int8 takes pixel - 128; colour becomes grey and says so; --mean and --scale give the same."""
    pixels = (np.load(IMAGES)["inputs"][0, :, :, 0].astype(np.int16) + 128).astype(np.uint8)
    expected = np.load(IMAGES)["expected"][:1].tolist()
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "colour.png")
    grey = json.loads(npubox("run", DIGITS, "--input", tmp_path / "grey.png", "--json").out)
    colour = json.loads(npubox("run", DIGITS, "--input", tmp_path / "colour.png", "--json").out)
    scaled = npubox("run", DIGITS, "--input", tmp_path / "grey.png", "--scale", 1 / 255, "--json")
    for report in (grey, colour, json.loads(scaled.out)):
        assert report["outputs"][0]["values"] == expected
    assert grey["notes"] == []
    assert "RGB to greyscale" in colour["notes"][0]


def test_several_outputs(npubox: Npubox, tmp_path: Path) -> None:
    (tmp_path / "two.tflite").write_bytes(float_edges(both=True))
    np.save(tmp_path / "x.npy", np.ones((1, 8), np.float32))
    run = ["run", tmp_path / "two.tflite", "--input", tmp_path / "x.npy", "--output", tmp_path / "a.npy"]
    one_sentence(npubox(*run), "--output", "1 time(s)", "has 2")
    answer = npubox(*run, "--output", tmp_path / "b.npy")
    assert answer.status == 0, answer.err
    assert [str(np.load(tmp_path / name).dtype) for name in ("a.npy", "b.npy")] == ["float32", "int8"]
    assert "NPU: 1 operator: FULLY_CONNECTED" in answer.out
    assert "CPU: 2 operators: QUANTIZE, DEQUANTIZE" in answer.out


def test_nothing_on_the_npu_fails_unless_allowed(npubox: Npubox, tmp_path: Path) -> None:
    (tmp_path / "cpu.tflite").write_bytes(only_quantize())
    np.save(tmp_path / "x.npy", np.ones((1, 8), np.float32))
    run = ["run", tmp_path / "cpu.tflite", "--input", tmp_path / "x.npy", "--json"]
    one_sentence(npubox(*run), "--allow-fallback", "1 operator: QUANTIZE")
    report = json.loads(npubox(*run, "--allow-fallback").out)
    assert report["outputs"][0]["values"] == [[20] * 8]
    assert report["operators"] == {"npu": [], "cpu": ["QUANTIZE"]}
    assert report["cycles"] == [None]


def test_an_optimised_kernel_is_reported(npubox: Npubox, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.load(CORPUS / "mixed_depth_to_space_int8.npz")["input0"][0])
    network = CORPUS / "mixed_depth_to_space_int8.tflite"
    answer = npubox("run", network, "--input", tmp_path / "x.npy")
    assert "note: DEPTH_TO_SPACE ran on LiteRT's optimised kernels" in answer.out, answer


def test_verify(npubox: Npubox, image: Path) -> None:
    answer = npubox("run", DIGITS, "--input", image, "--verify", "--json")
    assert answer.status == 0, answer.err
    report = json.loads(answer.out)
    assert report["verified"]["oracle"] in ("tflite-micro", "LiteRT BUILTIN_REF")
    assert report["verified"]["difference"] is None


def test_verify_takes_the_oracle_that_is_exact_and_says_why(npubox: Npubox, tmp_path: Path) -> None:
    """The vector where tflite-micro is off by one."""
    stored = np.load(CORPUS / "mul_column_int16.npz")
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", stored[f"input{i}"][0])
    inputs = [word for i in range(2) for word in ("--input", tmp_path / f"{i}.npy")]
    answer = npubox("run", CORPUS / "mul_column_int16.tflite", *inputs, "--verify")
    assert answer.status == 0, answer.err
    assert "verified: every output equals LiteRT BUILTIN_REF, bit for bit\n" in answer.out
    assert "not asked: tflite-micro is known to differ in int16 MUL\n" in answer.out


def test_verify_tells_a_difference(npubox: Npubox, image: Path) -> None:
    wrong = (
        "import numpy, npubox.fallback.verify as v\n"
        "v.reference_outputs = lambda *_: v.Reference((numpy.full((1, 10), 99, 'i1'),), 'a liar')"
    )
    answer = npubox("run", DIGITS, "--input", image, "--verify", before=wrong)
    assert answer.status == 1
    assert "at [0, 0], a liar has 99; 10 of 10 values differ" in answer.err
    assert "not verified" not in answer.err
    assert answer.err.count("\n") == 1


def test_verify_by_an_oracle_that_is_not_exact_blames_nobody(npubox: Npubox, image: Path) -> None:
    wrong = (
        "import numpy, npubox.fallback.verify as v\n"
        "y = numpy.full((1, 10), 99, 'i1')\n"
        "v.reference_outputs = lambda *_: v.Reference((y,), 'a guess', (), ('int8 ADD',))"
    )
    answer = npubox("run", DIGITS, "--input", image, "--verify", before=wrong)
    assert answer.status == 1
    assert "not verified: " in answer.err
    assert "need not be the NPU: a guess is known to differ in int8 ADD" in answer.err
    assert answer.err.count("\n") == 1


def test_devices(npubox: Npubox) -> None:
    answer = npubox("devices")
    assert answer.status == 0
    (line,) = [line for line in answer.out.splitlines() if line.split()[:1] == ["imx93"]]
    assert "ethos-u65-256" in line
    assert "policy mainline" in line
    presets = {preset["name"]: preset for preset in json.loads(npubox("devices", "--json").out)["presets"]}
    assert presets["imx93"]["devices"] == ["ethos-u65-256"]
    assert presets["imx93"]["policy"] == "mainline"
    assert presets["generic-u55-32"]["policy"] == "hardware"


def test_run_on_another_npu(npubox: Npubox, image: Path, expected: list[list[int]]) -> None:
    options = ("--device", "ethos-u55-128", "--legacy", "--memory-mode", "Sram_Only", "--optimise", "Size")
    answer = npubox("run", DIGITS, "--input", image, *options, "--verify")
    assert answer.status == 0, answer.err
    for words in ("on ethos-u55-128", "policy hardware", "(legacy stream)", "verified"):
        assert words in answer.out
    report = json.loads(npubox("run", DIGITS, "--input", image, "--policy", "hardware", "--json").out)
    assert report["outputs"][0]["values"] == expected
    told = (report["accelerator"], report["policy"], report["generator"])
    assert told == ("ethos-u65-256", "hardware", "Regor")


def test_dump_layers(npubox: Npubox, image: Path, expected: list[list[int]], tmp_path: Path) -> None:
    answer = npubox("run", DIGITS, "--input", image, "--repeat", 2, "--dump-layers", tmp_path / "dump")
    assert answer.status == 0, answer.err
    layers = json.loads((tmp_path / "dump" / "layers.json").read_text())["layers"]
    assert {layer["job"] for layer in layers} == {0}  # of the first run
    last = np.load(tmp_path / "dump" / layers[-1]["file"])
    assert last.reshape(1, -1).tolist() == expected


def test_run_and_disasm_raw_output(
    npubox: Npubox, image: Path, expected: list[list[int]], tmp_path: Path
) -> None:
    path = raw_file(tmp_path, DIGITS.read_bytes(), "ethos-u55-128")
    np.save(tmp_path / "x.npy", np.load(image).reshape(1, 1, 1, 8, 8, 1))
    run = ("run", path, "--device", "ethos-u55-128", "--input", tmp_path / "x.npy", "--signed", "--json")
    answer = npubox(*run)
    assert answer.status == 0, answer.err
    assert np.reshape(json.loads(answer.out)["outputs"][0]["values"], (1, 10)).tolist() == expected
    one_sentence(npubox(*run, "--verify"), "before Vela")
    one_sentence(npubox(*run, "--legacy"), "already is compiled")
    assert "NPU_OP_CONV" in npubox("disasm", path).out


def test_compile_options(npubox: Npubox, tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    options = ("--system-config", "Ethos_U65_Embedded", "--memory-mode", "Sram_Only", "--legacy")
    answer = npubox("compile", DIGITS, "-o", out, *options)
    assert answer.status == 0, answer.err
    (operator,) = read_network(out).operators
    assert operator.npu is not None
    assert operator.npu.stream.generator == "legacy"
    assert used_regions(operator.npu.stream.words) == {0, 1}


def test_compile_then_disasm(npubox: Npubox, tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    answer = npubox("compile", DIGITS, "--device", "imx93", "-o", out, "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)["accelerator"] == "ethos-u65-256"
    listing = npubox("disasm", out)
    assert listing.status == 0
    assert "NPU_OP_CONV" in listing.out
    assert listing.out.splitlines()[-1].split()[2] == "NPU_OP_STOP"
    (stream,) = json.loads(npubox("disasm", out, "--json").out)["streams"]
    assert stream["accelerator"] == "ethos-u65-256"
    assert len(stream["commands"]) == len(listing.out.splitlines()) - 1


def test_compile_for_what_is_not_modelled(npubox: Npubox, tmp_path: Path) -> None:
    answer = npubox("compile", DIGITS, "--device", "ethos-u85-256", "-o", tmp_path / "out.tflite")
    assert answer.status == 0, answer.err
    assert "for ethos-u85-256" in answer.out


def test_running_behind_a_cortex_m(
    npubox: Npubox, image: Path, expected: list[list[int]], tmp_path: Path
) -> None:
    output = tmp_path / "out.npy"
    options = ["--device", "two-subsystems:/dev/ethosu1", "--verify", "--json"]
    answer = npubox("run", DIGITS, "--input", image, "--output", output, *options)
    assert answer.status == 0, answer.err
    report = json.loads(answer.out)
    assert (report["accelerator"], report["operators"]["cpu"]) == ("ethos-u65-512", [])
    assert np.load(output).tolist() == expected
