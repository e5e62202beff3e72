# SPDX-License-Identifier: Apache-2.0
"""What an operation wrote, read back for whoever watches: the control channel's debugging aid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.commands import Command
from npubox.devices.ethosu_npu.memory import MapLayout, Regions
from npubox.devices.ethosu_npu.operations import FeatureMap
from npubox.devices.ethosu_npu.values import load_values
from npubox.hw.ethosu.commands import Upscale

Tap = Callable[[Command, FeatureMap, npt.NDArray[Any]], None]
"""Called after each operation that has an OFM, on the NPU's thread, with what then lies in memory."""


def read_back(regions: Regions, fm: FeatureMap) -> npt.NDArray[Any]:
    """The feature map [height, width, channels] in its own dtype. Raises DmaFault."""
    kind = "i" if fm.signed else "u"
    values = load_values(regions, MapLayout(fm), Upscale.NONE, (0, 0), 0)
    return values.astype(np.dtype(f"{kind}{fm.element_size}"))
