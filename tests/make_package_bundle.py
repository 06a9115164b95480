"""A package bundle made by hand: a network that sees the same two boxes in every upright package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from waferlens.bundle.files import Bundle, write_bundle
from waferlens.bundle.package_calibration import PackageCalibration

HEIGHT_PX, WIDTH_PX = 1088, 576
BOXES = ((300.0, 500.0, 330.0, 520.0), (100.0, 200.0, 300.0, 700.0))
"""A crack, and a die that the network takes to be turned [px]"""


def network(scores: Sequence[Sequence[float]]) -> bytes:
    """The graph: scores of the two boxes, one row a box, one column a class."""
    numbers = {
        "box_values": np.array([BOXES], np.float32),
        "score_values": np.array([scores], np.float32),
        "nothing": np.zeros((1, 1, 1), np.float32),
    }
    make = helper.make_node
    nodes = [
        make("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=1),
        make("ReduceMean", ["mean"], ["each"], axes=[3], keepdims=0),
        make("ReduceMean", ["each"], ["one"], axes=[1], keepdims=1),
        make("Mul", ["one", "nothing"], ["blank"]),
        make("Add", ["blank", "box_values"], ["boxes"]),
        make("Add", ["blank", "score_values"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [value("image", TensorProto.FLOAT, ["b", 3, HEIGHT_PX, WIDTH_PX])],
        [value("boxes", TensorProto.FLOAT, ["b", 2, 4]), value("scores", TensorProto.FLOAT, ["b", 2, len(scores[0])])],
        [numpy_helper.from_array(number, name) for name, number in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_package_bundle(
    path: Path,
    crack: float = 0.9,
    turned: float | None = 0.0,
    angle: bool = True,
    *,
    calibration: PackageCalibration | None = None,
    device: str | None = None,
    limit_deg: float = 0.5,
) -> Bundle:
    """Writes the bundle.

    Args:
        path: Its folder.
        crack: Score of the crack.
        turned: Score of the die that the network takes to be turned; None for a network that knows cracks alone.
        angle: Whether the die's angle is measured.
        calibration: Of its scores.
        device: How the path of an image tells its device.
        limit_deg: Greatest angle of a good die [deg]
    """
    recipe = {
        "name": "by-hand",
        "station": "package",
        "input": {"scene": "packages", "region": "roi", "height_px": HEIGHT_PX, "width_px": WIDTH_PX, "channels": 3,
                  "lights": ["bf"]},
        "target": {"classes": ["crack"] if turned is None else ["crack", "rotate"]},
        "train": {"device": device},
        "findings": {"score": 0.25, "nms_iou": 0.5, "most": 100},
        "angle": {"datum": "package", "limit_deg": limit_deg} if angle else None,
    }  # fmt: skip
    files: dict[str, Any] = {
        "model.onnx": network([[crack], [0.0]] if turned is None else [[crack, 0.0], [0.0, turned]]),
        "recipe.yaml": yaml.safe_dump(recipe),
        "runcard.json": {"kind": "by hand"},
        "CARD.md": "# by hand\n",
    }
    if calibration is not None:
        files["calibration.json"] = calibration.to_json()
    return write_bundle(path, files)
