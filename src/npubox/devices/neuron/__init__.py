# SPDX-License-Identifier: Apache-2.0
"""A virtual AWS Inferentia (v1), true to what a driver sees of it. docs/neuron.md says what is modelled."""
