# SPDX-License-Identifier: Apache-2.0
"""The Python client on all stored vectors of some networks: python all_networks.py DEVICE FOLDER NAME...

Each network's outputs go to NAME.npz in the working directory.
"""

import sys
from pathlib import Path

import numpy as np

import npubox


def main(name: str, folder: str, *networks: str) -> None:
    with npubox.open(name) as device:
        for network in networks:
            with (
                np.load(Path(folder) / f"{network}.npz") as stored,
                device.load(Path(folder) / f"{network}.tflite") as loaded,
            ):
                numbers = {int(key.partition("_")[2]) for key in stored if key.startswith("input")}
                outputs = {}
                for number in sorted(numbers):
                    inputs = [stored[f"input{i}_{number}"] for i in range(len(loaded.inputs))]
                    with loaded.submit(*inputs) as inference:
                        for index, output in enumerate(inference.outputs):
                            outputs[f"output{index}_{number}"] = output
                np.savez(f"{network}.npz", **outputs)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
