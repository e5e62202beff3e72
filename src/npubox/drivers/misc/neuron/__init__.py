# SPDX-License-Identifier: Apache-2.0
"""The driver of AWS Inferentia (v1) behind /dev/neuron<N>: the Neuron kernel module 2.24 in user space."""
