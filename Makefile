# SPDX-License-Identifier: Apache-2.0
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Hundreds of tests start a Python of their own: each would compile all of ours anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-bounds test-portable test-vm test-fuzz test-fuzz-served conformance lint bench clean

# What the fuzzer damages when the kernels check their array indices
BOUNDED := conv_3x3_int8 depthwise_3x3_int8 add_different_scales_int8 avg_pool_3_same_int8 dense_int16 \
           attention_int8 conv_3x3_uint8 gru_int16 bilinear_x2_int8 dscnn_int8

help:
	@echo "make demo              set up and recognise handwritten digits on a virtual Ethos-U65-256"
	@echo "make test              set up and run every check (ruff, mypy, import contracts, pytest)"
	@echo "make test-bounds       damaged streams, with array bounds checked in the compiled kernels (minutes)"
	@echo "make test-portable     the kernels for CPUs without AVX512-VNNI, against the oracles"
	@echo "make test-vm           stock Debian kernels in QEMU 11: a virtual PCI device; programs of aarch64 (downloads 250 MB once)"
	@echo "make test-fuzz         a million random ioctls on the accel core, in process (minutes)"
	@echo "make test-fuzz-served  the same through npubox exec, by programs in C, and 100 000 on an Ethos-U (minutes)"
	@echo "make conformance       the kernel's own tests of the accel core (downloads 31 MB once); writes docs/conformance.md"
	@echo "make bench             the benchmarks against LiteRT, printed as a table"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "npubox needs Python 3.11 or newer; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/digits.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

test-bounds: $(VENV)/.installed
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m tests.devices.fuzz --runs 60 --seed 1 --networks $(BOUNDED)

test-portable: $(VENV)/.installed
	NPUBOX_PORTABLE=1 $(BIN)/python -m pytest tests/devices/test_portable.py

test-vm: $(VENV)/.installed
	NPUBOX_TEST_VM=1 $(BIN)/python -m pytest tests/vm

test-fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.core.fuzz --calls 1000000

test-fuzz-served: $(VENV)/.installed
	$(BIN)/python -m tests.serve.million --machine refaccel --calls 1000000
	$(BIN)/python -m tests.serve.million --machine imx93 --calls 100000

conformance: $(VENV)/.installed
	$(BIN)/python -m tests.conformance --write

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
