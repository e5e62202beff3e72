# SPDX-License-Identifier: Apache-2.0
"""Who makes a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from npubox.core.usermem import UserMemory

CAP_SYS_ADMIN = 21
INITIAL_USER_NAMESPACE = "user:[4026531837]"


class Caller(NamedTuple):
    """Process id, whether it has CAP_SYS_ADMIN now (asked only if it matters), memory."""

    pid: int
    sys_admin: Callable[[], bool]
    memory: UserMemory
