# SPDX-License-Identifier: Apache-2.0
"""A second, slow, independent model of the Ethos-U55 and U65, to hold the virtual device against.

Written from the project's facts (ethosu-npu.md) alone: it shares command names with the device, and
nothing else. No caches, no compiled kernels; every run decodes everything again.
"""

from __future__ import annotations

from .errors import Fault, Refused
from .interpreter import run

__all__ = ["Fault", "Refused", "run"]
