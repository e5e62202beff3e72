# SPDX-License-Identifier: Apache-2.0
"""Device events as udev would get them: a device came or went.

They go to whoever subscribed in this process, as there is no netlink socket to send them by. Source: the
project's facts (accel-core.md §1.2, §1.3)."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

_log = logging.getLogger(__name__)
_guard = threading.Lock()
_sequence = itertools.count(1)
_subscribers: list[Callable[[Uevent], None]] = []


class Uevent(NamedTuple):
    """`action` is add or remove; `device` the kernel's name of it, such as accel0; `properties` what
    the event carries, as KEY: value."""

    action: str
    device: str
    properties: dict[str, str]


def subscribe(subscriber: Callable[[Uevent], None]) -> None:
    """Have `subscriber` called with each event of this process's devices, on any thread, perhaps under a
    device's lock: it must not block nor call the device."""
    with _guard:
        _subscribers.append(subscriber)


def unsubscribe(subscriber: Callable[[Uevent], None]) -> None:
    with _guard:
        _subscribers.remove(subscriber)


def send(action: str, device: str, properties: dict[str, str]) -> None:
    event = Uevent(action, device, {"ACTION": action, **properties, "SEQNUM": str(next(_sequence))})
    with _guard:
        subscribers = list(_subscribers)
    for subscriber in subscribers:
        try:
            subscriber(event)
        except Exception:
            _log.exception("a subscriber of device events failed")
