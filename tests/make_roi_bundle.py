"""Finders of packages made by hand: graphs that box and mask what is dark, as a trained network would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from onnx import NodeProto, TensorProto, helper, numpy_helper

from waferlens.bundle.files import Bundle, write_bundle

SIDE_PX = 160
"""Of the detector's input [px]"""
SAM_SIDE_PX = 256
"""Of the square that the other network looks at [px]"""
DARK_GREY = 50.0
"""Below it is a package: bodies of `package_picture` have 31 grey, their board 80."""
make = helper.make_node
AXES = {"axes1": [1], "axes12": [1, 2], "axes13": [1, 3], "axes23": [2, 3]}
"""Along which is reduced, by name."""


def detector(masks: bool, halves: bool = False) -> bytes:
    """Boxes of what is dark in a picture of `SIDE_PX`, one box, or one of each half; with masks if asked.

    A box is at the outermost rows and columns in which a pixel is dark. Its score is nine times the dark share, at
    the most 0.9.
    """
    side, spans = SIDE_PX, [(0, SIDE_PX // 2), (SIDE_PX // 2, SIDE_PX)] if halves else [(0, SIDE_PX)]
    places = np.arange(side, dtype=np.float32)
    numbers: dict[str, np.ndarray] = {
        "limit": np.float32(DARK_GREY), "some": np.float32(0.004), "nine": np.float32(9.0), "most": np.float32(0.9),
        "places": places[None], "far": np.float32(1e4), "near": np.float32(-1e4), "half": np.float32(0.5),
        "one_one": np.array([-1, 1, 1], np.int64),
    }  # fmt: skip
    nodes = [
        make("ReduceMean", ["image", "axes1"], ["grey"], keepdims=1),
        make("Less", ["grey", "limit"], ["is_dark"]),
        make("Cast", ["is_dark"], ["dark"], to=TensorProto.FLOAT),
    ]
    for place, (low, high) in enumerate(spans):
        numbers[f"inside{place}"] = ((places >= low) & (places < high)).astype(np.float32)[None, None, None]
        nodes += _box(place)
    count = len(spans)
    nodes += [
        make("Concat", [f"box{place}" for place in range(count)], ["boxes"], axis=1),
        make("Concat", [f"score{place}" for place in range(count)], ["scores"], axis=1),
    ]
    value = helper.make_tensor_value_info
    outputs = [
        value("boxes", TensorProto.FLOAT, ["b", count, 4]), value("scores", TensorProto.FLOAT, ["b", count, 1])
    ]  # fmt: skip
    if masks:
        numbers["zero"] = np.float32(0.0)
        nodes += [
            make("Sub", ["limit", "grey"], ["darker"]),
            make("AveragePool", ["darker"], ["prototypes"], kernel_shape=[4, 4], strides=[4, 4]),
            make("Mul", ["scores", "zero"], ["nothing"]),
            make("Exp", ["nothing"], ["coefficients"]),
        ]
        quarter = side // 4
        outputs += [
            value("coefficients", TensorProto.FLOAT, ["b", count, 1]),
            value("prototypes", TensorProto.FLOAT, ["b", 1, quarter, quarter]),
        ]
    return _model(nodes, numbers, [value("image", TensorProto.FLOAT, ["b", 3, side, side])], outputs)


def _box(place: int) -> list[NodeProto]:
    """Of what is dark in one part of the picture."""
    nodes = [
        make("Mul", ["dark", f"inside{place}"], [f"d{place}"]),
        make("ReduceMean", [f"d{place}", "axes23"], [f"share{place}"], keepdims=0),
        make("Mul", [f"share{place}", "nine"], [f"high{place}"]),
        make("Min", [f"high{place}", "most"], [f"capped{place}"]),
        make("Reshape", [f"capped{place}", "one_one"], [f"score{place}"]),
    ]
    edges = []
    for name, axis in (("x", 2), ("y", 3)):
        key = f"{name}{place}"
        nodes += [
            make("ReduceMean", [f"d{place}", f"axes1{axis}"], [f"line{key}"], keepdims=0),
            make("Greater", [f"line{key}", "some"], [f"on{key}"]),
            make("Where", [f"on{key}", "places", "far"], [f"lows{key}"]),
            make("Where", [f"on{key}", "places", "near"], [f"highs{key}"]),
            make("ReduceMin", [f"lows{key}", "axes1"], [f"first{key}"], keepdims=1),
            make("ReduceMax", [f"highs{key}", "axes1"], [f"final{key}"], keepdims=1),
            make("Sub", [f"first{key}", "half"], [f"low{key}"]),
            make("Add", [f"final{key}", "half"], [f"up{key}"]),
        ]
        edges.append((f"low{key}", f"up{key}"))
    (x0, x1), (y0, y1) = edges
    nodes += [
        make("Concat", [x0, y0, x1, y1], [f"flat{place}"], axis=1),
        make("Unsqueeze", [f"flat{place}", "unit"], [f"box{place}"]),
    ]
    return nodes


def masker() -> bytes:
    """Stands for SAM: what is dark inside the prompt's box."""
    side = SAM_SIDE_PX
    places = np.arange(side, dtype=np.float32)
    numbers = {
        "limit": np.float32(DARK_GREY), "x": places[None, None, None], "y": places[None, None, :, None],
        "outside": np.float32(-20.0), "expected": np.full((1, 1), 0.75, np.float32),
    }  # fmt: skip
    nodes = [
        make("Split", ["box"], ["x0", "y0", "x1", "y1"], axis=1, num_outputs=4),
        make("ReduceMean", ["image", "axes1"], ["grey"], keepdims=1),
        make("Sub", ["limit", "grey"], ["darker"]),
        make("Greater", ["x", "x0"], ["a"]),
        make("Less", ["x", "x1"], ["b"]),
        make("Greater", ["y", "y0"], ["c"]),
        make("Less", ["y", "y1"], ["d"]),
        make("And", ["a", "b"], ["ab"]),
        make("And", ["c", "d"], ["cd"]),
        make("And", ["ab", "cd"], ["in"]),
        make("Where", ["in", "darker", "outside"], ["fine"]),
        make("AveragePool", ["fine"], ["mask"], kernel_shape=[4, 4], strides=[4, 4]),
        make("Identity", ["expected"], ["score"]),
    ]
    value = helper.make_tensor_value_info
    quarter = side // 4
    return _model(
        nodes,
        numbers,
        [value("image", TensorProto.FLOAT, [1, 3, side, side]), value("box", TensorProto.FLOAT, [1, 4])],
        [value("mask", TensorProto.FLOAT, [1, 1, quarter, quarter]), value("score", TensorProto.FLOAT, [1, 1])],
    )


def _model(nodes: list[NodeProto], numbers: dict[str, Any], inputs: list[Any], outputs: list[Any]) -> bytes:
    axes = {name: np.array(one, np.int64) for name, one in AXES.items()}
    numbers = {"unit": np.array([1], np.int64), **axes, **numbers}
    used = {name for node in nodes for name in node.input}
    kept = [numpy_helper.from_array(np.asarray(number), name) for name, number in numbers.items() if name in used]
    graph = helper.make_graph(nodes, "by_hand", inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def detector_recipe(name: str, masks: bool, classes: Sequence[str] = ("package",), region: str = "image") -> str:
    """What `recipe.yaml` says of such a detector."""
    recipe = {
        "name": name,
        "station": "package",
        "input": {"scene": "packages", "region": region, "height_px": SIDE_PX, "width_px": SIDE_PX, "channels": 3,
                  "lights": ["bf"]},
        "target": {"classes": list(classes)},
        "model": {"kind": "yolov5", "masks": masks},
        "findings": {"score": 0.25, "nms_iou": 0.45, "most": 10},
    }  # fmt: skip
    return yaml.safe_dump(recipe)


def make_roi_bundle(
    path: Path, *, masks: bool = True, halves: bool = False, name: str = "by-hand", **said: Any
) -> Bundle:
    """Writes a bundle of a detector of packages.

    Args:
        path: Its folder.
        masks: Whether it tells masks.
        halves: Whether it looks at both halves of the image by themselves.
        name: Of its recipe.
        said: Further words of `detector_recipe`.
    """
    parts: dict[str, Any] = {
        "model.onnx": detector(masks, halves), "recipe.yaml": detector_recipe(name, masks, **said),
        "runcard.json": {"kind": "by hand"}, "CARD.md": "# by hand\n",
    }  # fmt: skip
    return write_bundle(path, parts)


def make_sam_bundle(path: Path, side_px: int = SAM_SIDE_PX, boxes: bool = True) -> Bundle:
    """Writes a bundle of two networks."""
    recipe = {
        "name": "by-hand-sam",
        "station": "package",
        "model": {"kind": "box-sam", "boxes": "by-hand", "family": "sam", "side_px": side_px, "margin": 0.02},
    }
    parts: dict[str, Any] = {
        "model.onnx": masker(), "recipe.yaml": yaml.safe_dump(recipe), "runcard.json": {"kind": "by hand"}
    }  # fmt: skip
    if boxes:
        parts |= {"boxes.onnx": detector(masks=False), "boxes.yaml": detector_recipe("by-hand", masks=False)}
    return write_bundle(path, parts)
