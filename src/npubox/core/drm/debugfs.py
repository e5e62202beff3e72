# SPDX-License-Identifier: Apache-2.0
"""The texts of a device's files in debugfs. Of an accel device Linux 7.2 shows `name` alone; `clients` and
`gem_names` are what it shows of other DRM devices. Source: the project's facts (accel-core.md §1.4)."""

from __future__ import annotations

from npubox.core.drm.device import DrmDevice
from npubox.core.drm.file import DrmFile


def files(device: DrmDevice) -> dict[str, str]:
    """By name, as they read now."""
    with device.lock:
        return {"name": name(device), "clients": clients(device), "gem_names": gem_names(device)}


def name(device: DrmDevice) -> str:
    return f"{device.driver.name} dev={device.parent} unique={device.unique}\n"


def clients(device: DrmDevice) -> str:
    """Who has the node open, the youngest first. Under the lock."""
    head = f"{'command':>20} {'tgid':>5} {'dev':>3} master a {'uid':>5} {'magic':>10}"
    return f"{head} {'name':>64} {'id':>20}\n" + "".join(_client(file) for file in device.files)


def gem_names(device: DrmDevice) -> str:
    """The objects that have a name. Under the lock."""
    rows = (
        f"{item.flink_name:>6} {item.size:>8} {item.handle_count:>7} {item.refcount:>8}\n"
        for item in device.flink_names.values()
    )
    return "  name     size handles refcount\n" + "".join(rows)


def _client(file: DrmFile) -> str:
    command, uid = _process(file.pid)
    authenticated = "y" if file.authenticated else "n"
    return (
        f"{command:>20} {file.pid:>5} {file.device.minor:>3}   n    {authenticated} {uid:>5} {0:>10} "
        f"{file.name or '<unset>':>64} {file.client_id:>20}\n"
    )


def _process(pid: int) -> tuple[str, int]:
    """The command and effective user of a process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    except OSError:
        return "<unknown>", 0
    return fields["Name"], int(fields["Uid"].split()[1])
