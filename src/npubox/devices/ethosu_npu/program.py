# SPDX-License-Identifier: Apache-2.0
"""The steps of a plan as rows for `kernels.program`, so that many run in one call.

A row is made by its step once the Python form has run and knows what it needs (decoded weights, byte
tables); all rows share one scratch buffer, as the NPU executes one operation at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.kernels import program as native
from npubox.devices.ethosu_npu.kernels.program import COLUMNS, Col, Opcode, State
from npubox.devices.ethosu_npu.memory import MapLayout, Regions, Shram
from npubox.devices.ethosu_npu.operations import FeatureMap, Output, Shift
from npubox.devices.ethosu_npu.values import TABLE16_ENTRIES, TABLE_ENTRIES

Int64Array = npt.NDArray[np.int64]

ALIGNMENT = 64
_START = 2  # of a feature map's columns


class Row:
    """One row under construction; keeps alive the arrays whose addresses it holds."""

    def __init__(self, opcode: Opcode) -> None:
        self.cells: Int64Array = np.zeros(COLUMNS, np.int64)
        self.cells[Col.OPCODE] = opcode
        self.keeps: list[object] = []

    def feature_map(self, column: Col, layout: MapLayout) -> None:
        address = self.address(layout.vector)
        self.cells[column : column + 4] = address, layout.region, layout.start, layout.size

    def ofm(self, fm: FeatureMap, layout: MapLayout) -> None:
        self.feature_map(Col.OFM, layout)
        self.cells[Col.OFM_HEIGHT : Col.OFM_DEPTH + 1] = fm.height, fm.width, fm.depth

    def ifm(self, layout: MapLayout, height: int, width: int) -> None:
        """`height` and `width` as the kernel wants them: stored, or after upscaling."""
        self.feature_map(Col.IFM, layout)
        self.cells[Col.HEIGHT : Col.DEPTH + 1] = height, width, layout.shape[2]

    def table(self, output: Output, fm: FeatureMap) -> None:
        """The lookup table that the operation ends in, if any."""
        if output.table is None:
            return
        entries, size = (TABLE16_ENTRIES, 4) if output.table_16bit else (TABLE_ENTRIES, fm.element_size)
        self.cells[Col.TABLE : Col.TABLE + 4] = 256 * output.table, entries, size, fm.signed

    def streams(self, places: Sequence[tuple[int, int]], copies: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Bytes the row was made from: (region, start) each, and the copies they must still equal."""
        for n, ((region, start), copy) in enumerate(zip(places, copies, strict=True)):
            column = Col.STREAM0 + 4 * n
            self.cells[column : column + 4] = region, start, copy.size, self.address(copy)
        self.cells[Col.STREAMS] = len(copies)

    def address(self, array: npt.NDArray[np.generic]) -> int:
        """The address of a contiguous array that stays alive as long as the row."""
        assert array.flags.c_contiguous
        self.keeps.append(array)
        return int(array.ctypes.data)

    def arguments(self, *values: int) -> None:
        self.cells[Col.A0 : Col.A0 + len(values)] = values


class Scratch:
    """Hands out pieces of the shared buffer to one row."""

    def __init__(self, address: int) -> None:
        self._next = address

    def take(self, size: int) -> int:
        """The address of `size` bytes of scratch."""
        address = self._next
        self._next += -(-size // ALIGNMENT) * ALIGNMENT
        return address


class Step(Protocol):
    """Something the NPU executes; `run` raises DmaFault or Refused and then may have written part."""

    @property
    def scratch_bytes(self) -> int:
        """What its row takes from the scratch buffer."""

    def run(self, regions: Regions, shram: Shram) -> None: ...

    def row(self, scratch: Scratch) -> Row | None:
        """After a run: the same as a row, or None where only Python can do it."""

    def moved(self, shift: Shift) -> Step:
        """The same on feature maps that lie elsewhere; it shares all that was prepared."""


class Member(Protocol):
    """What `Program` needs of the family of a step: `step` is that of its first member."""

    @property
    def step(self) -> Step | None: ...


class Program:
    """The rows of a plan's steps, in order; those not known yet, and None, are left to Python.

    Of steps that are one but for where their feature maps lie, one run makes the rows of all.
    """

    def __init__(self, members: Sequence[tuple[Member, Shift]]) -> None:
        self._members = members
        self._rows: Int64Array = np.zeros((len(members), COLUMNS), np.int64)
        self._keeps: dict[int, Row | None] = {}
        self._families: dict[Member, list[int]] = {}
        for index, (family, _) in enumerate(members):
            self._families.setdefault(family, []).append(index)
        self._unlearned = set(self._families)
        steps = [family.step for family in self._families if family.step is not None]
        most = max((step.scratch_bytes for step in steps), default=0)
        self._scratch: npt.NDArray[np.uint8] = np.empty(most + ALIGNMENT, np.uint8)

    def run(self, first: int, last: int, regions: Regions, shram: Shram, state: Int64Array) -> int:
        """Execute rows first .. last - 1; the index of the first that was left to Python, or last."""
        return native.run(self._rows, first, last, regions.windows, shram.address, state)

    def assist(self, shram: Shram, state: Int64Array) -> int:
        """Share the work of `run`, called in another thread, until it is told to leave."""
        return native.assist(self._rows, shram.address, state)

    def learn(self, index: int, step: Step) -> None:
        """The Python form of step `index` has run: remember it as a row."""
        row = step.row(Scratch(-(-self._scratch.ctypes.data // ALIGNMENT) * ALIGNMENT))
        self._keeps[index] = row
        self._rows[index] = 0 if row is None else row.cells
        family, shift = self._members[index]
        if row is not None and family in self._unlearned:
            self._unlearned.remove(family)
            self._spread(row, self._families[family], shift)

    def _spread(self, row: Row, indices: list[int], shift: Shift) -> None:
        """`row`, whose step lies at `shift`, for all of its family."""
        self._keeps[-1 - indices[0]] = row
        shifts = [self._members[index][1] for index in indices]
        self._rows[indices] = row.cells
        for column, field in ((Col.IFM, "ifm"), (Col.IFM2, "ifm2"), (Col.OFM, "ofm")):
            moves = np.array([getattr(other, field) for other in shifts], np.int64)
            self._rows[indices, column + _START] += moves - getattr(shift, field)


def new_state() -> Int64Array:
    """The cells that `Program.run` shares with whoever watches it."""
    return np.zeros(len(State), np.int64)


def padded(*sizes: int) -> int:
    """Scratch bytes for pieces of these sizes."""
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)
