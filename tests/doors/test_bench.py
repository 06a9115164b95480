"""Networks timed side by side: what is told, that the figures belong together, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from waferlens.bundle.files import open_bundle
from waferlens.cli.main import main
from waferlens.errors import FormatError, InputError, MissingExtraError, UsageError
from waferlens.extras import available
from waferlens.lab import bench_engines
from waferlens.lab.bench import bench, median_interval
from waferlens.lab.bench_engines import ENGINES, chosen_engines
from waferlens.lab.bench_networks import open_networks

INSTALLED = [name for name in ENGINES if available(name)]
SMALL = ["--input", "64x64", "--threads", "1", "--seconds", "0.05"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector's graph as a file, of one size of image."""
    path = tmp_path_factory.mktemp("graph") / "peer.onnx"
    path.write_bytes(open_networks(["package-fast"], (64, 96))[0].model)
    return path


def asked(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["bench", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_detectors_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    told = asked(["package-yolov7-tiny", "package-fast", "--batch", "1,2", *SMALL], capsys)
    assert (told["nms"], told["precision"], told["threads"]) == ("left out", "f32", 1)
    assert list(told["engines"]) == INSTALLED
    rows = {(one["engine"], one["batch"], one["name"]): one for one in told["timings"]}
    assert len(rows) == len(INSTALLED) * 2 * 2
    for (engine, batch, name), one in rows.items():
        assert (one["height_px"], one["width_px"], one["source"]) == (64, 64, "recipe")
        low, high = one["ms_interval"]
        assert 0 < one["fastest_ms_per_image"] <= one["ms_per_image"]
        assert low <= one["ms_per_image"] <= high
        assert one["images_per_s"] == pytest.approx(1e3 / one["ms_per_image"])
        first = rows[engine, batch, "package-yolov7-tiny"]
        if name == first["name"]:
            assert (one["ratio"], one["ratio_interval"]) == (1, None)
            assert one["parameters_fused"] == 6_010_302
            assert one["gflops"] == pytest.approx(13.03 / 100, rel=0.02)  # a hundredth of 640 x 640 px
        else:
            assert one["ratio_interval"][0] <= one["ratio"] <= one["ratio_interval"][1]
            assert one["ratio"] < 0.8, "a tenth of the operations cannot take as long"


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "hole-fast", "hole-unet-2", "--batch", "2", "--seconds", "0.02", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "hole-fast    bundle" in printed
    assert "hole-unet-2  recipe" in printed
    assert "NMS left out" in printed
    assert "torch: hole-fast is a bundle, of which only the graph is known" in printed
    for name in ENGINES:
        assert name in printed, "timed, or said why not"


def test_so_many_batches_as_asked() -> None:
    told = bench(["hole-fast"], [1], 1, engines=["onnxruntime"], warm_up=3, timed=21)
    assert [one.timed for one in told.timings] == [21]


def test_a_graph_of_others_is_timed_beside_ours(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = asked(["package-fast", str(graph), "--batch", "1", "--engine", "onnxruntime", "--input", "64x96",
                  "--seconds", "0.05"], capsys)  # fmt: skip
    ours, theirs = told["timings"]
    assert (theirs["name"], theirs["source"]) == (str(graph), "file")
    assert (theirs["height_px"], theirs["width_px"]) == (64, 96)
    assert theirs["parameters_fused"] is None
    assert 0.3 < theirs["ratio"] < 3, "it is the same network"
    assert ours["ratio"] == 1


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_engines_say_the_same() -> None:
    """What is timed is the network, whole, in each engine."""
    import openvino

    network = open_networks(["package-fast"], (64, 64))[0]
    fed = network.fed(2)
    assert network.module is not None
    model = openvino.Core().read_model(network.model)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert _close(compiled(fed)[0], _in_torch(network.module, fed))


def test_torch_and_the_graph_say_the_same() -> None:
    import onnxruntime

    for name in ("package-fast", "package-yolov7-tiny-nwd-slim"):
        network = open_networks([name], (64, 64))[0]
        fed = network.fed(2)
        assert network.module is not None
        boxes = onnxruntime.InferenceSession(network.model, providers=["CPUExecutionProvider"]).run(None, fed)[0]
        assert _close(boxes, _in_torch(network.module, fed))


def test_shipped_bundles_are_timed_as_they_are_or_at_another_size_as_their_recipe() -> None:
    own, other = open_networks(["package-fast"])[0], open_networks(["package-fast"], (64, 96))[0]
    assert (own.source, own.height_px, own.width_px) == ("bundle", 1088, 576)
    assert (other.source, other.height_px, other.width_px) == ("recipe", 64, 96)
    assert own.parameters_fused == other.parameters_fused


def _in_torch(module: Any, fed: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return module(*map(torch.from_numpy, fed.values()))[0].numpy()


def _close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return np.allclose(ours, theirs, atol=2e-3)


def test_the_interval_of_a_median_holds_it_as_often_as_said() -> None:
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([6.0, 2.0, 3.0, 4.0, 5.0, 1.0]) == (1.0, 6.0)
    rng = np.random.default_rng(5)
    draws = rng.exponential(size=(2000, 15))
    ends = np.array([median_interval(row) for row in draws])
    held = np.mean((ends[:, 0] <= np.log(2)) & (np.log(2) <= ends[:, 1]))
    assert held >= 0.95  # (exact: 96.5 %)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_engines, "available", lambda name: False)
    chosen, lacking = chosen_engines(None)
    assert chosen == ["onnxruntime"]
    assert "waferlens[openvino]" in lacking["openvino"]
    assert "waferlens[train]" in lacking["torch"]


@pytest.mark.skipif("openvino" in INSTALLED, reason="openvino is installed")
def test_an_engine_that_is_asked_for_has_to_be_there() -> None:
    with pytest.raises(MissingExtraError, match=r"waferlens\[openvino\]"):
        bench(["hole-fast"], engines=["openvino"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["package-fats"], "neither a bundle nor a recipe"),
        (["hole-fast", "hole-fast"], "named twice"),
        (["hole-fast", "--engine", "tensorrt"], "engine 'tensorrt' is unknown"),
        (["hole-fast", "--input", "640"], "such as 640x640"),
        ([str(open_bundle("hole-fast").path), "--input", "64x64"], "images of 72x48 only"),
        (["package-fast", "--input", "65x64"], "input.height_px"),
        (["golden-template"], "no network to time"),
        (["hole-fast", "--batch", "0"], "such as 1,16"),
    ],
)
def test_what_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


def test_files_that_are_no_graphs(tmp_path: Path, graph: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(FormatError, match="cannot be loaded"):
        bench([str(broken)])
    with pytest.raises(InputError, match="cannot be read"):
        bench([str(tmp_path / "none.onnx")])
    with pytest.raises(UsageError, match="64x96 only"):
        bench([str(graph)], size_px=(96, 64))
