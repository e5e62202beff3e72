# SPDX-License-Identifier: Apache-2.0
"""How fast the virtual NPU runs real networks, beside other runtimes: `python -m benchmarks`."""
