"""The published YOLOs as their tables of layers tell them: which tensors each numbered layer has, and of what shape.

This reads the tables alone and knows nothing of our networks, so that these can be held against it.

Source: YOLOv5 (release 6) and YOLOv7-tiny, tables of layers; necks of S2, appendices H to J.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

Row = tuple[int | list[int], str, Any]
"""Where from (-1 is the layer before), what, and channels, side, stride."""
NORM = ("weight", "bias", "running_mean", "running_var")


def _c3(n: int, c: int) -> list[Row]:
    return [(-1, "Conv", (c, 3, 2)), (-1, "C3", (c, n))]


YOLOV5: list[Row] = [
    (-1, "Conv", (64, 6, 2)), *_c3(3, 128), *_c3(6, 256), *_c3(9, 512), *_c3(3, 1024), (-1, "SPPF", (1024,)),
    (-1, "Conv", (512, 1, 1)), (-1, "Upsample", ()), ([-1, 6], "Concat", ()), (-1, "C3", (512, 3)),
    (-1, "Conv", (256, 1, 1)), (-1, "Upsample", ()), ([-1, 4], "Concat", ()), (-1, "C3", (256, 3)),
    (-1, "Conv", (256, 3, 2)), ([-1, 14], "Concat", ()), (-1, "C3", (512, 3)),
    (-1, "Conv", (512, 3, 2)), ([-1, 10], "Concat", ()), (-1, "C3", (1024, 3)),
    ([17, 20, 23], "Detect", ()),
]  # fmt: skip


def _elan(hidden: int, outputs: int) -> list[Row]:
    return [
        (-1, "Conv", (hidden, 1, 1)), (-2, "Conv", (hidden, 1, 1)), (-1, "Conv", (hidden, 3, 1)),
        (-1, "Conv", (hidden, 3, 1)), ([-1, -2, -3, -4], "Concat", ()), (-1, "Conv", (outputs, 1, 1)),
    ]  # fmt: skip


_BACKBONE: list[Row] = [
    (-1, "Conv", (32, 3, 2)), (-1, "Conv", (64, 3, 2)), *_elan(32, 64), (-1, "MP", ()), *_elan(64, 128),
    (-1, "MP", ()), *_elan(128, 256), (-1, "MP", ()), *_elan(256, 512),
]  # fmt: skip
_PYRAMID: list[Row] = [
    (-1, "Conv", (256, 1, 1)), (-2, "Conv", (256, 1, 1)), (-1, "SP", ()), (-2, "SP", ()), (-3, "SP", ()),
    ([-1, -2, -3, -4], "Concat", ()), (-1, "Conv", (256, 1, 1)), ([-1, -7], "Concat", ()), (-1, "Conv", (256, 1, 1)),
]  # fmt: skip


def _neck(route: str, last: str) -> list[Row]:
    """Appendices H and I, layers 38 to 77."""
    return [
        (-1, route, (128, 1, 1)), (-1, "Upsample", ()), (21, route, (128, 1, 1)), ([-1, -2], "Concat", ()),
        *_elan(64, 128),
        (-1, route, (64, 1, 1)), (-1, "Upsample", ()), (14, route, (64, 1, 1)), ([-1, -2], "Concat", ()),
        *_elan(32, 64),
        (-1, "Conv", (128, 3, 2)), ([-1, 47], "Concat", ()), *_elan(64, 128),
        (-1, "Conv", (256, 3, 2)), ([-1, 37], "Concat", ()), *_elan(128, 256),
        (57, last, (128, 3, 1)), (65, last, (256, 3, 1)), (73, last, (512, 3, 1)), ([74, 75, 76], "IDetect", ()),
    ]  # fmt: skip


_SLIM: list[Row] = [  # appendix J, layers 38 to 57
    (-1, "GSConvs", (128, 1, 1)), (-1, "Upsample", ()), (21, "GSConvs", (128, 1, 1)), ([-1, -2], "Concat", ()),
    (-1, "VoVGSCSP", (128,)),
    (-1, "GSConvs", (64, 1, 1)), (-1, "Upsample", ()), (14, "GSConvs", (64, 1, 1)), ([-1, -2], "Concat", ()),
    (-1, "VoVGSCSP", (64,)),
    (-1, "GSConvs", (128, 3, 2)), ([-1, 42], "Concat", ()), (-1, "VoVGSCSP", (128,)),
    (-1, "GSConvs", (256, 3, 2)), ([-1, 37], "Concat", ()), (-1, "VoVGSCSP", (256,)),
    (47, "Conv", (128, 3, 1)), (50, "Conv", (256, 3, 1)), (53, "Conv", (512, 3, 1)), ([54, 55, 56], "IDetect", ()),
]  # fmt: skip
YOLOV7_TINY = [*_BACKBONE, *_PYRAMID, *_neck("Conv", "Conv")]
YOLOV7_TINY_COORD = [*_BACKBONE, *_PYRAMID, *_neck("CoordConv", "CoordConv")]
YOLOV7_TINY_SLIM = [*_BACKBONE, *_PYRAMID, *_SLIM]


def published_shapes(
    table: list[Row], classes: int, *, width: float = 1.0, depth: float = 1.0, masks: int = 0, channels: int = 3
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state dict as the published programs would write it."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(at: str, i: int, o: int, side: int = 1, groups: int = 1) -> None:
        shapes[f"{at}.conv.weight"] = (o, i // groups, side, side)
        shapes.update({f"{at}.bn.{name}": (o,) for name in NORM})
        shapes[f"{at}.bn.num_batches_tracked"] = ()

    def gsconv(at: str, i: int, o: int, side: int = 1) -> None:
        conv(f"{at}.cv1", i, o // 2, side)
        conv(f"{at}.cv2", o // 2, o // 2, 5, groups=o // 2)

    outputs: list[int] = []
    for number, (source, kind, told) in enumerate(table):
        sources = source if isinstance(source, list) else [source]
        inputs = [channels if not outputs else outputs[one if one >= 0 else number + one] for one in sources]
        at, i = f"model.{number}", sum(inputs)
        o = 8 * math.ceil(told[0] * width / 8) if told else i
        match kind:
            case "Conv":
                conv(at, i, o, told[1])
            case "CoordConv":
                conv(f"{at}.conv", i + 2, o, told[1])
            case "C3":
                conv(f"{at}.cv1", i, o // 2)
                conv(f"{at}.cv2", i, o // 2)
                conv(f"{at}.cv3", o // 2 * 2, o)
                for block in range(max(round(told[1] * depth), 1)):
                    conv(f"{at}.m.{block}.cv1", o // 2, o // 2)
                    conv(f"{at}.m.{block}.cv2", o // 2, o // 2, 3)
            case "SPPF":
                conv(f"{at}.cv1", i, i // 2)
                conv(f"{at}.cv2", i // 2 * 4, o)
            case "GSConvs":
                gsconv(at, i, o, told[1])
                shapes[f"{at}.shuf.weight"] = (o, o, 1, 1)
            case "VoVGSCSP":
                half = o // 2
                conv(f"{at}.cv1", i, half)
                conv(f"{at}.cv2", i, half)
                gsconv(f"{at}.gsb.0.conv_lighting.0", half, half)
                gsconv(f"{at}.gsb.0.conv_lighting.1", half, half, 3)
                conv(f"{at}.gsb.0.shortcut", half, half)
                conv(f"{at}.res", half, half, 3)
                conv(f"{at}.cv3", 2 * half, o)
            case "Detect" | "IDetect":
                shapes[f"{at}.anchors"] = (3, 3, 2)
                for place, one in enumerate(inputs):
                    numbers = 3 * (5 + classes + masks)
                    shapes |= {f"{at}.m.{place}.weight": (numbers, one, 1, 1), f"{at}.m.{place}.bias": (numbers,)}
                    if kind == "IDetect":
                        shapes[f"{at}.ia.{place}.implicit"] = (1, one, 1, 1)
                        shapes[f"{at}.im.{place}.implicit"] = (1, numbers, 1, 1)
                if masks:
                    hidden = 8 * math.ceil(256 * width / 8)
                    conv(f"{at}.proto.cv1", inputs[0], hidden, 3)
                    conv(f"{at}.proto.cv2", hidden, hidden, 3)
                    conv(f"{at}.proto.cv3", hidden, masks)
        outputs.append(o)
    return shapes


def published_state(table: list[Row], classes: int, **size: Any) -> dict[str, torch.Tensor]:
    """The same with numbers drawn at random; batch norms as after training, anchors in strides."""
    draw = torch.Generator().manual_seed(7)
    state: dict[str, torch.Tensor] = {}
    for name, shape in published_shapes(table, classes, **size).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(9)
        elif ".bn." in name or name.endswith("anchors"):
            state[name] = 0.5 + torch.rand(shape, generator=draw)
        else:
            state[name] = torch.randn(shape, generator=draw) / math.prod(shape[1:]) ** 0.5
    return state


def published_forward(table: list[Row], state: dict[str, torch.Tensor], x: torch.Tensor, leaky: bool) -> Any:
    """Runs a table on an image in 0..1 from a state dict alone.

    Returns:
        What the heads' convolutions put out, `b c h w` each, and the prototypes where there are any.
    """

    def conv(at: str, x: torch.Tensor, stride: int = 1, active: bool = True, padding: int | None = None) -> Any:
        weight = state[f"{at}.conv.weight"]
        around = weight.shape[2] // 2 if padding is None else padding
        x = functional.conv2d(x, weight, stride=stride, padding=around, groups=x.shape[1] // weight.shape[1])
        scale, shift, mean, variance = (state[f"{at}.bn.{name}"] for name in NORM)
        x = functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3)
        if not active:
            return x
        return functional.leaky_relu(x, 0.1) if leaky else functional.silu(x)

    def halves(at: str, x: torch.Tensor, stride: int = 1, active: bool = True) -> torch.Tensor:
        first = conv(f"{at}.cv1", x, stride, active)
        return torch.cat([first, conv(f"{at}.cv2", first, 1, active)], dim=1)

    def gsconv(at: str, x: torch.Tensor, active: bool = True) -> torch.Tensor:
        both = halves(at, x, active=active)
        b, n, h, w = both.shape
        pairs = both.reshape(b * n // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, n // 2, h, w)
        return torch.cat([pairs[0], pairs[1]], dim=1)

    def largest(x: torch.Tensor, side: int) -> torch.Tensor:
        return functional.max_pool2d(x, side, 1, side // 2)

    done: list[torch.Tensor] = []
    sides = iter((5, 9, 13))
    for number, (source, kind, told) in enumerate(table):
        sources = source if isinstance(source, list) else [source]
        seen = [x if not done else done[one if one >= 0 else number + one] for one in sources]
        at, y = f"model.{number}", seen[0]
        match kind:
            case "Conv":
                y = conv(at, y, told[2], padding=2 if told[1] == 6 else None)
            case "CoordConv":
                b, _, h, w = y.shape
                down = torch.arange(h)[:, None] / max(h - 1, 1) * 2 - 1
                along = torch.arange(w) / max(w - 1, 1) * 2 - 1
                y = torch.cat([y, down.expand(b, 1, h, w), along.expand(b, 1, h, w)], dim=1)
                y = conv(f"{at}.conv", y, told[2])
            case "C3":
                inner, within = conv(f"{at}.cv1", y), 0
                while f"{at}.m.{within}.cv1.conv.weight" in state:
                    z = conv(f"{at}.m.{within}.cv2", conv(f"{at}.m.{within}.cv1", inner))
                    inner, within = (inner + z if number < 9 else z), within + 1  # shortcuts in the backbone only
                y = conv(f"{at}.cv3", torch.cat([inner, conv(f"{at}.cv2", y)], dim=1))
            case "SPPF":
                a = conv(f"{at}.cv1", y)
                b5 = largest(a, 5)
                y = conv(f"{at}.cv2", torch.cat([a, b5, largest(b5, 5), largest(largest(b5, 5), 5)], dim=1))
            case "SP":
                y = largest(y, next(sides))
            case "MP":
                y = functional.max_pool2d(y, 2)
            case "Upsample":
                y = y.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            case "Concat":
                y = torch.cat(seen, dim=1)
            case "GSConvs":
                y = functional.leaky_relu(functional.conv2d(halves(at, y, told[2]), state[f"{at}.shuf.weight"]), 0.1)
            case "VoVGSCSP":
                inner = conv(f"{at}.cv1", y)
                lit = gsconv(f"{at}.gsb.0.conv_lighting.1", gsconv(f"{at}.gsb.0.conv_lighting.0", inner), active=False)
                inner = lit + conv(f"{at}.gsb.0.shortcut", inner, active=False)
                y = conv(f"{at}.cv3", torch.cat([conv(f"{at}.cv2", y), inner], dim=1))
            case _:
                heads = []
                for place, one in enumerate(seen):
                    added = one + state[f"{at}.ia.{place}.implicit"] if kind == "IDetect" else one
                    z = functional.conv2d(added, state[f"{at}.m.{place}.weight"], state[f"{at}.m.{place}.bias"])
                    heads.append(z * state[f"{at}.im.{place}.implicit"] if kind == "IDetect" else z)
                if f"{at}.proto.cv1.conv.weight" not in state:
                    return heads, None
                z = conv(f"{at}.proto.cv1", seen[0]).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                return heads, conv(f"{at}.proto.cv3", conv(f"{at}.proto.cv2", z))
        done.append(y)
    return None
