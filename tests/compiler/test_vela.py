# SPDX-License-Identifier: Apache-2.0
"""Compiling through the cache: hits, misses, damage, and the sentences for what Vela refuses."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from npubox.compiler import vela
from npubox.compiler.vela import CompiledFile, cache_directory, compile_network
from npubox.errors import ModelError
from npubox.formats.tflite import read_network
from tests.networks import compiled_by_vela, fully_connected, packed, shared_network, unpacked

TINY = fully_connected()


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(cache_home: Path) -> list[Path]:
    return sorted(path for path in cache_home.rglob("*") if path.is_file())


def test_the_second_call_is_cached(cache_home: Path) -> None:
    first = compile_network(TINY, "ethos-u65-256")
    second = compile_network(TINY, "ethos-u65-256")
    assert (first.cached, second.cached) == (False, True)
    assert first.content == second.content
    assert first.path == second.path
    assert entries(cache_home) == [first.path]
    assert read_network(first.content).compiled
    assert first.version == "5.2.0"


@pytest.mark.parametrize(
    ("accelerator", "options"),
    [
        ("ethos-u55-128", {}),
        ("ethos-u65-256", {"extra": ("--optimise", "Size")}),
        ("ethos-u65-256", {"system_config": "Ethos_U65_Embedded", "memory_mode": "Shared_Sram"}),
    ],
)
def test_another_option_is_another_entry(accelerator: str, options: dict[str, object]) -> None:
    compile_network(TINY, "ethos-u65-256")
    assert not compile_network(TINY, accelerator, **options).cached  # type: ignore[arg-type]


def test_another_network_or_version_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_network(TINY, "ethos-u65-256")
    assert not compile_network(TINY + bytes(4), "ethos-u65-256").cached
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "9.9.9")
    assert not compile_network(TINY, "ethos-u65-256").cached


def test_an_options_file_counts_by_its_content(tmp_path: Path) -> None:
    from ethosu import vela as package

    vendor = Path(package.__path__[0]).parent / "config_files" / "Arm" / "vela.ini"
    own = tmp_path / "own.ini"
    own.write_text(vendor.read_text())

    def compiled() -> CompiledFile:
        return compile_network(
            TINY,
            "ethos-u65-256",
            system_config="Ethos_U65_Embedded",
            memory_mode="Shared_Sram",
            extra=("--config", str(own)),
        )

    assert not compiled().cached
    assert compiled().cached
    own.write_text(vendor.read_text() + "\n; changed\n")
    assert not compiled().cached


@pytest.mark.parametrize("damage", [b"", b"rubbish"])
def test_a_damaged_entry_is_compiled_again(damage: bytes) -> None:
    first = compile_network(TINY, "ethos-u65-256")
    assert first.path is not None
    first.path.write_bytes(damage)
    again = compile_network(TINY, "ethos-u65-256")
    assert (again.cached, again.content) == (False, first.content)
    assert compile_network(TINY, "ethos-u65-256").cached


def test_no_cache_leaves_nothing(cache_home: Path) -> None:
    compiled = compile_network(TINY, "ethos-u65-256", cache=False)
    assert compiled.path is None
    assert not cache_home.exists()


def test_a_cache_that_cannot_be_written_costs_no_run(cache_home: Path) -> None:
    cache_home.write_text("a file where the folder should be")
    compiled = compile_network(TINY, "ethos-u65-256")
    assert (compiled.path, compiled.cached) == (None, False)
    assert read_network(compiled.content).compiled


def test_two_at_once_leave_one_whole_entry(cache_home: Path) -> None:
    results: list[CompiledFile] = []
    threads = [
        threading.Thread(target=lambda: results.append(compile_network(TINY, "ethos-u65-256")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.content for result in results}) == 1
    assert len(results) == 2
    assert len(entries(cache_home)) == 1


def test_cache_directory_without_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / ".cache" / "npubox" / "vela"


def test_a_file_next_to_the_user_cannot_shadow_vela(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ethosu").mkdir()
    (tmp_path / "ethosu" / "__init__.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert read_network(compile_network(TINY, "ethos-u65-256").content).compiled


def test_vela_does_not_print_into_our_output(capfd: pytest.CaptureFixture[str]) -> None:
    compile_network(TINY, "ethos-u65-256")
    assert capfd.readouterr() == ("", "")


def test_real_network_from_a_path() -> None:
    path = shared_network("kws_dscnn_int8")
    assert [op.name for op in read_network(compile_network(path, "ethos-u65-256").content).operators] == [
        "ethos-u"
    ]


@pytest.mark.parametrize(
    ("source", "accelerator", "options", "message"),
    [
        (TINY, "ethos-u99", {}, "Vela compiles for no ethos-u99: take one of ethos-u55-32,"),
        (TINY[: len(TINY) // 2], "ethos-u65-256", {}, "the network is damaged"),
        (fully_connected(np.float32), "ethos-u65-256", {}, "is a float network; quantise it"),
        (TINY, "ethos-u65-256", {"memory_mode": "Shared_Sram"}, "give both or neither"),
        (
            TINY,
            "ethos-u65-256",
            {"system_config": "Nonsense", "memory_mode": "Shared_Sram"},
            "^Vela cannot compile the network: .*System_Config.Nonsense not found in Vela config file$",
        ),
        (TINY, "ethos-u65-256", {"extra": ("--output-format=raw",)}, "its --output-format itself"),
        (TINY, "ethos-u65-256", {"extra": ("--nonsense",)}, "unrecognized arguments: --nonsense$"),
    ],
)
def test_refusals(source: bytes, accelerator: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        compile_network(source, accelerator, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_compiled_network_is_not_compiled_again() -> None:
    with pytest.raises(ModelError, match="already is compiled"):
        compile_network(compiled_by_vela(TINY, "ethos-u65-256").content, "ethos-u65-256")


def test_a_crash_of_vela_is_one_sentence() -> None:
    crashed = subprocess.CompletedProcess([], -11, "a line\n", "")
    assert vela._reason(crashed) == "it died of SIGSEGV"


def test_importing_the_compiler_does_not_import_vela() -> None:
    code = "import sys, npubox.compiler.vela; sys.exit('ethosu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("generator", [(), ("--debug-force-legacy-core",)], ids=["Regor", "legacy"])
def test_a_sources_own_memory_plan_is_left_out(generator: tuple[str, ...]) -> None:
    """Files for tflite-micro carry one; with it in, Vela's output has a plan for other tensors."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(fully_connected())
    plan = schema.BufferT()
    plan.data = np.array([0, 1, 4, 0, -1, -1, 16], "<i4").view(np.uint8)
    model.buffers.append(plan)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "OfflineMemoryAllocation", len(model.buffers) - 1
    model.metadata = [entry]
    content = packed(model)
    assert read_network(content).arena_size == 20
    compiled = read_network(compile_network(content, "ethos-u65-256", extra=generator, cache=False).content)
    plain = compiled_by_vela(fully_connected(), "ethos-u65-256", *generator)
    assert compiled.arena_size == plain.arena_size
    assert [tensor.arena_offset for tensor in compiled.tensors] == [t.arena_offset for t in plain.tensors]
