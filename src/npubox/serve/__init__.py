# SPDX-License-Identifier: Apache-2.0
"""The supervisor behind `npubox exec`: device nodes for unmodified programs, without a kernel module."""
