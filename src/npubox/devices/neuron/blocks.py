# SPDX-License-Identifier: Apache-2.0
"""BAR 0 as a table of blocks."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Block(Protocol):
    """Registers; offsets are from the block's base."""

    def reset(self) -> None: ...

    def read(self, offset: int) -> int: ...

    def write(self, offset: int, value: int) -> bool:
        """Under the chip's lock. Returns whether something was stopped whose last slice may still run."""


class RegisterFile:
    """A block that only remembers what was written."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._registers: dict[int, int] = {}

    def read(self, offset: int) -> int:
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> bool:
        self._registers[offset] = value
        return False


class Placed(NamedTuple):
    base: int
    size: int
    block: Block


class BlockTable:
    """Blocks that do not overlap and start on pages of 4 KiB."""

    def __init__(self, blocks: list[Placed]) -> None:
        self._blocks = blocks
        self._pages = {
            page: placed
            for placed in blocks
            for page in range(placed.base >> 12, (placed.base + placed.size + 0xFFF) >> 12)
        }

    def find(self, offset: int) -> tuple[Block, int] | None:
        """The block at an offset and the offset in it."""
        placed = self._pages.get(offset >> 12)
        if placed is None or offset >= placed.base + placed.size:
            return None
        return placed.block, offset - placed.base

    def reset(self) -> None:
        for placed in self._blocks:
            placed.block.reset()
