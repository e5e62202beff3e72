# SPDX-License-Identifier: Apache-2.0
"""The typed client of /dev/neuron<N>; its public face is `npubox.neuron`."""
