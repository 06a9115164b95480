"""`waferlens prepare roi` as its users and their scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from make_package import package_picture
from make_package_bundle import make_package_bundle
from make_roi_bundle import make_roi_bundle, make_sam_bundle
from waferlens.cli.main import main
from waferlens.errors import BundleError, RecipeError
from waferlens.ops.roi_edges import EdgesSettings
from waferlens.ops.roi_opencv import OpencvSettings
from waferlens.prepare.roi_finders import finder
from waferlens.recipe import load_recipe


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write(folder / "a-bf.png", package_picture((800, 800), (400, 400), angle_deg=25.0)[0])
    write(folder / "b-dfw.png", package_picture((800, 800), (400, 400), angle_deg=-100.0, light="dfw")[0])
    write(folder / "cut.png", package_picture((800, 800), (110, 400))[0])
    (folder / "broken.jpg").write_bytes(cv2.imencode(".jpg", np.full((200, 200, 3), 90, np.uint8))[1].tobytes()[:900])
    return folder


def call(capsys, *words) -> tuple[int, str, str]:
    status = main(["prepare", "roi", *map(str, words), "--size", "290x545"])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_folder_becomes_crops_results_and_quarantine(pictures, tmp_path, capsys) -> None:
    status, out, _ = call(capsys, pictures, "--out", tmp_path / "roi", "--method", "edges", "--json")
    assert status == 1
    result = json.loads(out)
    assert result == json.loads((tmp_path / "roi" / "roi.json").read_text())
    by_name = {Path(one["file"]).name: one for one in result["images"]}
    assert {Path(one["file"]).name for one in result["quarantined"]} == {"cut.png", "broken.jpg"}
    assert "cut by the left edge" in by_name["cut.png"]["reason"]
    assert "truncated JPEG" in by_name["broken.jpg"]["reason"]
    good = by_name["a-bf.png"]
    assert good["light"] == "bf"
    assert good["angle_deg"] == pytest.approx(25.0, abs=0.05)
    assert np.array(good["quad"]).shape == (4, 2)
    assert np.array(good["homography"]).shape == (3, 3)
    assert cv2.imread(good["crop"]).shape == (545, 290, 3)
    assert by_name["b-dfw.png"]["light"] == "dfw"
    assert {path.name for path in (tmp_path / "roi").iterdir()} == {"a-bf.png", "b-dfw.png", "roi.json"}


def test_patterns_and_the_other_method(pictures, tmp_path, capsys) -> None:
    status, out, err = call(capsys, pictures / "*-bf.png", "--out", tmp_path / "roi", "--method", "opencv")
    assert (status, err) == (0, "")
    assert "score" in out
    assert cv2.imread(str(tmp_path / "roi" / "a-bf.png")).shape == (545, 290, 3)


def test_darkfield_where_brightfield_is_said(pictures, tmp_path, capsys) -> None:
    status, _, err = call(capsys, pictures / "b-dfw.png", "--out", tmp_path / "roi", "--light", "bf")
    assert status == 1
    assert "brightfield is said" in err


def test_images_that_show_no_colours_say_so(tmp_path, capsys) -> None:
    image = package_picture((800, 800), (400, 400))[0]
    write(tmp_path / "dark.png", image // 30)
    assert cv2.imwrite(str(tmp_path / "grey.png"), image[..., 1])
    assert cv2.imwrite(str(tmp_path / "deep.png"), image.astype(np.uint16) * 257)
    status, _, err = call(capsys, tmp_path, "--out", tmp_path / "roi")
    assert status == 1
    said = dict(line.split(": quarantined: ") for line in err.splitlines())
    assert said[str(tmp_path / "dark.png")].startswith("a dark image: its brightest colour has a mean of ")
    assert said[str(tmp_path / "grey.png")] == "has 1 channel of uint8; save it with red, green, blue of 8 bits"
    assert said[str(tmp_path / "deep.png")] == "has 3 channels of uint16; save it with red, green, blue of 8 bits"


def test_wrong_words_are_refused(pictures, tmp_path, capsys) -> None:
    assert main(["prepare", "roi", str(pictures), "--out", str(tmp_path / "x"), "--size", "big"]) == 2
    assert "581x1090" in capsys.readouterr().err
    assert main(["prepare", "roi", str(tmp_path / "none-*.png"), "--out", str(tmp_path / "x")]) == 1
    assert "matches no file" in capsys.readouterr().err


def test_the_recipes_say_what_the_methods_do(tmp_path) -> None:
    opencv, edges = (load_recipe(f"roi-{name}") for name in ("opencv", "edges"))
    assert finder("opencv").settings == OpencvSettings(**opencv.model.model_dump(exclude={"kind"})) == OpencvSettings()
    assert finder().settings == EdgesSettings(**edges.model.model_dump(exclude={"kind"})) == EdgesSettings()
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: roi-opencv\nname: mine\nmodel: {block_px: 31}\n")
    assert finder(mine).settings.block_px == 31
    with pytest.raises(RecipeError, match="should be odd"):
        finder("opencv", settings=["model.block_px=30"])


@pytest.mark.parametrize("method", ["opencv", "edges"])
def test_recipes_without_a_network_run_on_small_packages(method, tmp_path, capsys) -> None:
    small = write(
        tmp_path / "small.png", cv2.resize(package_picture((800, 800), (400, 400))[0], (200, 200), 0, 0, 0, 3)
    )
    words = [small, "--out", tmp_path / "roi", "--method", method]
    status, _, err = call(capsys, *words)
    assert status == 1
    assert "no chip" in err
    areas = {"opencv": ["least_contour_px", "least_rectangle_px"], "edges": ["least_area_px"]}[method]
    tiny = [f"model.{name}=4000" for name in areas]
    tiny += ["model.block_px=39"] if method == "opencv" else ["model.coarse=2", "model.trim_px=10"]
    status, out, err = call(capsys, *words, *(word for one in tiny for word in ("--set", one)))
    assert (status, err) == (0, "")
    assert "score" in out


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("bundles")
    make_roi_bundle(home / "boxes", masks=False)
    make_roi_bundle(home / "masks")
    make_roi_bundle(home / "halves", halves=True)
    make_roi_bundle(home / "small", name="roi-yolov5s-seg")
    make_sam_bundle(home / "sam")
    return {path.name: path for path in home.iterdir()}


METHODS = {"boxes": "yolov5n", "masks": "yolov5n-seg", "sam": "yolov5n-sam"}


@pytest.mark.parametrize("angle", [0.0, 21.0, 133.0])
@pytest.mark.parametrize("kind", METHODS)
def test_lines_are_fitted_to_what_a_network_tells(kind, angle, bundles) -> None:
    image, truth = package_picture((800, 800), (400.3, 399.6), angle_deg=angle)
    fitted, rough = (finder(METHODS[kind], bundle=bundles[kind], refine=one) for one in (True, False))
    roi = fitted.find(image, light="bf", size_px=(290, 545))
    assert roi.found
    assert roi.method == ("by-hand-sam" if kind == "sam" else "by-hand")
    assert roi.network_score == pytest.approx(0.9)
    assert np.abs(roi.quad - truth["ic"]).max() < 0.4
    assert roi.upright == "opening"
    told = rough.find(image, light="bf", size_px=(290, 545))
    if kind != "boxes":
        # pixels of the networks are five and three of the image
        assert 1.0 < np.abs(told.quad - truth["ic"]).max() < 10
    else:  # a box is as wide as the package is turned
        assert told.quad.min(axis=0) == pytest.approx(truth["ic"].min(axis=0), abs=10)
        assert told.quad.max(axis=0) == pytest.approx(truth["ic"].max(axis=0), abs=10)


@pytest.mark.parametrize("kind", METHODS)
def test_the_steepness_of_borders_is_told_to_networks_too(kind, bundles, pictures, tmp_path, capsys) -> None:
    words = [pictures / "a-bf.png", "--out", tmp_path / "roi", "--bundle", bundles[kind]]
    told = {}
    for setting in ([], ["--set", "model.steep_px=6.5"]):
        status, out, err = call(capsys, *words, *setting, "--json", "--method", METHODS[kind])
        assert (status, err) == (0, "")
        told[len(setting)] = json.loads(out)["images"][0]
    assert told[2]["steep_px"] == 6.5
    assert told[0]["steep_px"] != 6.5, "fitted to the image"
    assert np.abs(np.subtract(told[2]["quad"], told[0]["quad"])).max() > 0.01


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("refine", [True, False])
def test_networks_answer_what_cannot_be_used(kind, refine, bundles) -> None:
    method = finder(bundle=bundles[kind], refine=refine)
    board = np.full((800, 800, 3), (60, 110, 70), np.uint8)
    assert "no chip: the network draws no box with a score of 0.25" in method.find(board).reason
    assert "dark image" in method.find(board // 30).reason
    assert "cut by the left edge" in method.find(package_picture((800, 800), (110.0, 400.0))[0]).reason
    darkfield = package_picture((800, 800), (400.3, 399.6), light="dfw")[0]
    assert "brightfield is said" in method.find(darkfield, light="bf").reason
    assert method.find(darkfield, light="dfw").reason == "taken in light dfw; the bundle knows bf"


def test_two_boxes_are_two_chips(bundles) -> None:
    image = np.full((800, 1200, 3), (60, 110, 70), np.uint8)
    image[150:650, 100:400] = image[150:650, 800:1100] = 25
    roi = finder(bundle=bundles["halves"]).find(image, light="bf")
    assert roi.reason.startswith("2 chips: boxes of ")
    one = image.copy()
    one[:, 600:] = (60, 110, 70)
    assert "chips" not in finder(bundle=bundles["halves"]).find(one, light="bf").reason


def test_a_network_on_the_command_line(pictures, bundles, tmp_path, capsys) -> None:
    words = [pictures / "a-bf.png", "--out", tmp_path / "roi", "--method", "yolov5n-seg", "--bundle", bundles["masks"]]
    status, out, _ = call(capsys, *words, "--json")
    assert status == 0
    result = json.loads(out)
    assert result["method"] == "by-hand"
    assert result["images"][0]["angle_deg"] == pytest.approx(25.0, abs=0.05)
    status, out, _ = call(capsys, *words, "--json", "--no-refine")
    assert json.loads(out)["images"][0]["angle_sigma_deg"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "yolov5n-seg"], "roi-yolov5n-seg is a network and none is shipped: train and export it"),
        (["--method", "yolov5n-sam"], "export its boxes with --sam"),
        (["--method", "yolov5n-seg", "--bundle", "boxes"], "which tells boxes; roi-yolov5n-seg tells masks"),
        (["--method", "yolov5n-seg", "--bundle", "small"], "is a bundle of roi-yolov5s-seg"),
        (["--method", "yolov5n-sam", "--bundle", "masks"], "which tells masks; roi-yolov5n-sam tells masks of SAM"),
        (["--method", "edges", "--bundle", "masks"], "--bundle means nothing to roi-edges"),
        (["--method", "opencv", "--no-refine"], "--refine means nothing to roi-opencv"),
        (["--bundle", "masks", "--set", "findings.score=0.1"], "a network runs as its bundle was made"),
        (["--bundle", "masks", "--set", "model.coarse=4"], "set how lines are fitted to what it tells: model.out_px"),
        (["--bundle", "masks", "--set", "model.steep_px=-1"], "steep_px"),
        (["--bundle", "masks", "--set", "model.steep_px=9", "--no-refine"], "and --no-refine fits none"),
        (["--method", "package-fast"], "package-fast finds no packages; methods are opencv, edges"),
        (["--method", "edge"], "did you mean 'roi-edges'?"),
    ],
)
def test_methods_and_bundles_that_do_not_fit(words, said, pictures, bundles, tmp_path, capsys) -> None:
    told = [str(bundles.get(word, word)) for word in words]
    status, _, err = call(capsys, pictures / "a-bf.png", "--out", tmp_path / "roi", *told)
    assert status == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "roi").exists()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: make_package_bundle(path), "looks at upright packages, and finds crack, rotate"),
        (lambda path: make_roi_bundle(path, classes=("die", "lead")), "none of them is called package"),
        (lambda path: make_sam_bundle(path, boxes=False), "there is no boxes.onnx in this bundle"),
        (lambda path: make_sam_bundle(path, side_px=1024), "looks at 256 px, recipe.yaml says 1024 px"),
    ],
)
def test_bundles_that_find_no_packages(made, said, tmp_path) -> None:
    made(tmp_path / "bundle")
    with pytest.raises(BundleError, match=said):
        finder(bundle=tmp_path / "bundle")


def test_other_verbs_send_a_finder_here(bundles, pictures, tmp_path, capsys) -> None:
    words = ["inspect", str(pictures / "a-bf.png"), "--bundle", str(bundles["sam"]), "--out", str(tmp_path / "out")]
    assert main(words) in (1, 2)
    assert "masks packages and finds no defects; it is for `waferlens prepare roi --bundle`" in capsys.readouterr().err
