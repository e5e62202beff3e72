# SPDX-License-Identifier: Apache-2.0
"""How the plain interpreter says that it did not execute something."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - the hardware's side of the story, not ours
    """A command (`name`, at byte `offset` of the stream) that the facts do not say how to execute."""

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__(f"{name} at {offset:#x}: {reason}")
        self.name = name
        self.offset = offset
        self.reason = reason


class Fault(Exception):  # noqa: N818
    """An access to `address` (bytes into `region`) that the region does not hold."""

    def __init__(self, region: int | str, address: int, reason: str) -> None:
        super().__init__(f"region {region}, address {address:#x}: {reason}")
        self.region = region
        self.address = address
        self.reason = reason
