# SPDX-License-Identifier: Apache-2.0
"""Drivers of other subsystems than accel, laid out as in the kernel's drivers/misc."""
