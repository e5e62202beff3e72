# SPDX-License-Identifier: Apache-2.0
"""Recognise real handwritten digits on an NPU: `python examples/digits.py [DEVICE]`.

DEVICE is whatever `npubox.open` takes: a virtual ethos-u65-256 where none is named, /dev/accel/accel0 on a
board that has one. Exit code 0 only if the NPU did the work and at least 18 of the 20 pictures are right.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

import npubox

FOLDER = Path(__file__).parent / "digits"
RIGHT_ENOUGH = 18
WITHOUT_COLOUR = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def drawn(pixels: npt.NDArray[np.uint8], colour: bool) -> Text:
    """The picture in half blocks: two rows of pixels a line."""
    text = Text()
    for top, bottom in zip(pixels[::2], pixels[1::2], strict=True):
        for upper, lower in zip(top.tolist(), bottom.tolist(), strict=True):
            if colour:
                style = Style(
                    color=Color.from_rgb(upper, upper, upper), bgcolor=Color.from_rgb(lower, lower, lower)
                )
                text.append("▀", style)
            else:
                text.append(WITHOUT_COLOUR[upper > 127, lower > 127])
        text.append("\n")
    text.rstrip()
    return text


def scored(scores: npt.NDArray[Any]) -> str:
    lines = [
        "  ".join(
            f"[b]{i} {scores[i]:.2f}[/b]" if i == scores.argmax() else f"{i} {scores[i]:.2f}" for i in half
        )
        for half in (range(5), range(5, 10))
    ]
    return "\n".join(lines)


def main(device_name: str) -> int:
    console = Console()
    right, cycles = 0, 0
    pictures = sorted(FOLDER.glob("*.png"))
    with npubox.open(device_name) as device, device.load(FOLDER / "digits.tflite") as network:
        for picture in pictures:
            pixels = np.asarray(Image.open(picture))
            image = (pixels.astype(np.int16) - 128).astype(np.int8).reshape(network.inputs[0].shape)
            started = time.perf_counter()
            with network.submit(image) as inference:
                inference.wait(timeout=60)
                milliseconds = (time.perf_counter() - started) * 1e3
                scores = network.outputs[0].dequantise(inference.outputs[0])[0]
                spent = inference.cycles
            digit = int(scores.argmax())
            correct = digit == int(picture.name[0])
            right += correct
            cycles += spent or 0
            row = Table.grid(padding=(0, 2))
            cost = f"{milliseconds:.2f} ms" if spent is None else f"{spent} cycles, {milliseconds:.2f} ms"
            verdict = f"[b]{digit}[/b] {'[green]right[/]' if correct else '[red]wrong[/]'}"
            row.add_row(
                drawn(pixels, console.color_system is not None),
                f"{picture.name} is a {verdict}\n{scored(scores)}\n{cost}",
            )
            console.print(row)
        on_npu = bool(network.placement.npu) and (cycles > 0 or not device.virtual)
        left = f", on the CPU: {', '.join(network.placement.cpu)}" if network.placement.cpu else ""
        console.print(
            f"[b]{right} of {len(pictures)}[/b] right on {device.name}"
            f" ({device.accelerator}, {'virtual' if device.virtual else 'hardware'});"
            f" on the NPU: {', '.join(network.placement.npu) or 'nothing'}{left}; {cycles} cycles in all"
        )
    return 0 if on_npu and right >= RIGHT_ENOUGH else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "ethos-u65-256"))
    except (npubox.DeviceError, npubox.ModelError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        sys.exit(2)
