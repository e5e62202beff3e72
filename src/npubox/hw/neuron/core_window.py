# SPDX-License-Identifier: Apache-2.0
"""A NeuronCore's 64 MiB window (BAR 2): semaphores, events, instruction FIFO (facts, neuron.md §1.3, §10.2).

What else is in the window is not public. Each of these words is a register, a DMA destination too.
"""

from __future__ import annotations

PE_FIFO = 0x265_C000
PE_FIFO_SIZE = 0x4000

EVENTS = 0x270_0000
EVENT_COUNT = 256

SEMAPHORE_COUNT = 32
SEMAPHORE_READ = 0x270_1000
SEMAPHORE_SET = 0x270_1100
SEMAPHORE_INCREMENT = 0x270_1200
SEMAPHORE_DECREMENT = 0x270_1300
SEMAPHORES_END = 0x270_1400
