"""Segment Anything: the square it looks at, a made checkpoint loaded and exported, and folders that hold none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from make_package import package_picture
from make_package_bundle import make_package_bundle
from make_roi_bundle import make_roi_bundle
from waferlens.bundle.files import open_bundle
from waferlens.bundle.sam import SamSession
from waferlens.cli.main import main
from waferlens.errors import BundleError, InputError, MissingExtraError, ParityError
from waferlens.export.sam import MOST_BYTES, SamParity, proven_graph, require_sam_parity, sam_graph
from waferlens.extras import available
from waferlens.models.sam_roi import SamRoiNet, load_sam
from waferlens.ops.roi_edges import roi_body
from waferlens.ops.sam_frame import MEAN_GREY, sam_frame
from waferlens.prepare.package_findings import detected
from waferlens.prepare.roi_finders import finder
from waferlens.recipe import load_recipe

SIDE = 64


@pytest.mark.parametrize(("h", "w", "shown"), [(40, 80, (32, 64)), (80, 40, (64, 32)), (16, 8, (64, 32))])
def test_an_image_is_filled_up_to_the_square(h: int, w: int, shown: tuple[int, int]) -> None:
    rgb = np.full((h, w, 3), (10, 20, 30), np.uint8)
    frame = sam_frame(rgb, SIDE)
    assert frame.shown_px == shown
    assert np.allclose(frame.pixels[:, : shown[0], : shown[1]], np.array([10, 20, 30])[:, None, None])
    rest = np.ones((SIDE, SIDE), bool)
    rest[: shown[0], : shown[1]] = False
    assert np.allclose(frame.pixels[:, rest], np.array(MEAN_GREY)[:, None])


def test_a_stretched_image_fills_the_square() -> None:
    rgb = np.zeros((32, 128, 3), np.uint8)
    rgb[:, 64:] = 200
    frame = sam_frame(rgb, SIDE, stretched=True)
    assert frame.shown_px == (SIDE, SIDE)
    assert (frame.pixels[:, :, :32] == 0).all()
    assert (frame.pixels[:, :, 32:] == 200).all()


@pytest.mark.parametrize("stretched", [False, True])
def test_boxes_keep_to_their_edges(stretched: bool) -> None:
    frame = sam_frame(np.zeros((40, 80, 3), np.uint8), SIDE, stretched=stretched)
    rows = SIDE if stretched else 32
    whole = frame.box(np.array([-0.5, -0.5, 79.5, 39.5]))
    assert whole.tolist() == [-0.5, -0.5, SIDE - 0.5, rows - 0.5]
    # ten pixels from the left edge are eight on the square
    assert frame.box(np.array([9.5, 0.0, 19.5, 0.0]))[[0, 2]].tolist() == [7.5, 15.5]


@pytest.mark.parametrize("stretched", [False, True])
def test_a_map_of_the_square_comes_back_to_the_image(stretched: bool) -> None:
    frame = sam_frame(np.zeros((40, 80, 3), np.uint8), SIDE, stretched=stretched)
    x = np.arange(16)[None] + 0.5
    logits = np.broadcast_to(x, (16, 16)).astype(np.float32)  # columns of the square, in its sixteenths
    back = frame.on_image(logits)
    assert back.shape == (40, 80)
    expected = (np.arange(80) + 0.5) * 16 / 80
    assert np.allclose(back[20, 3:-3], expected[3:-3], atol=1e-4)
    down = frame.on_image(np.ascontiguousarray(logits.T))[:, 40]
    rows = 16 if stretched else 8
    assert np.allclose(down[3:-3], (np.arange(40)[3:-3] + 0.5) * rows / 40, atol=1e-4)


def tiny_sam(folder: Path) -> Path:
    """A checkpoint of SAM with random weights, as `save_pretrained` writes one."""
    from transformers import SamConfig, SamModel

    vision = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
        "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": 8,
    }  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16
    }  # fmt: skip
    return _saved(SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)),
                  folder)  # fmt: skip


def tiny_sam2(folder: Path) -> Path:
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    backbone = Sam2HieraDetConfig(
        hidden_size=8, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2], window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=16,
        backbone_feature_sizes=[[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
    )  # fmt: skip
    prompt = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        "dynamic_multimask_via_stability": False,
    }  # fmt: skip
    return _saved(Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompt,
                                       mask_decoder_config=decoder)), folder)  # fmt: skip


def _saved(network: Any, folder: Path) -> Path:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1 and "norm" not in name:  # as drawn they are so small that every mask is 0
                weight.copy_(torch.randn(weight.shape, generator=draw) / weight[0].numel() ** 0.5)
    network.save_pretrained(folder)
    return folder


MAKERS = {"sam": tiny_sam, "sam2": tiny_sam2}


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not available("transformers"):
        pytest.skip("transformers is not installed: pip install 'waferlens[sam]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers warns of while it is imported is its own
        torch.manual_seed(0)
        return MAKERS[request.param](tmp_path_factory.mktemp("sam") / request.param)


def test_a_checkpoint_becomes_a_graph_that_masks_alike(checkpoint: Path) -> None:
    network = load_sam(checkpoint)
    model, parity = proven_graph(network, checkpoint)
    assert parity["side_px"] == SIDE
    assert parity["stretched"] == (checkpoint.name == "sam2")
    assert parity["max_abs"] < 1e-3
    assert parity["flipped"] == 0
    session = SamSession(model, stretched=network.stretched)
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)
    box = np.array([9.5, 4.5, 60.5, 39.5])
    mask, score = session.mask(rgb, box)
    assert mask.shape == (48, 80)
    assert 0 < mask.mean() < 1
    # the same by hand: square, network, back
    frame = sam_frame(rgb, SIDE, stretched=network.stretched)
    with torch.no_grad():
        logits, expected = network(torch.from_numpy(frame.pixels[None]), torch.from_numpy(frame.box(box)[None]))
    assert np.array_equal(mask, frame.on_image(logits[0, 0].numpy()) > 0)
    assert score == pytest.approx(float(expected[0, 0]), abs=1e-4)
    other, _ = session.mask(rgb, np.array([59.5, 30.5, 75.5, 45.5]))
    assert (other != mask).any()  # the box is heard


def test_boxes_and_a_checkpoint_become_a_bundle_that_finds_packages(
    checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    make_roi_bundle(tmp_path / "boxes", masks=False, name="roi-yolov5n")
    words = ["export", str(tmp_path / "boxes"), "--sam", str(checkpoint), "--out", str(tmp_path / "pair.zip")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"]["flipped"] == 0
    bundle = open_bundle(tmp_path / "pair.zip")
    assert bundle.recipe["model"] == {
        "kind": "box-sam", "boxes": "roi-yolov5n", "family": checkpoint.name, "side_px": SIDE, "margin": 0.0
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_bytes(bundle.files["recipe.yaml"])
    assert load_recipe(tmp_path / "recipe.yaml").name == "roi-yolov5n-sam"
    assert str(tmp_path) not in json.dumps(bundle.runcard)
    image, _ = package_picture((400, 400), (200.0, 200.0), (145.0, 272.0))
    method = finder("yolov5n-sam", bundle=tmp_path / "pair.zip", refine=False)
    assert method.name == "yolov5n-sam"
    box = detected(method.boxes, [image], least=0.25)[0].boxes[0]
    # masks of random weights are anything; that this one is of this box is what can be known
    expected = roi_body(image, light="bf", mask=method.sam.mask(image, box)[0])
    told = method.find(image, light="bf")
    assert (told.reason, told.score) == (expected.reason, expected.score)
    assert 0.25 < told.network_score < 0.9


def test_what_makes_no_pair(tmp_path: Path, capsys: Any) -> None:
    def told(*words: str) -> str:
        assert main(["export", *words, "--out", str(tmp_path / "out")]) in (1, 2)
        return " ".join(capsys.readouterr().err.split())

    make_roi_bundle(tmp_path / "boxes", masks=False)
    make_package_bundle(tmp_path / "cracks")
    run = tmp_path / "run"
    run.mkdir()
    (run / "weights.safetensors").write_bytes(b"")
    boxes, sam = str(tmp_path / "boxes"), ["--sam", str(tmp_path)]
    assert "is a run; export it first" in told(str(run), *sam)
    assert "by-hand, which draws no boxes around packages" in told(str(tmp_path / "cracks"), *sam)
    assert "is no recipe of kind box-sam" in told(boxes, *sam, "--recipe", "roi-edges")
    assert "is no checkpoint of SAM" in told(boxes, *sam)
    assert "--data means nothing beside --sam" in told(boxes, *sam, "--data", str(tmp_path))
    assert "--recipe is that of the pair" in told(boxes, "--recipe", "roi-yolov5n-sam")


def test_a_network_too_large_for_a_graph_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        large = torch.nn.Linear(MOST_BYTES // 8192, 2048)
    with pytest.raises(InputError, match="GB of weights; a graph holds 2"):
        proven_graph(SamRoiNet(large, SIDE, stretched=False), tmp_path)


def test_the_mean_colour_is_nothing_to_the_network(checkpoint: Path) -> None:
    network, seen = load_sam(checkpoint), []
    network.network.vision_encoder.register_forward_pre_hook(
        lambda _, inputs, named: seen.append(inputs[0] if inputs else named["pixel_values"]), with_kwargs=True
    )
    grey = torch.tensor(MEAN_GREY)[None, :, None, None].expand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        network(grey, torch.tensor([[1.0, 1.0, 30.0, 30.0]]))
    assert float(seen[0].abs().max()) < 1e-5


def test_a_broken_torchvision_does_no_harm(checkpoint: Path, tmp_path: Path) -> None:
    """One that does not belong to the installed torch fails when it is imported; so nothing may import it."""
    if checkpoint.name != "sam":
        pytest.skip("both are imported the same way; a second start of Python tells nothing more")
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    told = tmp_path / "torchvision-0.20.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.20.0\n")
    program = f"import waferlens.models.sam_roi as s; print(s.load_sam({str(checkpoint)!r}).side_px)"
    where = os.pathsep.join([str(tmp_path), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(SIDE)]


def test_a_checkpoint_without_all_its_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(InputError, match="its weights cannot be read"):
        load_sam(tmp_path)
    state = load_file(checkpoint / "model.safetensors")
    dropped = next(name for name in state if name.startswith("mask_decoder") and name.endswith("weight"))
    save_file({name: value for name, value in state.items() if name != dropped}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(InputError, match="unfilled"):
        load_sam(tmp_path)


def test_folders_that_hold_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its config\.json cannot be read"):
        load_sam(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"its config\.json cannot be read"):
        load_sam(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="is a checkpoint of 'bert'; known: sam, sam2"):
        load_sam(tmp_path)


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam", "vision_config": {}}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'waferlens\[sam\]'"):
        load_sam(tmp_path)


class Squares(torch.nn.Module):
    """Stands for a network of transformers: a mask of what is bright and to the right of the box's left edge."""

    def forward(self, pixel_values: torch.Tensor, input_boxes: torch.Tensor, multimask_output: bool) -> Any:
        coarse = torch.nn.functional.avg_pool2d(pixel_values.mean(dim=1, keepdim=True), 4)
        columns = torch.arange(coarse.shape[3]) * 4.0 + 1.5
        inside = torch.where(columns > input_boxes[0, 0, 0], 1.0, -1.0)
        told = SimpleNamespace()
        told.pred_masks = (coarse.clamp(min=0.1) * inside)[:, None]
        told.iou_scores = input_boxes[:, :, 2:3]
        return told


def test_the_graph_around_any_network() -> None:
    """What is ours around the network, also where transformers is not installed."""
    network = SamRoiNet(Squares(), SIDE, stretched=False)
    session = SamSession(sam_graph(network), stretched=False)
    assert session.side_px == SIDE
    rgb = np.full((32, 64, 3), 255, np.uint8)
    mask, score = session.mask(rgb, np.array([31.5, 0, 50.0, 20]))
    assert mask[:, 34:].all()
    assert not mask[:, :30].any()
    assert score == pytest.approx(50.0)
    with pytest.raises(BundleError, match="cannot be loaded"):
        SamSession(b"no graph", stretched=False)


def test_a_graph_that_says_something_else_is_refused() -> None:
    require_sam_parity(SamParity(2, 0.001, 0.001, 0.01, 0))
    for parity, said in (
        (SamParity(2, 0.1, 0.0, 0.01, 3), "logits"),
        (SamParity(2, 0.0, float("nan"), 0.01, 0), "scores"),
    ):
        with pytest.raises(ParityError, match=said):
            require_sam_parity(parity)
