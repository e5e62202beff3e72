# SPDX-License-Identifier: Apache-2.0
"""Run a network on an NPU: python examples/highlevel.py [MODEL.tflite [DEVICE]]"""

import sys
from pathlib import Path

import numpy as np

import npubox

DIGITS = Path(__file__).parent / "digits"


def main(model: str | Path, device_name: str) -> None:
    with npubox.open(device_name) as device, device.load(model) as network:
        images = [np.zeros(info.shape, info.dtype) for info in network.inputs]
        if network.inputs[0].shape == (1, 8, 8, 1):
            images = [np.load(DIGITS / "test.npz")["inputs"][:1]]  # a handwritten digit
        scores = network(*images)  # numpy in, numpy out
        print("outputs", scores)
        with network.submit(*images) as inference:  # the same without waiting at once
            inference.wait(timeout=60.0)
            print("class", int(np.argmax(inference.outputs[0])), "cycles", inference.cycles)


if __name__ == "__main__":
    try:
        main(
            sys.argv[1] if len(sys.argv) > 1 else DIGITS / "digits.tflite",
            sys.argv[2] if len(sys.argv) > 2 else "ethos-u65-256",
        )
    except (npubox.DeviceError, npubox.ModelError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        sys.exit(2)
