"""A small bundle whose answers can be worked out by hand, and images of holes for it.

The network smooths the image with a 3x3 mean and stretches it: depth = 30 + 0.5 * mean(grey); its sigma is
0.5 + 0.001 * grey. It is no model of anything, and it needs no training: only `onnx` to be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from waferlens.bundle.calibration import Calibration, Domain, MeasurandCalibration, PixelCalibration
from waferlens.bundle.files import Bundle, write_bundle

HEIGHT, WIDTH = 72, 48
LEVELS = {"0.9": 1.645, "0.95": 1.96, "0.99": 2.576}


def network(sigma: bool = True, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """The network as ONNX."""
    weights = {
        "kernel": np.full((1, 1, 3, 3), 0.5 / 9, np.float32),
        "offset": np.array([30.0], np.float32),
        "slope": np.array([0.001], np.float32),
        "least": np.array([0.5], np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Pad", ["grey", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel", "offset"], ["depth"]),
    ]
    shape = ["b", 1, height, width]
    outputs = [helper.make_tensor_value_info("depth", TensorProto.FLOAT, shape)]
    if sigma:
        nodes += [
            helper.make_node("Mul", ["grey", "slope"], ["sloped"]),
            helper.make_node("Add", ["sloped", "least"], ["sigma"]),
        ]
        outputs.append(helper.make_tensor_value_info("sigma", TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        "smooth",
        [helper.make_tensor_value_info("grey", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def calibration(half_width: float = 2.0, domain: bool = True) -> Calibration:
    """Depth with an interval of ± `half_width` grey at 90 %, CDs of ± 0.5 px; the domain is a wide range of means."""

    def part(half: float) -> MeasurandCalibration:
        return MeasurandCalibration({level: half * q / LEVELS["0.9"] for level, q in LEVELS.items()})

    measurands = {"depth": part(half_width), "wall_angle_deg": part(0.2), "orientation_deg": part(1.0)}
    measurands |= {f"cd{percent}_{way}": part(0.5) for percent in (10, 50, 90) for way in ("x", "y", "area")}
    known = Domain(["mean", "sd"], [180.0, 90.0], [[1 / 60.0**2, 0.0], [0.0, 1 / 60.0**2]], 1.0) if domain else None
    return Calibration(PixelCalibration(LEVELS), measurands, known, {"folder": "by hand"})


def recipe(**sections: Any) -> dict[str, Any]:
    """A recipe with what inspection reads of one."""
    return {"name": "smooth", "station": "hole", "input": {"height_px": HEIGHT, "width_px": WIDTH}, **sections}


def make_bundle(path: Path, *, parts: Mapping[str, Any] | None = None, **sections: Any) -> Bundle:
    """Writes the bundle; `sections` go into its recipe, `parts` replace its files."""
    import yaml

    files = {
        "model.onnx": network(),
        "recipe.yaml": yaml.safe_dump(recipe(**sections)),
        "runcard.json": {"kind": "by hand"},
        "calibration.json": calibration(),
        "CARD.md": "# smooth\n",
    }
    return write_bundle(path, {**files, **(parts or {})})


def hole_image(seed: int = 0, depth: float = 120.0, top: float = 150.0, noise: float = 3.0) -> np.ndarray:
    """An image from which the network makes a hole of about that depth, float in 0..255 [grey]"""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    a, b = random.normal(15.0, 0.5), random.normal(26.0, 0.5)
    centre_x, centre_y = random.normal((WIDTH - 1) / 2, 0.5), random.normal((HEIGHT - 1) / 2, 0.5)
    rho = np.hypot((x - centre_x) / a, (y - centre_y) / b)
    z = top - depth * np.clip((1 - rho) / 0.35, 0, 1)
    return np.clip(2 * (z - 30) + random.normal(0, noise, z.shape), 0, 255)


def write_images(folder: Path, number: int, start: int = 0, suffix: str = ".png") -> list[Path]:
    """Images of holes as 8-bit files, named in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(start, start + number):
        path = folder / f"hole_{index:05d}{suffix}"
        assert cv2.imwrite(str(path), hole_image(index).round().astype(np.uint8))
        paths.append(path)
    return paths
