# SPDX-License-Identifier: Apache-2.0
"""Every configuration is a machine that can be opened by its NPU's name, and computes the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import npubox
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.hw.ethosu.registers import Product
from npubox.machines import PresetInfo, presets

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
WITH_NPU = [preset for preset in presets() if preset.accelerator is not None]


def test_each_configuration_has_one_owner_of_its_name() -> None:
    names = Counter(name for preset in WITH_NPU for name in preset.devices)
    assert names == Counter(list(CONFIGURATIONS))
    assert all({*preset.devices} <= {preset.accelerator} for preset in WITH_NPU)
    with npubox.open("ethos-u65-256") as device:
        assert device.machine is not None
        assert device.machine.info.name == "imx93"


@pytest.mark.parametrize("preset", WITH_NPU, ids=lambda preset: preset.name)
def test_digits_on_each_machine(preset: PresetInfo) -> None:
    with np.load(DIGITS / "test.npz") as stored:
        inputs, expected = stored["inputs"][:3], stored["expected"][:3]
    configuration = CONFIGURATIONS[str(preset.accelerator)]
    with npubox.open(preset.name) as device, device.load(DIGITS / "digits.tflite") as network:
        assert device.npu.config == configuration.config
        assert device.policy == ("hardware" if configuration.product is Product.U55 else "mainline")
        assert network.placement.cpu == ()
        for image, scores in zip(inputs, expected, strict=True):
            np.testing.assert_array_equal(network(image[None]), scores[None])


def test_policy_replaces_the_machines_own() -> None:
    with npubox.open("imx93", policy="hardware") as device:
        assert device.policy == "hardware"
    with npubox.open("imx93") as device:
        assert device.policy == "mainline"


@pytest.mark.parametrize(
    ("name", "policy", "message"),
    [
        (
            "ethos-u55-64",
            "mainline",
            "no ethos-u55-64: open generic-u55-64 with the policy",
        ),
        ("imx93", "lenient", 'give "mainline" or "hardware"'),
        ("/dev/accel/accel0", "hardware", "host's kernel"),
    ],
)
def test_policies_that_cannot_be(name: str, policy: str, message: str) -> None:
    with pytest.raises(npubox.DeviceError, match=message):
        npubox.open(name, policy=policy)
