# SPDX-License-Identifier: Apache-2.0
"""Arm's Ethos-U library in Python, for `/dev/ethosu<N>`: see `npubox.client.ethosu`."""

from npubox.client.ethosu import Buffer, Capabilities, Device, Inference, Network, Pmu, Status
from npubox.errors import InferenceFailed

__all__ = ["Buffer", "Capabilities", "Device", "Inference", "InferenceFailed", "Network", "Pmu", "Status"]
