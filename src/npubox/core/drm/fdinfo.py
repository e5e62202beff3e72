# SPDX-License-Identifier: Apache-2.0
"""What /proc/PID/fdinfo/FD tells of an open DRM file: clients of it are told apart and summed up by these
lines. Source: the project's facts (accel-core.md §1.8). All functions need the device's lock."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from npubox.core.drm.gem import GemObject, Status
from npubox.core.drm.reservation import Usage

if TYPE_CHECKING:
    from npubox.core.drm.file import DrmFile

PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
Line = tuple[str, str]


def show(file: DrmFile) -> str:
    """The lines after the generic ones, empty where the driver has none or the device is unplugged."""
    device, driver = file.device, file.device.driver
    if not driver.shows_fdinfo or device.unplugged:
        return ""
    lines = [("drm-driver", driver.name), ("drm-client-id", str(file.client_id))]
    if PCI_ADDRESS.fullmatch(device.parent):
        lines.append(("drm-pdev", device.parent))
    if file.name is not None:
        lines.append(("drm-client-name", file.name))
    lines += driver.show_fdinfo(file)
    return "".join(f"{key}:\t{value}\n" for key, value in lines)


def memory_stats(file: DrmFile, region: str = "memory") -> list[Line]:
    """A driver's lines on the buffers of a file: one that has two handles counts twice."""
    objects = file.handles.values()
    status = {item: item.status for item in objects}
    known = [what for what in status.values() if what is not None]
    active = [item for item in objects if item.reservation.fences(Usage.READ)]
    shared = [item for item in objects if item.handle_count > 1 or item.dma_buf is not None]
    groups: list[tuple[str, list[GemObject]]] = [("total", objects), ("shared", shared)]
    if active:
        groups.append(("active", active))
    if known:
        for group, bit in (("resident", Status.RESIDENT), ("purgeable", Status.PURGEABLE)):
            groups.append((group, [item for item in objects if (status[item] or 0) & bit]))
    return [(f"drm-{group}-{region}", amount(item.size for item in items)) for group, items in groups]


def engine_stats(engine: str, busy_ns: int, capacity: int = 1) -> list[Line]:
    """A driver's lines on an engine: how long it has worked for the file, and how many there are of it."""
    lines = [(f"drm-engine-{engine}", f"{busy_ns} ns")]
    if capacity > 1:
        lines.append((f"drm-engine-capacity-{engine}", str(capacity)))
    return lines


def amount(sizes: Iterable[int]) -> str:
    """A sum of bytes, in KiB or MiB as long as it divides."""
    value = sum(sizes)
    for unit in ("", " KiB"):
        if value == 0 or value % 1024:
            return f"{value}{unit}"
        value //= 1024
    return f"{value} MiB"
