# SPDX-License-Identifier: Apache-2.0
"""Many small networks, run on every configuration and compared bit for bit with reference kernels."""
