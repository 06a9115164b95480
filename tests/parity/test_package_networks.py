"""Detectors of the package station against the figures that S2 prints for them, and against their layer tables."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from test_models import unsettled

from make_yolo import YOLOV5, YOLOV7_TINY, YOLOV7_TINY_COORD, YOLOV7_TINY_SLIM, Row, published_shapes
from waferlens.export.onnx import graph_of
from waferlens.models import build_detector, describe, fuse
from waferlens.models.coord_conv import CoordConv
from waferlens.models.detector import DetectorNet, ExportedDetector
from waferlens.models.foreign_yolo import yolo_layers
from waferlens.models.slim_neck import GSConv, VoVGSCSP
from waferlens.recipe import PackageRecipe, load_recipe

PUBLISHED = {
    "roi-yolov5n": (1_760_518, 4.1),
    "roi-yolov5n-seg": (1_879_750, 6.7),
    "roi-yolov5s-seg": (7_398_422, 25.7),
    "package-yolov7-tiny": (6_010_302, 13.0),
    "package-yolov7-tiny-nwd": (6_010_302, 13.0),
    "package-yolov7-tiny-nwd-coord": (6_027_198, 13.1),
    "package-yolov7-tiny-nwd-slim": (5_746_078, 12.1),
}
"""Parameters with batch norms folded, and GFLOPs at 640 px: S2's tables 4.2, 4.3 and 4.6."""
UNFUSED = {
    "package-yolov7-tiny": 6_017_694,
    "package-yolov7-tiny-nwd-coord": 6_034_590,
    "package-yolov7-tiny-nwd-slim": 5_754_046,
}
TINY = ["roi-yolov5n-seg", "package-yolov7-tiny", "package-yolov7-tiny-nwd-coord", "package-yolov7-tiny-nwd-slim"]


def recipe_of(name: str, *overrides: str) -> PackageRecipe:
    recipe = load_recipe(name, overrides)
    assert isinstance(recipe, PackageRecipe)
    return recipe


def tiny(name: str, *more: str) -> DetectorNet:
    torch.manual_seed(0)
    width = "0.05" if "yolov5" in name else "0.125"
    network = build_detector(recipe_of(name, f"model.width={width}", "input.height_px=64", "input.width_px=96", *more))
    return unsettled(network).eval()


def picture(h: int = 64, w: int = 96, channels: int = 3) -> torch.Tensor:
    return 255 * torch.rand(2, channels, h, w, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_those_of_the_tables(name: str) -> None:
    told = describe(recipe_of(name))
    parameters, gflops = PUBLISHED[name]
    assert told["parameters_fused"] == parameters
    assert told["gflops"] == pytest.approx(gflops, rel=0.02)
    assert told["parameters"] == UNFUSED.get(name, told["parameters"])
    assert told["trainable"] == told["parameters"] > parameters


TABLES: dict[str, tuple[list[Row], dict[str, float]]] = {
    "roi-yolov5n": (YOLOV5, {"classes": 1, "width": 0.25, "depth": 0.33}),
    "roi-yolov5s-seg": (YOLOV5, {"classes": 1, "width": 0.5, "depth": 0.33, "masks": 32}),
    "package-yolov7-tiny": (YOLOV7_TINY, {"classes": 2}),
    "package-yolov7-tiny-nwd-coord": (YOLOV7_TINY_COORD, {"classes": 2}),
    "package-yolov7-tiny-nwd-slim": (YOLOV7_TINY_SLIM, {"classes": 2}),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_layer_is_that_of_the_table(name: str) -> None:
    """Tensor by tensor, from S2's appendices H to J and the table of YOLOv5, read by a program of their own."""
    network = build_detector(recipe_of(name))
    table, size = TABLES[name]
    published = published_shapes(table, **size)  # type: ignore[arg-type]
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    layers, alone = yolo_layers(network)
    names = {single.theirs: single.ours for single in alone}
    for layer in layers:
        pairs = [(layer.theirs, layer.ours), *([(layer.their_norm, layer.norm)] if layer.norm else [])]
        for there, here in pairs:
            inside = [key.removeprefix(f"{here}.") for key in own if key.startswith(f"{here}.")]
            names |= {f"{there}.{one}": f"{here}.{one}" for one in inside}
    assert set(names) == set(published)
    assert set(names.values()) == set(own)
    assert {there: own[here] for there, here in names.items()} == published


@pytest.mark.parametrize("name", TINY)
def test_fused_says_the_same(name: str) -> None:
    network, image = tiny(name), picture()
    fused = fuse(network)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())
    with torch.no_grad():
        ours, theirs = network.decoded(image), fused.decoded(image)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", TINY)
def test_shapes(name: str) -> None:
    network = tiny(name)
    numbers = 5 + network.head.classes + (32 if "seg" in name else 0)
    for mode in (True, False):  # raw logits in training and in evaluation
        told = network.train(mode)(picture())
        assert [tuple(one.shape) for one in told.maps] == [(2, 3, 64 // s, 96 // s, numbers) for s in (8, 16, 32)]
    boxes = 3 * (8 * 12 + 4 * 6 + 2 * 3)
    decoded = network.decoded(picture().to(torch.uint8))
    assert decoded.boxes.shape == (2, boxes, 4)
    assert decoded.scores.shape == (2, boxes, network.head.classes)
    outputs = ExportedDetector(network)(picture())
    assert len(outputs) == len(network.outputs)
    if "seg" in name:
        assert network.outputs == ["boxes", "scores", "coefficients", "prototypes"]
        assert decoded.coefficients is not None
        assert decoded.prototypes is not None
        assert decoded.coefficients.shape == (2, boxes, 32)
        assert decoded.prototypes.shape == (2, 32, 16, 24)
    else:
        assert network.outputs == ["boxes", "scores"]


@pytest.mark.parametrize("name", TINY)
def test_the_graph_says_what_the_network_says(name: str) -> None:
    network = tiny(name)
    axes = {told: {0: "b"} for told in ("image", *network.outputs)}
    exported = ExportedDetector(network)
    graph = graph_of(exported, {"image": torch.zeros(1, 3, 64, 96)}, network.outputs, axes)
    session = onnxruntime.InferenceSession(graph)
    theirs = session.run(network.outputs, {"image": picture().numpy()})
    with torch.no_grad():
        for mine, other in zip(exported(picture()), theirs, strict=True):
            assert np.allclose(mine.numpy(), other, rtol=1e-3, atol=1e-3)


def test_an_untrained_head_expects_hardly_anything() -> None:
    network = tiny("roi-yolov5n-seg", "model.masks=false")
    for convolution in network.head.maps:
        torch.nn.init.zeros_(convolution.weight)
    scores = network.decoded(picture(320, 320)).scores
    # eight objects on 640 x 640 px are two on a quarter of it, at each of three maps; with 0.6 it is of the one class
    assert float(scores[0, :, 0].detach().sum()) == pytest.approx(3 * 2 * 0.6, rel=1e-3)


def test_white_is_one_for_the_body() -> None:
    network, seen = tiny("package-yolov7-tiny"), []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8))
    network(torch.full((1, 3, 64, 64), 51.0))
    assert torch.allclose(seen[0], torch.ones(1))
    assert torch.allclose(seen[1], torch.tensor(0.2))


def test_a_mask_channel_behind_the_classes_is_a_coefficient() -> None:
    network = tiny("roi-yolov5n-seg")
    told = network(picture())
    coefficients = network.decoded(picture()).coefficients
    assert coefficients is not None
    assert torch.equal(coefficients[0, 0], told.maps[0][0, 0, 0, 0, 6:])
    assert torch.equal(coefficients[1, -1], told.maps[2][1, 2, -1, -1, 6:])


def test_anchors_travel_with_the_weights() -> None:
    anchors = [[[8, 9]], [[20, 30]], [[60, 40]]]
    first = tiny("package-yolov7-tiny", f"model.anchors={anchors}")
    assert first.head.anchors == 1
    assert first(picture()).maps[0].shape == (2, 1, 8, 12, 7)
    second = tiny("package-yolov7-tiny", "model.anchors=[[[1, 1]], [[2, 2]], [[3, 3]]]")
    second.load_state_dict(first.state_dict())
    assert second.head.anchors_px.tolist() == anchors
    second.head.set_anchors(torch.full((3, 1, 2), 5.0))
    assert float(second.head.anchors_px.min()) == 5.0
    with pytest.raises(ValueError, match="anchors of shape"):
        second.head.set_anchors(torch.ones(3, 2, 2))


def test_coordinates_stand_beside_the_input() -> None:
    layer, seen = CoordConv(4, 8, 3), []
    layer.conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(2, 4, 5, 9)
    assert layer(x).shape == (2, 8, 5, 9)
    assert torch.equal(seen[0][:, :4], x)
    rows, columns = np.linspace(-1, 1, 5), np.linspace(-1, 1, 9)
    assert np.allclose(seen[0][1, 4].numpy(), np.broadcast_to(rows[:, None], (5, 9)), atol=1e-6)
    assert np.allclose(seen[0][0, 5].numpy(), np.broadcast_to(columns, (5, 9)), atol=1e-6)
    assert layer.eval()(torch.rand(1, 4, 1, 1)).isfinite().all()


def test_a_shuffle_takes_even_channels_first() -> None:
    """The order in which S2's appendix L regroups the channels of a GSConv, worked out by its reshapes."""
    layer = GSConv(3, 8).eval()
    x = torch.rand(2, 3, 4, 5)
    both = layer.both(x)
    b, n, h, w = both.shape
    regrouped = both.reshape(b * n // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, n // 2, h, w)
    assert torch.equal(layer(x), torch.cat([regrouped[0], regrouped[1]], dim=1))


def test_the_unused_convolution_is_counted_and_costs_nothing() -> None:
    block = VoVGSCSP(8, 16)
    block(torch.rand(2, 8, 6, 6)).sum().backward()
    without = {name for name, weight in block.named_parameters() if weight.grad is None}
    assert without == {"unused.conv.weight", "unused.norm.weight", "unused.norm.bias"}
