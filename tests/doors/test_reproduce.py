"""Published tables made again at the smallest size: what is told, what resumes, and figures whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tiny_package import SCALE, tiny_packages
from waferlens.cli.main import main
from waferlens.errors import UsageError
from waferlens.formats.package_set import read_device
from waferlens.lab import reproduce_rows
from waferlens.lab.reproduce_figures import Figure, best_f1, finder_figures, inside
from waferlens.lab.reproduce_published import COSTS, SHARES, TABLES
from waferlens.lab.reproduce_text import _mean
from waferlens.ops.detection_matching import IGNORED, RIGHT, WRONG
from waferlens.ops.roi_record import Roi, homography_of, no_roi
from waferlens.recipe import load_recipe
from waferlens.simulate.package.dataset import package_world

Capture = pytest.CaptureFixture[str]
SMALL = ["model.width=0.125", "train.batch=4", "--input", "160x96", "--epochs", "1", "--threads", "1"]
FAST = ["--fps-input", "64x64", "--fps-seconds", "0.02"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_packages(tmp_path_factory.mktemp("packages") / "set")


def asked(words: list[str], capsys: Capture, status: int = 0) -> dict[str, Any]:
    assert main(["reproduce", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_table_of_detectors_resumes_where_it_was_interrupted(
    packages: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table"
    words = ["s2-table-4.6", *SMALL, *FAST, "--data", str(packages), "--rows", "baseline,1", "--out", str(out)]
    judge, judged = reproduce_rows.defect_figures, []

    def interrupted(*given: Any) -> dict[str, Figure]:
        judged.append(given)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return judge(*given)

    monkeypatch.setattr(reproduce_rows, "defect_figures", interrupted)
    assert main(["reproduce", *words]) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert [path.name for path in (out / "rows").iterdir()] == ["baseline-seed1.json"]

    told = asked(words, capsys)
    assert len(judged) == 3, "the row that was finished is not judged again"
    again = asked(words, capsys)
    assert len(judged) == 3
    assert again == told

    baseline, nwd = told["rows"]
    assert [row["ours"]["parameters"] for row in told["rows"]] == [6_010_302, 6_010_302]
    assert baseline["parameters_equal"]
    assert baseline["published"]["map50"] == 92.1
    for row in told["rows"]:
        assert set(row["ours"]) == set(TABLES["s2-table-4.6"].figures)
        assert row["ours"]["gflops"] == pytest.approx(row["published"]["gflops"], rel=0.02)
        assert row["ours"]["fps_b16"] > 0
        assert all(0 <= row["ours"][name] <= 100 for name in ("precision", "recall", "map50", "map50_95"))
        assert row["seeds"][0]["stopped"] == "epochs"
    assert nwd["against_first"]["map50"]["value"] == pytest.approx(nwd["ours"]["map50"] - baseline["ours"]["map50"])
    assert nwd["against_first"]["map50"]["interval"] is None, "one seed tells no spread"
    assert any("levels do not compare" in note for note in told["notes"])
    assert "train.epochs=1" in told["settings"]
    for name in ("table.txt", "table.json", "runcard.json", "log.txt"):
        assert (out / name).is_file()
    printed = (out / "table.txt").read_text()
    assert "mAP50:95" in printed
    assert "6,010,302" in printed
    assert max(map(len, printed.splitlines())) <= 120

    other = [word if word != "train.batch=4" else "train.batch=2" for word in words]
    assert main(["reproduce", *other]) == 2
    assert "holds a reproduction with settings" in capsys.readouterr().err


def test_costs_need_no_data(tmp_path: Path, capsys: Capture) -> None:
    told = asked(["s2-table-4.2", "--out", str(tmp_path / "costs"), "--threads", "1", *FAST], capsys)
    assert [row["ours"]["parameters"] for row in told["rows"]] == [1_879_750, 7_398_422]
    for row in told["rows"]:
        assert row["parameters_equal"]
        assert row["ours"]["gflops"] == pytest.approx(row["published"]["gflops"], rel=0.02)
        assert row["ours"]["fps_b1"] > row["ours"]["fps_b16"] > 0, "batches a second"


def test_another_count_of_parameters_is_an_outcome(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = TABLES["s2-table-4.3"].rows[0].published
    monkeypatch.setitem(published, "parameters", 1_760_519)  # type: ignore[arg-type]
    monkeypatch.setattr("waferlens.lab.reproduce.reach", lambda *given: reproduce_rows.Reached("yolov5n", 1))
    monkeypatch.setattr("waferlens.lab.reproduce._sets", lambda *given: reproduce_rows.Sets(tmp_path))
    monkeypatch.setattr("waferlens.lab.reproduce._judged_groups", lambda sets: 1)
    told = asked(["s2-table-4.3", "--out", str(tmp_path / "out"), "--fps-seconds", "0"], capsys, status=1)
    assert told["rows"][0]["parameters_equal"] is False
    assert any("DIFFER" in note for note in told["notes"])


def test_devices_are_simulated_on_the_spot_and_masks_judged(tmp_path: Path, capsys: Capture) -> None:
    world = package_world("sim")
    frame = {"width_px": 196, "height_px": 324, "scale": (SCALE, SCALE), "place_px": (7.5, -9.0),
             "scatter_px": (3.0, 3.5)}  # fmt: skip
    tiny = world.model_copy(update={"frame": world.frame.model_copy(update=frame)})
    domain = tmp_path / "tiny.yaml"
    domain.write_text(yaml.safe_dump(tiny.model_dump(mode="json")))
    words = ["s2-table-4.1", *SMALL, "--domain", str(domain), "--devices", "24", "--test-devices", "3", "--seed", "3"]
    told = asked([*words, "--rows", "yolov5n-seg,opencv", "--out", str(tmp_path / "out")], capsys)
    learned, plain = told["rows"]
    assert told["data"]["judged"]["groups"] == 3
    assert (told["data"]["train"]["seed"], told["data"]["judged"]["seed"]) == (3, 4)
    assert set(learned["ours"]) == {"map50", "map50_95", "map50_mask", "map50_95_mask"}
    assert all(0 <= value <= 100 for value in learned["ours"].values())
    assert plain["published"] == {}
    assert plain["seeds"][0]["stopped"] == "", "there is nothing to train"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s2-table-4.5"], "did you mean"),
        (["s2-table-4.6", "--rows", "baseline,3"], "has no row '3'"),
        (["s2-table-4.6", "--input", "640"], "such as 640x640"),
        (["s2-table-4.6", "--fps-input", "0x640"], "such as 640x640"),
        (["s2-table-4.6", "--test", "somewhere"], "--test goes with --data"),
    ],
)
def test_what_is_refused(words: list[str], said: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["reproduce", "s2-table-4.2", "--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_published_tables_are_whole() -> None:
    for table in TABLES.values():
        assert set(table.figures) <= set(SHARES | COSTS)
        for row in table.rows:
            assert load_recipe(row.recipe).station == "package"
            assert set(row.published) in (set(), set(table.figures))
            assert all(0 < value <= 100 for name, value in row.published.items() if name in SHARES)


class Known:
    """A method that knows the truth, moved by some pixels."""

    name = "known"

    def __init__(self, root: Path, moved_px: float, found: Callable[[int], bool] = lambda number: True) -> None:
        self.quads = [read_device(root, number).ic_quad for number in range(24)]
        self.order = iter(range(24))
        self.moved_px, self.found = moved_px, found

    def find(self, image: np.ndarray, *, light: str | None = None, size_px: tuple[int, int] = (581, 1090)) -> Roi:
        number = next(self.order)
        if not self.found(number):
            return no_roi(self.name, "not looked for")
        quad = self.quads[number] + self.moved_px
        return Roi(self.name, quad, homography_of(quad, size_px), size_px, 1.0)


def test_average_precision_of_a_method_that_knows(packages: Path) -> None:
    def of(finder: Known) -> dict[str, float | None]:
        return {name: one.value for name, one in finder_figures(finder, packages, lambda group: True).items()}

    perfect = of(Known(packages, 0.0))
    assert perfect["map50"] == pytest.approx(100)
    assert perfect["map50_mask"] == pytest.approx(100)
    assert perfect["map50_95_mask"] > 85  # type: ignore[operator]  # (a mask has the border's roughness)
    half = of(Known(packages, 0.0, lambda number: number % 2 == 0))
    assert half["map50_mask"] == pytest.approx(100 * 51 / 101), "recalls of 0, 0.01 … 0.5 are reached"
    away = of(Known(packages, 200.0))
    assert set(away.values()) == {0.0}


def test_precision_and_recall_where_f1_is_best() -> None:
    code = np.array([RIGHT, WRONG, RIGHT, RIGHT, IGNORED, WRONG], np.int8)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.95, 0.5])
    kinds = np.zeros(6, np.int64)
    precision, recall = best_f1(code, scores, kinds, [4])  # at 0.6: 3 of 4 right, 3 of 4 found
    assert (precision, recall) == (pytest.approx(75), pytest.approx(75))
    # a second class that is found best at another score: one score for both, F1 of (0.9 -> 1, 0.4), (0.6 -> 2/3, …)
    both = best_f1(np.append(code, RIGHT), np.append(scores, 0.95), np.append(kinds, 1), [4, 1])
    assert both == (pytest.approx((75 + 100) / 2), pytest.approx((75 + 100) / 2))
    assert best_f1(code[:0], scores[:0], kinds[:0], [4]) == (0.0, 0.0)
    assert best_f1(code, scores, kinds, [0]) == (None, None)


def test_pixels_inside_an_outline() -> None:
    square = np.array([(0.5, 1.5), (3.5, 1.5), (3.5, 4.5), (0.5, 4.5)])
    mask = inside(square, (6, 6, 3))
    assert mask.sum() == 9
    assert mask[2:5, 1:4].all()


def test_interval_over_seeds() -> None:
    one = _mean([90.0, 92.0, 94.0])
    assert one.value == pytest.approx(92)
    assert one.interval == (pytest.approx(92 - 4.968, abs=1e-3), pytest.approx(92 + 4.968, abs=1e-3))  # t = 4.3027
    assert _mean([90.0]).interval is None


def test_a_row_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "baseline-seed1.json").write_text(json.dumps({"recipe_sha256": "another"}))
    budget = reproduce_rows.Budget(1.0, 1, (64, 64))
    table = TABLES["s2-table-4.6"]
    with pytest.raises(UsageError, match="other settings"):
        reproduce_rows.reach(table, table.rows[0], 1, budget, reproduce_rows.Sets(tmp_path), tmp_path, 1)
