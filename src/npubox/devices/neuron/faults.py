# SPDX-License-Identifier: Apache-2.0
"""Why a DMA queue stops."""

from __future__ import annotations

from npubox.hw.neuron.notification import ErrorCode


class QueueFault(Exception):  # noqa: N818 - the hardware's own word
    """A descriptor that cannot be executed. `reason` names the descriptor, the address, the rule.

    `receiving`: it is the S2M side's, so it shows in that side's error group.
    """

    def __init__(self, code: ErrorCode, reason: str, receiving: bool = False) -> None:
        self.code = code
        self.reason = reason
        self.receiving = receiving
        super().__init__(f"{code.name}: {reason}")
