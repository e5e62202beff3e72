# SPDX-License-Identifier: Apache-2.0
"""Compile networks for Ethos-U with Arm's Vela, once: results are kept in the user's cache directory.

Vela runs in a process of its own, so that its prints, its state and its crashes stay out of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from npubox.errors import ModelError
from npubox.formats.tflite import read_network, require_quantized, without_offline_plan

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
CONFIGURATION_FILE = "Arm/vela.ini"  # comes with Vela and holds the system configurations and memory modes
STEM = "network"
OWN_OPTIONS = ("--output-dir", "--output-format", "--accelerator-config")
EXCEPTION_NAME = re.compile(r"^(?:[\w.]+(?:Error|Exception): |vela: )?['\"]?(?:[Ee]rror: )?")


OPTIMISATIONS = ("Performance", "Size")


@dataclass(frozen=True)
class CompileOptions:
    """How Vela compiles. Where it is None, `system_config` and `memory_mode` (sections of Vela's own
    configuration file, such as `Ethos_U65_High_End` and `Shared_Sram`) are what the device's machine names;
    `optimise` is "Performance", Vela's default, or "Size"; `legacy` takes the generator that all of Vela
    used before version 4.
    """

    system_config: str | None = None
    memory_mode: str | None = None
    optimise: str | None = None
    legacy: bool = False

    def for_machine(self, system_config: str | None, memory_mode: str | None) -> CompileOptions:
        """With a machine's own where nothing was said. Vela takes the two together only."""
        if memory_mode is None:
            return self
        return replace(
            self,
            system_config=self.system_config or system_config,
            memory_mode=self.memory_mode or memory_mode,
        )

    @property
    def extra(self) -> tuple[str, ...]:
        """The further ones as Vela's command line takes them. Raises ModelError."""
        if self.optimise not in (None, *OPTIMISATIONS):
            raise ModelError(f"Vela optimises for {' or '.join(OPTIMISATIONS)}, not for {self.optimise!r}")
        optimise = ("--optimise", self.optimise) if self.optimise else ()
        return (*optimise, *(("--debug-force-legacy-core",) if self.legacy else ()))


@dataclass(frozen=True)
class CompiledFile:
    """A network compiled for one accelerator. `path` is None where the cache cannot be written."""

    path: Path | None
    content: bytes
    cached: bool  # whether it was there already
    version: str  # Vela's


def compile_network(
    source: Path | str | bytes,
    accelerator: str,
    *,
    system_config: str | None = None,
    memory_mode: str | None = None,
    extra: tuple[str, ...] = (),
    cache: bool = True,
) -> CompiledFile:
    """Compile a quantised .tflite for `accelerator` (Vela's name, such as `ethos-u65-256`).

    `system_config` and `memory_mode` are sections of Vela's own configuration file and go together;
    without them Vela chooses. `extra` are further Vela options. Raises `ModelError` for a network that
    is missing, damaged, float or already compiled, and for whatever Vela refuses.
    """
    network = read_network(source)
    if network.compiled:
        raise ModelError(f"{network.name} already is compiled by Vela: give the .tflite it was made from")
    require_quantized(network)
    options = _options(accelerator, system_config, memory_mode, extra)
    version = metadata.version("ethos-u-vela")
    content = without_offline_plan(network.content)
    key = _key(content, version, options)
    directory = cache_directory() if cache else None
    found = _find(directory, key) if directory else None
    if found is not None:
        return CompiledFile(found[0], found[1], cached=True, version=version)
    compiled = _run_vela(network.name, content, options)
    path = _store(directory, key, compiled) if directory else None
    return CompiledFile(path, compiled, cached=False, version=version)


def compile_with(options: CompileOptions, source: Path | str | bytes, accelerator: str) -> CompiledFile:
    """`compile_network` with options, and the cache. Raises `ModelError` as that does."""
    return compile_network(
        source,
        accelerator,
        system_config=options.system_config,
        memory_mode=options.memory_mode,
        extra=options.extra,
    )


def cache_directory() -> Path:
    """Where compiled networks are kept: $XDG_CACHE_HOME or ~/.cache, then npubox/vela."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~/.cache"))
    return root / "npubox" / "vela"


def _options(
    accelerator: str, system_config: str | None, memory_mode: str | None, extra: tuple[str, ...]
) -> list[str]:
    if accelerator not in ACCELERATORS:
        raise ModelError(f"Vela compiles for no {accelerator}: take one of {', '.join(ACCELERATORS)}")
    for option in extra:
        if option.split("=")[0] in OWN_OPTIONS:
            raise ModelError(f"npubox gives Vela its {option.split('=')[0]} itself: leave that option out")
    options = ["--accelerator-config", accelerator]
    if (system_config is None) != (memory_mode is None):
        raise ModelError("Vela takes a system configuration and a memory mode together: give both or neither")
    if system_config is not None and memory_mode is not None:
        if not any(option.split("=")[0] == "--config" for option in extra):
            options += ["--config", CONFIGURATION_FILE]
        options += ["--system-config", system_config, "--memory-mode", memory_mode]
    return [*options, *extra]


def _key(content: bytes, version: str, options: list[str]) -> str:
    made_from = [hashlib.sha256(content).hexdigest(), version, options, [_digest(o) for o in options]]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _digest(option: str) -> str | None:
    """The content of an option that names a file (a configuration of the user's own)."""
    path = Path(option.rpartition("=")[2])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _run_vela(name: str, content: bytes, options: list[str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="npubox-vela-") as directory:
        source = Path(directory) / f"{STEM}.tflite"
        source.write_bytes(content)
        command = [
            sys.executable,
            "-P",
            "-m",
            "ethosu.vela",
            str(source),
            "--output-dir",
            directory,
            *options,
        ]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        output = Path(directory) / f"{STEM}_vela.tflite"
        if run.returncode or not output.is_file():
            raise ModelError(f"Vela cannot compile {name}: {_reason(run)}")
        return output.read_bytes()


def _reason(run: subprocess.CompletedProcess[str]) -> str:
    if run.returncode < 0:
        return f"it died of {signal.Signals(-run.returncode).name}"
    lines = [line.strip() for line in (run.stdout + "\n" + run.stderr).splitlines() if line.strip()]
    if not lines:
        return f"it ended with status {run.returncode} and said nothing"
    return EXCEPTION_NAME.sub("", lines[-1]).strip("'\"")


# An entry is <key>-<start of its content's sha256>.tflite: what was damaged on the way is never taken.


def _entry(directory: Path, key: str, content: bytes) -> Path:
    return directory / f"{key}-{hashlib.sha256(content).hexdigest()[:16]}.tflite"


def _find(directory: Path, key: str) -> tuple[Path, bytes] | None:
    with contextlib.suppress(OSError):
        for path in sorted(directory.glob(f"{key}-*.tflite")):
            content = path.read_bytes()
            if path == _entry(directory, key, content):
                return path, content
    return None


def _store(directory: Path, key: str, content: bytes) -> Path | None:
    """Write the entry under a name of our own and rename it, so that others see all of it or nothing."""
    path = _entry(directory, key, content)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".", delete=False) as unfinished:
            unfinished.write(content)
        os.replace(unfinished.name, path)
    except OSError:
        return None  # a cache that cannot be written costs time, not the run
    return path
