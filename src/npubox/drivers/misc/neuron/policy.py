# SPDX-License-Identifier: Apache-2.0
"""What the driver answers where the kernel module has a defect.

Each use says which one; the list is in docs/neuron.md. Source: the project's facts (neuron.md §14).
"""

from __future__ import annotations

from enum import StrEnum


class Policy(StrEnum):
    """A preset's `policy`."""

    STRICT = "strict"
    """One clear errno for each mistake, nothing done by halves."""
    MODULE = "module"
    """What module 2.24.7.0 answers, defects included, short of those that crash the kernel."""
