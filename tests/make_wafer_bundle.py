"""A small bundle of the wafer station whose answers can be worked out by hand, and swaths for it.

height = 500 * mean(image, 3x3) + 0.1 * track + 0.01 * thickness, sigma = 1 + 5 * image. Brighter than 0.5 is die, than
0.2 the site of a missing die, the rest street. It needs no training: only `onnx` to be written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tifffile
import yaml
from onnx import TensorProto, helper, numpy_helper

from waferlens.bundle.files import Bundle, write_bundle

PITCH_UM = 8.0
DIE, STREET, MISSING = 0.8, 0.1, 0.35
"""Greys of what the network tells apart [share of white]"""


def network() -> bytes:
    """The network as ONNX."""
    numbers = {
        "kernel": np.full((1, 1, 3, 3), 500.0 / 9, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "five": np.array([5.0], np.float32),
        "one": np.array([1.0], np.float32),
        "tenth": np.array([0.1], np.float32),
        "hundredth": np.array([0.01], np.float32),
        "steep": np.array([20.0], np.float32),
        "at_die": np.array([0.5], np.float32),
        "at_missing": np.array([0.2], np.float32),
        "zero": np.array(0.0, np.float32),
        "unit": np.array(1.0, np.float32),
        "two": np.array([2], np.int64),
        "three": np.array([3], np.int64),
        "first": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
        "above": np.array([1], np.int64),
        "beside": np.array([2, 3], np.int64),
    }
    make = helper.make_node
    nodes = [
        make("Pad", ["image", "pads"], ["padded"], mode="edge"),
        make("Conv", ["padded", "kernel"], ["bare"]),
        make("Slice", ["columns", "two", "three", "axis"], ["track"]),
        make("Unsqueeze", ["track", "above"], ["rows"]),
        make("Mul", ["rows", "tenth"], ["told"]),
        make("Slice", ["product", "first", "two", "axis"], ["thickness"]),
        make("Mul", ["thickness", "hundredth"], ["share"]),
        make("Unsqueeze", ["share", "beside"], ["stack"]),
        make("Add", ["bare", "told"], ["partly"]),
        make("Add", ["partly", "stack"], ["height"]),
        make("Mul", ["image", "five"], ["sloped"]),
        make("Add", ["sloped", "one"], ["sigma"]),
        make("AveragePool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        make("Sub", ["pooled", "at_die"], ["over_die"]),
        make("Mul", ["over_die", "steep"], ["steep_die"]),
        make("Clip", ["steep_die", "zero", "unit"], ["die"]),
        make("Sub", ["pooled", "at_missing"], ["over_missing"]),
        make("Mul", ["over_missing", "steep"], ["steep_missing"]),
        make("Clip", ["steep_missing", "zero", "unit"], ["site"]),
        make("Sub", ["site", "die"], ["missing"]),
        make("Sub", ["one", "site"], ["street"]),
        make("Concat", ["die", "street", "missing"], ["classes"], axis=1),
    ]
    value = helper.make_tensor_value_info
    size = ["b", 1, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [
            value("image", TensorProto.FLOAT, size),
            value("columns", TensorProto.FLOAT, ["b", 4, "w"]),
            value("product", TensorProto.FLOAT, ["b", 6]),
        ],
        [
            value("height", TensorProto.FLOAT, size),
            value("sigma", TensorProto.FLOAT, size),
            value("classes", TensorProto.FLOAT, ["b", 3, "p", "q"]),
        ],
        [numpy_helper.from_array(number, name) for name, number in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_wafer_bundle(path: Path) -> Bundle:
    """Writes the bundle."""
    recipe = {
        "name": "by-hand",
        "station": "wafer",
        "input": {"height_px": 64, "width_px": 64, "pitch_um": PITCH_UM, "channels": 1,
                  "known": ["objective", "product", "track"]},
        "target": {"unit": "um", "full_scale": 781.25, "sigma": True, "classes": True},
    }  # fmt: skip
    files: dict[str, Any] = {
        "model.onnx": network(),
        "recipe.yaml": yaml.safe_dump(recipe),
        "runcard.json": {"kind": "by hand"},
        "CARD.md": "# by hand\n",
    }
    return write_bundle(path, files)


def scene(rows: int, columns: int, pitch_um: float = PITCH_UM, x0_um: float = 0.0, y0_um: float = 0.0) -> np.ndarray:
    """Dies of 1,600 x 1,200 um every 2,000 x 1,500 um, the third of every four gone, 0..1; the same scene at any place.

    A slow wave lies over all, so that no two places are alike.
    """
    x = x0_um + pitch_um * (np.arange(columns) + 0.5)
    y = y0_um + pitch_um * (np.arange(rows) + 0.5)
    inside = ((y % 1500 > 150) & (y % 1500 < 1350))[:, None] & ((x % 2000 > 200) & (x % 2000 < 1800))
    gone = np.broadcast_to((x // 2000 % 4 == 2)[None], inside.shape)
    grey = np.where(inside, np.where(gone, MISSING, DIE), STREET)
    return grey + 0.02 * np.sin(x / 700)[None] * np.cos(y / 900)[:, None]


def write_swath(path: Path, image: np.ndarray, **options: Any) -> Path:
    """Writes an image of 0..1 as 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.rint(image * 65535).astype(np.uint16), photometric="minisblack", **options)
    return path
