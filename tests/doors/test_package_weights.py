"""Published YOLOs: what is taken and computed as there, what is left out and why, and what is never run."""

from __future__ import annotations

import os
import pickle
import re
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from make_yolo import (
    YOLOV5,
    YOLOV7_TINY,
    YOLOV7_TINY_COORD,
    YOLOV7_TINY_SLIM,
    Row,
    published_forward,
    published_state,
)
from waferlens.errors import FormatError, InputError, UsageError
from waferlens.models import build_detector
from waferlens.models.detector import DetectorNet
from waferlens.models.foreign_pickle import Inert, read_foreign_pickle, state_dict_of
from waferlens.models.foreign_weights import load_foreign
from waferlens.recipe import PackageRecipe, load_recipe

SMALL = {"yolov5": 0.0625, "yolov7-tiny": 0.25}
FAMILIES: dict[str, tuple[list[Row], dict[str, Any]]] = {
    "roi-yolov5n": (YOLOV5, {"classes": 1, "width": 0.0625, "depth": 0.33}),
    "roi-yolov5n-seg": (YOLOV5, {"classes": 1, "width": 0.0625, "depth": 0.33, "masks": 32}),
    "package-yolov7-tiny": (YOLOV7_TINY, {"classes": 2, "width": 0.25}),
    "package-yolov7-tiny-nwd-coord": (YOLOV7_TINY_COORD, {"classes": 2, "width": 0.25}),
    "package-yolov7-tiny-nwd-slim": (YOLOV7_TINY_SLIM, {"classes": 2, "width": 0.25}),
}


def ours(name: str, *more: str) -> DetectorNet:
    recipe = load_recipe(name)
    assert isinstance(recipe, PackageRecipe)
    small = load_recipe(name, [f"model.width={SMALL[recipe.model.kind]}", *more])
    assert isinstance(small, PackageRecipe)
    torch.manual_seed(0)
    return build_detector(small).eval()


def theirs(name: str, **other: Any) -> dict[str, torch.Tensor]:
    table, size = FAMILIES[name]
    return published_state(table, **(size | other))


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def foreign_code() -> Iterator[type[nn.Module]]:
    """A class of a module that is there when a file is written, and gone when it is read."""
    module = types.ModuleType("models.yolo")
    made = type("DetectionModel", (nn.Module,), {"__module__": "models.yolo"})
    module.DetectionModel = made  # type: ignore[attr-defined]
    names = {"models": types.ModuleType("models"), "models.yolo": module}
    sys.modules |= names
    yield made
    for name in names:
        sys.modules.pop(name, None)


def as_modules(kind: type[nn.Module], state: dict[str, torch.Tensor]) -> nn.Module:
    """A tree of modules whose parameters and buffers have these names."""
    root = kind()
    for name, value in state.items():
        *within, last = name.split(".")
        part = root
        for one in within:
            if one not in part._modules:
                part.add_module(one, kind())
            part = part._modules[one]  # type: ignore[assignment]
        if last in ("running_mean", "running_var", "num_batches_tracked", "anchors"):
            part.register_buffer(last, value)
        else:
            part.register_parameter(last, nn.Parameter(value, requires_grad=False))
    root.register_buffer("grid", torch.zeros(3), persistent=False)
    root.yaml, root.names, root.save = {"nc": 1}, ["package"], [4, 6]  # type: ignore[assignment]
    return root


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_network_computes_here_what_it_computes_there(name: str, tmp_path: Path) -> None:
    state, network = theirs(name), ours(name)
    loaded = load_foreign(network, saved(tmp_path / "best.pt", {"model": state, "epoch": 3}))
    assert loaded.left_out == {}
    assert loaded.fresh == ()
    assert loaded.taken == tuple(state)
    image = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(2)).float()
    with torch.no_grad():
        told = network(image)
        heads, prototypes = published_forward(FAMILIES[name][0], state, image / 255, leaky="v7" in name)
    for mine, other in zip(told.maps, heads, strict=True):
        b, _, h, w = other.shape
        other = other.view(b, 3, -1, h, w).permute(0, 1, 3, 4, 2)
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
    assert (told.prototypes is None) == (prototypes is None)
    if prototypes is not None:
        assert torch.allclose(told.prototypes, prototypes, rtol=1e-3, atol=1e-4 * float(prototypes.abs().max()))
    # anchors are told in strides there, in pixels here
    anchors = state[next(key for key in state if key.endswith("anchors"))]
    assert torch.allclose(network.head.anchors_px, anchors * torch.tensor([8.0, 16.0, 32.0])[:, None, None])


@pytest.mark.parametrize("name", ["roi-yolov5n-seg", "package-yolov7-tiny-nwd-slim"])
def test_a_pickled_module_is_read_without_its_code(name: str, tmp_path: Path, foreign_code: type[nn.Module]) -> None:
    state = theirs(name)
    module = as_modules(foreign_code, state).half()
    content = {
        "epoch": -1, "best_fitness": np.array([0.75]), "score": np.float64(0.5), "model": None, "ema": module,
        "optimizer": None, "opt": {"weights": Path("yolov5n.pt"), "hyp": OrderedDict(lr0=0.01)},
        "where": torch.device("cpu"),
    }  # fmt: skip
    path = saved(tmp_path / "best.pt", content)
    del sys.modules["models.yolo"], sys.modules["models"]
    network = ours(name)
    loaded = load_foreign(network, path)
    assert loaded.left_out == {}
    assert loaded.fresh == ()
    assert set(loaded.taken) == set(state)
    own = network.state_dict()
    first = next(key for key in own if key.endswith("conv.weight"))
    assert torch.equal(own[first], state["model.0.conv.weight"].half().float())


def test_a_state_dict_of_safetensors_and_of_several_devices(tmp_path: Path) -> None:
    state = theirs("roi-yolov5n")
    save_file(state, tmp_path / "best.safetensors")
    assert load_foreign(ours("roi-yolov5n"), tmp_path / "best.safetensors").left_out == {}
    path = saved(tmp_path / "best.pt", {f"module.{name}": value for name, value in state.items()})
    assert load_foreign(ours("roi-yolov5n"), path).fresh == ()


def test_the_head_of_other_classes_is_left_out_with_what_belongs_to_it(tmp_path: Path) -> None:
    network = ours("package-yolov7-tiny")
    before = network.head.anchors_px.clone()
    state = theirs("package-yolov7-tiny", classes=80) | {"model.77.anchor_grid": torch.ones(3, 1, 3, 1, 1, 2)}
    loaded = load_foreign(network, saved(tmp_path / "coco.pt", state))
    expected = {"model.77.anchors": "belongs to model.77.m.0.weight"}
    for place, channels in enumerate((32, 64, 128)):
        head = f"model.77.m.{place}"
        expected[f"{head}.weight"] = f"is 255x{channels}x1x1 there and 21x{channels}x1x1 here"
        expected[f"{head}.bias"] = f"belongs to {head}.weight"
        expected[f"model.77.ia.{place}.implicit"] = f"belongs to {head}.weight"
        expected[f"model.77.im.{place}.implicit"] = f"belongs to {head}.weight"
    assert loaded.left_out == expected | {"model.77.anchor_grid": "no layer of this name here"}
    assert all(name.startswith("head.") for name in loaded.fresh)
    assert len(loaded.fresh) == 1 + 3 * 4
    assert torch.equal(network.head.anchors_px, before)


def test_the_trunk_of_a_plain_neck_fills_a_coord_neck(tmp_path: Path) -> None:
    """S2 did not begin with others' weights because the changed layers stay fresh: here these are named."""
    path = saved(tmp_path / "plain.pt", theirs("package-yolov7-tiny"))
    loaded = load_foreign(ours("package-yolov7-tiny-nwd-coord"), path)
    changed = {int(name.split(".")[1]) for name in loaded.left_out}
    assert changed == {38, 40, 48, 50, 74, 75, 76}


def test_weights_of_the_other_family_and_of_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "v7.pt", {"model": {"model.99.conv.weight": torch.ones(2, 2, 1, 1)}})
    with pytest.raises(InputError, match="none of its 1 arrays fits this network; expected weights of YOLOv5"):
        load_foreign(ours("roi-yolov5n"), path)
    fast = load_recipe("roi-yolov5n", ["model={kind: package-fast}", "loss.assign=aligned"])
    assert isinstance(fast, PackageRecipe)
    with pytest.raises(UsageError, match="is no published network"):
        load_foreign(build_detector(fast), path)
    for content in ({"model": None}, [1, 2], {"model": {}}, {"a": 3}):
        with pytest.raises(FormatError, match="holds no state dict"):
            load_foreign(ours("roi-yolov5n"), saved(tmp_path / "none.pt", content))


class Calling:
    """Asks to be made by a call when it is unpickled."""

    def __init__(self, call: Any, *told: Any) -> None:
        self.call, self.told = call, told

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.told


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (os.system, ("touch was-run",)),
        (eval, ("open('was-run', 'w')",)),
        (exec, ("open('was-run', 'w')",)),
        (getattr, ("text", "join")),
        (open, ("was-run", "w")),
        (Path.touch, (Path("was-run"),)),
        (__import__, ("os",)),
        (torch.load, ("other.pt",)),
        (np.memmap, ("was-run", "u1", "w+", 0, (1,))),
        (bytearray, (1 << 40,)),
    ],
)
def test_no_call_is_made(call: Any, told: tuple[Any, ...], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "hostile.pt", {"model": {"a": torch.ones(2)}, "extra": Calling(call, *told)})
    with pytest.raises(FormatError, match=r"its pickle asks for \S+; it was not run"):
        load_foreign(ours("roi-yolov5n"), tmp_path / "hostile.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.pt"]


def archive(path: Path, program: bytes, storages: dict[str, bytes] | None = None, **more: Any) -> Path:
    """A file as `torch.save` lays it out, of a pickle written by hand."""
    with zipfile.ZipFile(path, "w", more.pop("compression", zipfile.ZIP_STORED)) as file:
        file.writestr("x/data.pkl", program)
        for key, raw in (storages or {}).items():
            file.writestr(f"x/data/{key}", raw)
        for name, raw in more.items():
            file.writestr(f"x/{name.replace('_pkl', '.pkl')}", raw)
    return path


def tensor_program(shape: bytes, stride: bytes, offset: bytes = b"K\0", key: bytes = b"0") -> bytes:
    """A float tensor of storage `key`, opcode by opcode."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU" + bytes([len(key)]) + key + b"U\x03cpuK\x04tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89}tR"


FOUR = {"0": np.arange(4, dtype="<f4").tobytes()}


def test_a_tensor_written_by_hand(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "x.pt", b"\x80\x02}U\x01a" + tensor_program(b"K\x02K\x01\x86", b"K\x02K\x01\x86") + b"s.", FOUR
    )
    read = state_dict_of(read_foreign_pickle(path), path)
    assert read["a"].tolist() == [[0.0], [2.0]]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        # instances and functions by older opcodes
        (b"(S'touch was-run'\nios\nsystem\n.", "asks for os.system"),
        (b"(cos\nsystem\nS'touch was-run'\no.", "asks for os.system"),
        (b"\x80\x02\x8c\x02os\x8c\x06system\x93X\x04\0\0\0echo\x85R.", "asks for os.system"),
        # an inert class given as a method, or a function given another body
        (b"\x80\x02ccollections\nOrderedDict\n}U\x08__call__cos\nsystem\nsb.", "changes a function"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}U\x0c__defaults__K\x01\x85s\x86b.", "changes a function"),
        # a tensor changed behind its maker, of no storage, or beyond it
        (b"\x80\x02" + tensor_program(b"K\x04\x85", b"K\x01\x85") + b"(K\x01K\x02K\x03K\x04tb.", "behind its maker"),
        (b"\x80\x02" + tensor_program(b"K\x05\x85", b"K\x01\x85") + b".", "larger than its storage"),
        (b"\x80\x02" + tensor_program(b"K\x04\x85", b"K\x01\x85", b"K\x01") + b".", "larger than its storage"),
        (b"\x80\x02" + tensor_program(b"J\xff\xff\xff\x7f\x85", b"K\0\x85") + b".", "larger than its storage"),
        (b"\x80\x02" + tensor_program(b"J\xff\xff\xff\xff\x85", b"K\x01\x85") + b".", "in an unknown way"),
        (b"\x80\x02" + tensor_program(b"K\x04\x85", b"K\x01\x85", key=b"7") + b".", "which the file lacks"),
        (b"\x80\x02" + tensor_program(b"K\x04\x85", b"K\x01\x85", key=b"../../0") + b".", "which the file lacks"),
        (b"\x80\x02U\x05otherQ.", "where a storage is expected"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\nK\x03\x85R.", "a parameter in an unknown way"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x03\x85R.", "of something else than pairs"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "a damaged file of weights"),
        (b"\x80\x02}U\x01a", "a damaged file of weights"),
        # memory: a number of a part far beyond the file; states for what has none
        (b"\x80\x02}r\xff\xff\xff\x7f.", "beyond its own length"),
        (b"}p2000000000\n.", "beyond its own length"),
        (b"\x80\x02ctorch\nFloatStorage\n}U\x01a}s\x86b.", "a damaged file of weights"),
        (b"\x80\x02cm\nM\n}U\x06appendK\x01sb.", "a damaged file of weights"),
        (b"\x80\x02c__builtin__\nset\n]\x85R}U\x01aK\x01sb.", "a damaged file of weights"),
    ],
)  # fmt: skip
def test_hostile_programs(program: bytes, said: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=re.escape(said)):
        load_foreign(ours("roi-yolov5n"), archive(tmp_path / "x.pt", program, FOUR))
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_archives_that_are_none_of_weights(tmp_path: Path) -> None:
    plain = pickle.dumps({}, protocol=2)
    for path, said in (
        (archive(tmp_path / "a.pt", plain, constants_pkl=b""), "TorchScript"),
        (archive(tmp_path / "b.pt", plain, byteorder=b"big"), "big-endian"),
        (archive(tmp_path / "c.pt", plain + b"\0" * 9000, compression=zipfile.ZIP_DEFLATED), "compresses"),
    ):
        with pytest.raises(FormatError, match=said):
            read_foreign_pickle(path)
    with zipfile.ZipFile(tmp_path / "d.pt", "w") as file:
        file.writestr("readme.txt", "no weights")
    with pytest.raises(FormatError, match=r"holds no data\.pkl"):
        read_foreign_pickle(tmp_path / "d.pt")
    whole = saved(tmp_path / "e.pt", {"a": torch.ones(1000)}).read_bytes()
    (tmp_path / "e.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="a damaged file of weights"):
        read_foreign_pickle(tmp_path / "e.pt")


def test_a_network_within_itself_comes_to_an_end(tmp_path: Path) -> None:
    # m: an object of m.M whose state is {"_modules": {"a": itself, "b": itself}}
    program = b"\x80\x02cm\nM\n)\x81q\0}U\x08_modules}(U\x01ah\0U\x01bh\0usb."
    path = archive(tmp_path / "x.pt", program)
    content = read_foreign_pickle(path)
    assert isinstance(content, Inert)
    assert (type(content).__module__, type(content).__qualname__) == ("m", "M")
    with pytest.raises(FormatError, match="nested 64 deep"):
        state_dict_of(content, path)


def test_what_stands_in_can_do_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02cposix\nsystem\n)\x81.")  # an object of a class posix.system
    content = read_foreign_pickle(path)
    assert isinstance(content, Inert)
    with pytest.raises(Exception, match=r"asks for posix\.system"):
        type(content)("echo")
