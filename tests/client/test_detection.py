# SPDX-License-Identifier: Apache-2.0
"""SSD networks run whole: the detection at their end, on the CPU, has outputs without a shape in the file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import npubox
from npubox.errors import ModelError
from npubox.fallback.verify import reference_outputs
from npubox.formats.tflite import read_network
from tests.corpus.ssd import OPTIONS, SIZE, ssd

DETECTION = "TFLite_Detection_PostProcess"


@pytest.fixture(scope="module", params=["ethos-u65-256", "ethos-u55-128"])
def device(request: pytest.FixtureRequest) -> Iterator[npubox.Device]:
    with npubox.open(request.param) as opened:
        yield opened


@pytest.mark.parametrize(
    ("dtype", "dequantised", "options"),
    [
        (np.uint8, False, {}),
        (np.uint8, False, {"use_regular_nms": True, "max_detections": 12}),
        (np.int8, True, {"max_classes_per_detection": 2}),
    ],
    ids=["uint8", "regular", "int8 with DEQUANTIZE"],
)
def test_equals_litert_on_the_whole_network(
    device: npubox.Device, dtype: type[np.integer], dequantised: bool, options: dict[str, object]
) -> None:
    content = ssd(dtype, dequantised=dequantised, **options)
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(5)
    with device.load(content) as network:
        assert DETECTION in network.placement.cpu
        assert "CONV_2D" in network.placement.npu
        for _ in range(2):
            picture = rng.integers(limits.min, limits.max + 1, (1, SIZE, SIZE, 3)).astype(dtype)
            expected = reference_outputs(content, [picture])
            found = network(picture)
            assert len(found) == 4
            for ours, theirs in zip(found, expected.outputs, strict=True):
                np.testing.assert_array_equal(ours, theirs, strict=True)
            scores = found[2]
            assert len(np.unique(scores)) > 3, "detections that tell something"


def test_shapes_follow_from_the_options() -> None:
    network = read_network(ssd(np.uint8, max_classes_per_detection=3))
    n = OPTIONS["max_detections"] * 3
    assert [network.tensors[i].shape for i in network.outputs] == [(1, n, 4), (1, n), (1, n), (1,)]


@pytest.mark.parametrize("detections", [0, -1, 1 << 40])
def test_senseless_options_are_refused(detections: int) -> None:
    with pytest.raises(ModelError, match="detections"):
        read_network(ssd(np.uint8, max_detections=detections))
