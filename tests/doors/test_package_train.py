"""The package station's networks as a user meets them: from devices to a run, to a bundle, to boxes on an image."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiny_package import tiny_package, tiny_packages
from waferlens.bundle.files import open_bundle
from waferlens.bundle.package import PackageSession
from waferlens.errors import BundleError, InputError, ParityError, UsageError
from waferlens.export import export
from waferlens.export.package import held_out, require_package_parity, torch_says
from waferlens.formats.package_set import read_device
from waferlens.load.package import read_pictures
from waferlens.models import build_detector
from waferlens.ops.boxes import iou
from waferlens.prepare.package_findings import detected
from waferlens.prepare.package_geometry import image_quad, placed
from waferlens.prepare.package_truth import place_picture, shown_labels
from waferlens.prepare.splits import split_of
from waferlens.recipe import PackageRecipe, as_yaml, load_recipe
from waferlens.train import train
from waferlens.train.ahead import made_ahead
from waferlens.train.average import copy_of, follow
from waferlens.train.package import DetectionBatches
from waferlens.train.package_sources import anchors_for, read_sources
from waferlens.train.package_task import DetectionTask, grouped

RECIPES = [
    ("package-fast", ()),
    ("package-fast", ("train.crop_px=64", "input.lights=[bf, dfw]")),
    ("package-yolov7-tiny-nwd-coord", ("train.optimizer=adamw", "train.ema=0")),
    ("roi-yolov5n-seg", ()),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_packages(tmp_path_factory.mktemp("packages") / "set")


@pytest.fixture(scope="module")
def learned(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PackageRecipe, Path, Path]:
    """A recipe, its run, long enough to find turned dies, and its bundle."""
    home = tmp_path_factory.mktemp("learned")
    settings = ["train.epochs=60", "train.optimizer=adamw", "train.lr=8e-3", "train.ema=0.9", "loss.box=ciou"]
    settings += ["loss.class_kind=quality-focal", "train.augment.flip=false", "train.augment.paste_in=0"]
    recipe = tiny_package("package-fast", *settings)
    train(recipe, packages, home / "run", threads=1)
    export(home / "run", home / "bundle")
    return recipe, home / "run", home / "bundle"


def curves(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "cpu_seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("name", "settings"), RECIPES)
def test_recipes_run_from_devices_to_boxes(
    name: str, settings: tuple[str, ...], packages: Path, tmp_path: Path
) -> None:
    recipe = tiny_package(name, *settings)
    result = train(recipe, packages, tmp_path / "run", threads=1)
    assert 0 <= result.validation <= 1
    assert result.as_json().keys() >= {"map50_error", "epochs", "stopped"}
    card = json.loads((tmp_path / "run" / "runcard.json").read_text())
    assert card["data"]["world"] == "package-sim"
    assert set(card["data"]["objects"]) == set(recipe.target.classes)
    assert str(packages) not in (tmp_path / "run" / "runcard.json").read_text()
    anchored = recipe.model.kind != "package-fast"
    assert ("anchors" in card["data"]) == anchored
    if anchored:  # they travel with the weights
        kept = load_file(tmp_path / "run" / "weights.safetensors")["head.anchors_px"]
        assert kept.numpy() == pytest.approx(np.array(card["data"]["anchors"]["px"]), abs=0.01)
    exported = export(tmp_path / "run", tmp_path / "bundle")
    assert exported.parity["max_abs"] <= 0.05
    assert exported.parity["max_abs_score"] <= 0.001
    assert exported.parity["ok_ng_flips"] == exported.parity["findings_changed"] == 0
    session = PackageSession(open_bundle(tmp_path / "bundle"))
    device = read_device(packages, 0)
    image = cv2.imread(str(device.images["bf"]))[..., ::-1]
    quads = [device.ic_quad] if recipe.input.region == "roi" else None
    found = detected(session, [image], quads, least=0.0001)[0]
    assert 0 < len(found.kinds) == len(found.boxes) == len(found.quads) <= recipe.findings.most
    assert set(found.kinds) <= set(recipe.target.classes)
    assert (found.in_input.masks is not None) == session.tells_masks == ("seg" in name)
    if found.in_input.masks is not None:
        for mask, (x0, y0, x1, y1) in zip(found.in_input.masks, found.in_input.boxes, strict=True):
            y, x = np.nonzero(mask)
            assert np.all((x > x0) & (x < x1) & (y > y0) & (y < y1))


def test_what_it_learns_and_that_a_session_finds_the_same(
    learned: tuple[PackageRecipe, Path, Path], packages: Path
) -> None:
    recipe, run, bundle = learned
    rows = curves(run)
    assert float(rows[-1]["loss"]) < 0.75 * float(rows[0]["loss"])
    session = PackageSession(open_bundle(bundle), threads=2)
    network = build_detector(recipe).eval()
    network.load_state_dict(load_file(run / "weights.safetensors"))
    images = held_out(recipe, packages, session)
    ours = session.kept(torch_says(network, images), 0.05)
    theirs = session.findings(images, 0.05)
    assert sum(map(len, ours)) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.kinds.tolist() == other.kinds.tolist()
        assert one.boxes == pytest.approx(other.boxes, abs=0.01)
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_a_turned_die_is_found_where_it_lies_in_the_image(
    learned: tuple[PackageRecipe, Path, Path], packages: Path
) -> None:
    session = PackageSession(open_bundle(learned[2]))
    overlaps = []
    for picture in read_pictures(packages, ["rotate"], ["bf"], lambda group: split_of(group) == "train"):
        turned = [label for label in picture.labels if label.kind == "rotate"]
        if turned:
            pixels, white = picture.pixels()
            found = detected(session, [pixels], [picture.ic_quad], white, least=[1.1, 0.02])[0]
            assert set(found.kinds) == {"rotate"}
            overlaps.append(iou(found.boxes[:1], np.array([turned[0].box]))[0, 0])
    assert len(overlaps) >= 3
    assert np.median(overlaps) > 0.75


def test_a_class_can_have_a_limit_of_its_own(learned: tuple[PackageRecipe, Path, Path], packages: Path) -> None:
    recipe, _, bundle = learned
    session = PackageSession(open_bundle(bundle))
    session.most = 10_000  # none is crowded out by the other class
    images = held_out(recipe, packages, session)
    either = session.findings(images, 0.03)
    one = session.findings(images, [0.03, 2.0])
    assert all(set(found.kinds) <= {0} for found in one)
    assert [int((found.kinds == 0).sum()) for found in either] == [len(found) for found in one]
    assert any(1 in found.kinds for found in either)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses(packages: Path, tmp_path: Path) -> None:
    settings = [
        "train.epochs=8",
        "train.augment.mixup=0.3",
        "train.augment.paste_in=0.3",
        "train.augment.noise_grey=3",
    ]
    recipe = tiny_package("package-yolov7-tiny-nwd", *settings)
    (tmp_path / "recipe.yaml").write_text(as_yaml(recipe))
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "waferlens", "train", str(tmp_path / "recipe.yaml"), "--data", str(packages)]
    process = subprocess.Popen(
        [*command, "--threads", "1", "--out", str(broken)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(curves(broken)) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(curves(broken)) < 8, "the run was not interrupted in its middle"
    threads = torch.get_num_threads()
    for run in (broken, whole):
        train(recipe, packages, run, threads=1)
    torch.set_num_threads(threads)
    assert curves(broken) == curves(whole)
    ours, theirs = load_file(broken / "weights.safetensors"), load_file(whole / "weights.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_begins_with_another(learned: tuple[PackageRecipe, Path, Path], packages: Path, tmp_path: Path) -> None:
    recipe, run, _ = learned
    again = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"epochs": 1, "lr": 1e-9, "muon_lr": 1e-9})}
    )
    train(again, packages, tmp_path / "run", start=run, threads=1)
    ours, theirs = load_file(tmp_path / "run" / "weights.safetensors"), load_file(run / "weights.safetensors")
    for name, weight in build_detector(recipe).named_parameters():
        assert torch.allclose(ours[name], theirs[name], atol=1e-6), name
        assert not torch.allclose(ours[name], weight, atol=1e-3) or weight.numel() < 64
    other = recipe.model_copy(update={"target": recipe.target.model_copy(update={"classes": ("rotate", "crack")})})
    with pytest.raises(UsageError, match=r"differs in target\.classes"):
        train(other, packages, tmp_path / "other", start=run)


def test_an_export_that_disagrees_is_refused(learned: tuple[PackageRecipe, Path, Path], tmp_path: Path) -> None:
    _, run, _ = learned
    with pytest.raises(ParityError, match="boxes of ONNX Runtime and torch differ by up to"):
        export(run, tmp_path / "bundle", tolerance=0.0)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_of_another_station_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="of station golden, not package"):
        PackageSession(open_bundle("golden-template"))


def test_images_of_another_size_are_refused(learned: tuple[PackageRecipe, Path, Path], packages: Path) -> None:
    session = PackageSession(open_bundle(learned[2]))
    with pytest.raises(UsageError, match="the network takes b x 3 x 160 x 96"):
        session.predict(np.zeros((1, 3, 96, 160), np.float32))
    with pytest.raises(UsageError, match="hand in its corners"):
        detected(session, [np.zeros((20, 20, 3), np.uint8)])
    assert detected(session, []) == []


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (
            ["target.classes=[crack, scratch]"],
            UsageError,
            "does not tell scratch; it tells crack, rotate, package, die",
        ),
        (["input.lights=[dfw]", "target.classes=[crack]"], InputError, "validation side shows crack"),
    ],
)
def test_data_that_does_not_have_what_is_asked(
    settings: list[str], error: type[Exception], said: str, packages: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        train(tiny_package("package-fast", *settings), packages, tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.augment.roll_px=3"], "a package is no cell of an array"),
        (["train.augment.corner_px=3", "input.region=image"], "a whole image has no corners"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        tiny_package("package-fast", *settings)


def test_labels_of_ones_own_are_learned_as_well(packages: Path, tmp_path: Path) -> None:
    """The same images with the boxes of `labels.json` only: whole images, 40 groups of one."""
    folder = tmp_path / "own"
    (folder / "images").mkdir(parents=True)
    told = json.loads((packages / "labels.json").read_text())
    for image in told["images"]:
        name = Path(image["file_name"]).name
        image["file_name"] = name
        (folder / "images" / name).write_bytes((packages / "images" / name).read_bytes())
    (folder / "labels.json").write_text(json.dumps(told))
    kinds = [one["name"] for one in told["categories"]]
    settings = [f"target.classes=[{', '.join(kinds)}]", "input.region=image", "train.epochs=1", "model.traces=false"]
    settings.append("train.augment.corner_px=0")
    result = train(tiny_package("package-fast", *settings), folder, tmp_path / "run", threads=1)
    assert 0 <= result.validation <= 1
    with pytest.raises(UsageError, match="the corners of the package are not told"):
        train(tiny_package("package-fast"), folder, tmp_path / "refused")


def test_true_boxes_are_those_of_the_set(packages: Path, tmp_path: Path) -> None:
    """Outlines laid into the whole image are the boxes that the simulator tells; in the upright package they are no
    larger than the boxes around the turned boxes."""
    recipe = tiny_package("package-fast")
    compared = 0
    for number in range(12):
        device = read_device(packages, number)
        pictures = [
            one for one in read_pictures(packages, ["crack", "rotate"], ["bf"]) if one.path == device.images["bf"]
        ]
        labels, wanted = pictures[0].labels, [one for one in device.defects if not one.ignore]
        whole = shown_labels(labels, ("crack", "rotate"), placed(image_quad(324, 196), 324, 196), least_left=0.0)
        assert sorted(map(tuple, whole.boxes.round(3))) == sorted(tuple(np.round(one.box, 3)) for one in wanted)
        placement = place_picture(pictures[0], (324, 196), recipe.input)
        upright = shown_labels(labels, ("crack", "rotate"), placement)
        around = placement.boxes_to_input(np.array([labels[place].box for place in upright.places]).reshape(-1, 4))
        assert np.all(upright.boxes[:, 2:] - upright.boxes[:, :2] <= around[:, 2:] - around[:, :2] + 1.0)
        compared += len(wanted)
    assert compared >= 8


def test_batches_are_a_function_of_seed_and_epoch(packages: Path, tmp_path: Path) -> None:
    settings = ["train.augment.rotate_deg=5", "train.augment.corner_px=1", "train.augment.mixup=0.5"]
    recipe = tiny_package("package-fast", *settings)
    sources, left_out = read_sources(recipe, packages, "train")
    assert left_out == []
    first, again, later = (list(DetectionBatches(sources, recipe, epoch)) for epoch in (3, 3, 4))
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(first[0]["image"], later[0]["image"])
    assert first[0]["image"].dtype == torch.uint8
    assert first[0]["image"].is_contiguous(memory_format=torch.channels_last)
    assert len(first) == len(sources) // 4
    assert sum(len(one["image"]) for one in DetectionBatches(sources, recipe, None)) == len(sources)


def test_twins_stay_on_their_devices_side(packages: Path) -> None:
    groups = {picture.group for picture in read_pictures(packages, ["crack"], ["bf", "dfw"])}
    assert len(groups) == 24
    sides = [{p.group for p in read_pictures(packages, ["crack"], ["bf"], lambda g, s=s: split_of(g) == s)}  # type: ignore[misc]
             for s in ("train", "validation", "calibration", "test")]  # fmt: skip
    assert sum(map(len, sides)) == len(set.union(*sides)) == 24


def test_anchors_reach_every_box(packages: Path, tmp_path: Path) -> None:
    recipe = tiny_package("package-yolov7-tiny")
    fitted = anchors_for(recipe, read_sources(recipe, packages, "train")[0])
    assert fitted.anchors_px.shape == (3, 3, 2)
    assert fitted.recall > 0.95


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_norms_and_biases_do_not_decay(optimizer: str, tmp_path: Path) -> None:
    recipe = tiny_package("package-yolov7-tiny", f"train.optimizer={optimizer}", "train.weight_decay=0.1")
    network = build_detector(recipe)
    decaying, rest = (group["params"] for group in grouped(network, 0.1))
    assert len(decaying) + len(rest) == len(list(network.parameters()))
    assert all(weight.ndim == 4 for weight in decaying)
    task = DetectionTask(network, recipe, 10)
    groups = task.configure_optimizers()["optimizer"].param_groups
    decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
    for name, weight in network.named_parameters():
        if name.endswith(("bias", "vector")) or weight.ndim == 1:
            assert id(weight) not in decayed, name


def test_the_mean_of_the_weights_follows_them() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    average = copy_of(network)
    before = average[0].weight.clone()  # type: ignore[index]
    with torch.no_grad():
        network[0].weight += 1.0
        network[1].num_batches_tracked += 5
    follow(average, network, 0.9, 10_000)
    assert torch.allclose(average[0].weight, before + 0.1)  # type: ignore[index]
    assert int(average[1].num_batches_tracked) == 5  # type: ignore[index]
    follow(average, network, 0.9999, 0)  # early it forgets fast
    assert torch.allclose(average[0].weight, before + 0.1 + 0.9 * 0.9)  # type: ignore[index]


def test_parity_refuses_verdicts_that_turn(learned: tuple[PackageRecipe, Path, Path]) -> None:
    from waferlens.export.package import PackageParity

    good = PackageParity(5, 0.01, 1e-5, 0.0, 0.05, 0.001, 0, 0, 0)
    require_package_parity(good)
    for changed, said in (
        ({"max_abs_score": 0.1}, "scores"),
        ({"ok_ng_flips": 1}, "verdicts turn"),
        ({"max_abs": float("nan")}, "boxes"),
    ):
        with pytest.raises(ParityError, match=said):
            require_package_parity(
                PackageParity(**{**{name: getattr(good, name) for name in good.__slots__}, **changed})
            )


def test_batches_made_ahead_are_those_made_between_the_steps(packages: Path) -> None:
    recipe = tiny_package("package-fast", "train.augment.rotate_deg=5", "train.augment.mixup=0.5")
    sources, _ = read_sources(recipe, packages, "train")
    for epoch in (0, None):
        between = list(DetectionBatches(sources, recipe, epoch))
        for workers in (1, 2):
            ahead = list(made_ahead(DetectionBatches(sources, recipe, epoch), workers))
            assert len(ahead) == len(between)
            for one, other in zip(ahead, between, strict=True):
                assert one.keys() == other.keys()
                assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_weights_do_not_depend_on_who_makes_the_batches(packages: Path, tmp_path: Path) -> None:
    recipe = tiny_package("package-fast", "train.epochs=4", "train.validate_every=2")
    for workers in (0, 2):
        train(recipe, packages, tmp_path / str(workers), threads=1, workers=workers)
    first, second = (load_file(tmp_path / str(workers) / "weights.safetensors") for workers in (0, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    judged = [row["map50_error"] != "nan" for row in curves(tmp_path / "0")]
    assert judged == [False, True, False, True]


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_a_run_goes_on_between_epochs_that_are_judged(
    broken: int, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_package("package-fast", "train.epochs=4", "train.validate_every=2")
    train(recipe, packages, tmp_path / "whole", threads=1)
    made = DetectionBatches.batch_of

    def interrupted(self: DetectionBatches, step: int) -> dict[str, torch.Tensor]:
        if self.epoch == broken and step == 1:
            raise OSError("the power fails")
        return made(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(DetectionBatches, "batch_of", interrupted)
        with pytest.raises(OSError, match="the power fails"):
            train(recipe, packages, tmp_path / "broken", threads=1)
    train(recipe, packages, tmp_path / "broken", threads=1)
    assert curves(tmp_path / "broken") == curves(tmp_path / "whole")
    told = json.loads((tmp_path / "broken" / "runcard.json").read_text())["results"]["devices"]
    assert [one["from_epoch"] for one in told] == [0, broken]
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_budget_ends_a_run_where_its_weights_are_judged(packages: Path, tmp_path: Path) -> None:
    recipe = tiny_package("package-fast", "train.epochs=6", "train.validate_every=3", "train.budget_cpu_minutes=1e-6")
    result = train(recipe, packages, tmp_path / "run", threads=1)
    assert (result.epochs, result.stopped) == (3, "budget")


def test_other_stations_make_their_batches_themselves(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hole-fast: its batches take less time .* --workers is for detectors"):
        train(load_recipe("hole-fast"), tmp_path, tmp_path / "run", workers=2)  # type: ignore[arg-type]
