"""Which layer of the published YOLOs is which of ours: numbers in their tables of layers, names here.

Their files name a tensor by the number of its layer in the table and by the layer's own parts: the first convolution of
YOLOv5's spatial pyramid is `model.9.cv1.conv.weight`.

Source: tables of layers of YOLOv5 (release 6) and of S2's appendices H to J; names as they stand in published files.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from waferlens.errors import UsageError
from waferlens.models.coord_conv import CoordConv
from waferlens.models.detector import DetectorNet
from waferlens.models.foreign_match import Alone, Layer
from waferlens.models.slim_neck import GSConv, GSConvMixed, VoVGSCSP
from waferlens.models.yolo_blocks import ChainedPyramid, ConvNorm, CspBlock
from waferlens.models.yolov5 import YoloV5Net
from waferlens.models.yolov7_tiny import YoloV7TinyNet

YOLOV5 = {
    0: "stem", 1: "stage_2.0", 2: "stage_2.1", 3: "stage_3.0", 4: "stage_3.1", 5: "stage_4.0", 6: "stage_4.1",
    7: "stage_5.0", 8: "stage_5.1", 9: "pyramid", 10: "narrow_5", 13: "up_4", 14: "narrow_4", 17: "up_3", 18: "down_3",
    20: "out_4", 21: "down_4", 23: "out_5",
}  # fmt: skip
"""Layers with weights; its head is layer 24."""
YOLOV5_HEAD = 24


def _elan(first: int, name: str) -> dict[int, str]:
    parts = ("past", "through", "first", "second", "", "join")  # the fifth joins and has no weights
    return {first + place: f"{name}.{part}" for place, part in enumerate(parts) if part}


YOLOV7_TINY_TRUNK = {
    0: "stem.0", 1: "stem.1", **_elan(2, "stage_2"), **_elan(9, "stage_3"), **_elan(16, "stage_4"),
    **_elan(23, "stage_5"), 29: "pyramid.past", 30: "pyramid.narrow", 35: "pyramid.merge", 37: "pyramid.join",
    38: "narrow_5", 40: "route_4",
}  # fmt: skip
"""Backbone, pyramid and what the three necks share."""
YOLOV7_TINY = YOLOV7_TINY_TRUNK | {
    **_elan(42, "up_4"), 48: "narrow_4", 50: "route_3", **_elan(52, "up_3"), 58: "down_3", **_elan(60, "out_4"),
    66: "down_4", **_elan(68, "out_5"), 74: "last_3", 75: "last_4", 76: "last_5",
}  # fmt: skip
"""Plain and CoordConv; the head is layer 77."""
YOLOV7_TINY_SLIM = YOLOV7_TINY_TRUNK | {
    42: "up_4", 43: "narrow_4", 45: "route_3", 47: "up_3", 48: "down_3", 50: "out_4", 51: "down_4", 53: "out_5",
    54: "last_3", 55: "last_4", 56: "last_5",
}  # fmt: skip
"""Slim-neck; the head is layer 57."""
YOLOV7_HEAD, YOLOV7_SLIM_HEAD = 77, 57


def yolo_table(network: DetectorNet) -> tuple[dict[int, str], int]:
    """Our names of the numbered layers, and the number of the head.

    Raises:
        UsageError: the network is no YOLO.
    """
    match network.body:
        case YoloV5Net():
            return YOLOV5, YOLOV5_HEAD
        case YoloV7TinyNet() as body if isinstance(body.up_4, VoVGSCSP):
            return YOLOV7_TINY_SLIM, YOLOV7_SLIM_HEAD
        case YoloV7TinyNet():
            return YOLOV7_TINY, YOLOV7_HEAD
    raise UsageError(f"a {type(network.body).__name__} is no published network; weights of others fit none of it")


def yolo_name(network: DetectorNet) -> str:
    """What its weights are called.

    Raises:
        UsageError: the network is no YOLO.
    """
    yolo_table(network)
    return "YOLOv5" if isinstance(network.body, YoloV5Net) else "YOLOv7-tiny"


def yolo_layers(network: DetectorNet) -> tuple[list[Layer], list[Alone]]:
    """Every convolution under the name it has in published files, and what stands beside those of the head.

    Raises:
        UsageError: the network is no YOLO.
    """
    table, last = yolo_table(network)
    layers = [
        layer
        for number, name in table.items()
        for layer in _parts(network.body.get_submodule(name), f"body.{name}", f"model.{number}")
    ]
    if network.prototypes is not None:
        for ours, theirs in (("first", "cv1"), ("second", "cv2"), ("last", "cv3")):
            layers.append(_convolution(f"prototypes.{ours}", f"model.{last}.proto.{theirs}"))
    strides = torch.tensor(network.head.strides_px, dtype=torch.float32)[:, None, None]
    alone = [Alone("head.anchors_px", f"model.{last}.anchors", f"model.{last}.m.0.weight", strides)]
    for place in range(len(network.head.strides_px)):
        weights = f"model.{last}.m.{place}"
        layers.append(Layer(f"head.maps.{place}", weights))
        if isinstance(network.body, YoloV7TinyNet):
            for ours, theirs in (("add", "ia"), ("multiply", "im")):
                alone.append(
                    Alone(f"head.{ours}.{place}.vector", f"model.{last}.{theirs}.{place}.implicit", f"{weights}.weight")
                )
    return layers, alone


def _convolution(ours: str, theirs: str) -> Layer:
    return Layer(f"{ours}.conv", f"{theirs}.conv", f"{ours}.norm", f"{theirs}.bn")


def _parts(part: nn.Module, ours: str, theirs: str) -> Iterator[Layer]:
    """The convolutions of one numbered layer."""
    match part:
        case ConvNorm():
            yield _convolution(ours, theirs)
        case CspBlock():
            for mine, other in (("through", "cv1"), ("past", "cv2"), ("join", "cv3")):
                yield _convolution(f"{ours}.{mine}", f"{theirs}.{other}")
            for place in range(len(part.blocks)):
                yield _convolution(f"{ours}.blocks.{place}.narrow", f"{theirs}.m.{place}.cv1")
                yield _convolution(f"{ours}.blocks.{place}.wide", f"{theirs}.m.{place}.cv2")
        case ChainedPyramid():
            yield _convolution(f"{ours}.narrow", f"{theirs}.cv1")
            yield _convolution(f"{ours}.join", f"{theirs}.cv2")
        case CoordConv():
            yield _convolution(f"{ours}.conv", f"{theirs}.conv")
        case GSConv():
            yield _convolution(f"{ours}.dense", f"{theirs}.cv1")
            yield _convolution(f"{ours}.depthwise", f"{theirs}.cv2")
            if isinstance(part, GSConvMixed):
                yield Layer(f"{ours}.mix", f"{theirs}.shuf")
        case VoVGSCSP():
            for mine, other in (("through", "cv1"), ("past", "cv2"), ("unused", "res"), ("join", "cv3")):
                yield _convolution(f"{ours}.{mine}", f"{theirs}.{other}")
            inner = f"{theirs}.gsb.0"
            for place, one in enumerate(part.bottleneck.path):
                yield from _parts(one, f"{ours}.bottleneck.path.{place}", f"{inner}.conv_lighting.{place}")
            yield _convolution(f"{ours}.bottleneck.beside", f"{inner}.shortcut")
        case _:
            raise TypeError(f"{ours} is a {type(part).__name__}, which has no published name")
