# SPDX-License-Identifier: Apache-2.0
"""AWS Inferentia (v1) as its driver sees it: registers, descriptors, messages.

Declarations only. Source: the project's facts (neuron.md), whose sections the modules name. What is not
public and so our own choice is in `notification` and `gate`, and says so.
"""
