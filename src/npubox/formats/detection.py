# SPDX-License-Identifier: Apache-2.0
"""TFLite_Detection_PostProcess, in which SSD networks end: exporters leave the shapes of its outputs out.

They follow from its options, a FlexBuffer: boxes [1, n, 4], classes [1, n], scores [1, n] and their count
[1], with n = max_detections * max_classes_per_detection. Source: the operator's kernel, as LiteRT runs it.
"""

from __future__ import annotations

from flatbuffers import flexbuffers  # type: ignore[import-untyped]

NAME = "TFLite_Detection_PostProcess"
MOST_DETECTIONS = 1 << 20

Shape = tuple[int, ...]


def output_shapes(options: bytes) -> tuple[Shape, Shape, Shape, Shape]:
    """The shapes of its four outputs. Raises ValueError for options that name no sensible number, and what
    the FlexBuffer reader raises for damaged ones."""
    fields = flexbuffers.GetRoot(options).AsMap
    detections = fields["max_detections"].AsInt * fields["max_classes_per_detection"].AsInt
    if not 0 < detections <= MOST_DETECTIONS:
        raise ValueError(f"{NAME} makes {detections} detections")
    return (1, detections, 4), (1, detections), (1, detections), (1,)
