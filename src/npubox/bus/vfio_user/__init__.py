# SPDX-License-Identifier: Apache-2.0
"""vfio-user: a PCI function served over a socket, as QEMU 11 speaks it, and our own client of it.

Source: the project's facts (vfio-user.md), whose sections the modules name.
"""
