# SPDX-License-Identifier: Apache-2.0
"""The Python client on every picture of the digits: python all_digits.py DEVICE NETWORK PICTURES OUTPUT

OUTPUT gets the scores, what the device says of itself, and whether the client takes it for a virtual one.
"""

import sys
from pathlib import Path

import numpy as np

import npubox


def main(name: str, network: str, pictures: str, output: str) -> None:
    inputs = np.load(pictures)["inputs"]
    with npubox.open(name) as device, device.load(Path(network)) as loaded:
        scores = np.concatenate([np.asarray(loaded(picture[np.newaxis])) for picture in inputs])
        npu = device.npu
        about = np.array([npu.id, npu.config, npu.sram_size], np.uint32)
        np.savez(output, scores=scores, about=about, virtual=device.virtual)


if __name__ == "__main__":
    main(*sys.argv[1:])
