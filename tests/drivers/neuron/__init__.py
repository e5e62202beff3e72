# SPDX-License-Identifier: Apache-2.0
"""The Neuron driver on the virtual Inferentia."""
