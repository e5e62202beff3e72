# SPDX-License-Identifier: Apache-2.0
"""How docs/ethos-u.md is made: features of operations, the evidence for them, the page."""
