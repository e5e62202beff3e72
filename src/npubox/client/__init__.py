# SPDX-License-Identifier: Apache-2.0
"""The client library: the same on a virtual machine's node, a served one and a real one."""

from npubox.client.buffers import Buffer
from npubox.client.device import Device
from npubox.client.inference import Inference
from npubox.client.network import Network, Session
from npubox.client.tensors import TensorInfo
from npubox.compiler.vela import CompileOptions

__all__ = ["Buffer", "CompileOptions", "Device", "Inference", "Network", "Session", "TensorInfo"]
