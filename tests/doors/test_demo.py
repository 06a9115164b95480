"""The demonstration, smaller than it is shown: with the shipped bundle, from simulation to the page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from html_page import looked_at
from waferlens.bundle.files import open_bundle
from waferlens.cli.main import main
from waferlens.errors import UsageError
from waferlens.formats.heightmap import read_height_map
from waferlens.lab.demo import SURFACE_SQ_NM, SURFACE_TILT_UM_MM, rough_surface, run_demo
from waferlens.measure.surface import measure_surface


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    told: list[str] = []
    small = {"structures": 6, "sites": 2, "holes_per_site": 4, "good_fields": 24, "lot_fields": (6, 6)}
    small |= {"swath_fields": 3, "devices": 6}
    return run_demo(out, **small, tell=told.append), told


def test_it_tells_the_whole_story(done):
    result, told = done
    assert len(told) == 8
    assert result.images == 6 * 8 + 2 * 4 + 3
    assert result.quarantined == 3
    assert sum(result.verdicts.values()) == result.images - result.quarantined
    assert all(count > 0 for count in result.verdicts.values()), "some OK, some NG, some to review"
    assert result.rmse_grey < 4
    assert abs(result.depth_bias_nm) < 2
    assert result.surface_sq_nm == pytest.approx(SURFACE_SQ_NM, rel=0.02)
    assert len(result.lines()) == 8


def test_defects_are_found_by_comparing_with_good_parts(done):
    result, _ = done
    part = result.golden
    assert (part.good, part.defective, part.stated_rate) == (6, 6, 0.05)
    assert part.alarmed <= 2
    assert part.found >= 2
    assert "good fields alarm" in part.line()
    bundle = open_bundle(Path(result.out) / "golden")
    assert bundle.threshold["guarantee"]["images"] >= 19, "a rate of 5 % takes so many"
    rows = (Path(result.out) / "compared" / "findings.csv").read_text("utf-8").splitlines()
    assert sum("/defective/" in row for row in rows) >= part.found
    fitted = {path.name for path in (Path(result.out) / "fields" / "fit" / "good").iterdir()}
    judged = {path.name for path in (Path(result.out) / "fields" / "lot" / "good").iterdir()}
    assert len(fitted) == 24
    assert not fitted & judged, "no picture that was fitted to is judged"


def test_a_wafer_is_scanned_and_its_heights_and_dies_are_told(done):
    result, _ = done
    part = result.wafer
    assert part.fields == 3
    assert 0 < part.mae_um < 100
    assert 0.6 < part.covered <= 1
    assert 0 < part.right <= part.sites
    assert part.missing <= part.sites
    assert part.focus_positions > 0, "there is a die to look at"
    assert f"{part.right} of {part.sites} sites told right" in part.line()
    (folder,) = (Path(result.out) / "scanned" / "maps").iterdir()
    assert (folder / "height.tif").exists()
    assert "heights" in looked_at(Path(result.report)).text


def test_a_tray_of_packages_is_judged_by_device(done):
    result, _ = done
    part = result.packages
    assert (part.devices, part.images) == (6, 18)
    assert sum(part.verdicts.values()) == 6
    assert 0 < part.defective <= 6
    assert part.passed + part.alarmed <= 2
    assert part.angle_rms_deg < 0.2
    assert f"{part.passed} of {part.defective} defective ones passed" in part.line()
    assert (Path(result.out) / "judged" / "devices.csv").exists()
    assert "package" in looked_at(Path(result.report)).text


def test_the_other_microscope_is_set_aside(done):
    result, _ = done
    rows = (Path(result.out) / "inspected" / "results.csv").read_text("utf-8").splitlines()
    real = [row for row in rows if "/real/" in row]
    assert len(real) == 8
    assert all(",review," in row and "unlike the images the bundle was calibrated on" in row for row in real)


def test_its_page_has_every_part(done):
    result, _ = done
    page = looked_at(Path(result.report))
    for part in ("inspected", "compared", "scanned", "wafer-fast", "Measurands", "Worst cases",
                 "Repeatability", "Sites", "Against the truth",
                 "Surfaces", "Quarantine", "Run card", "hole-fast", "rough-tilted.x3p", "truncated.png",
                 "At most 5 % of good images alarm", "Where they lie"):  # fmt: skip
        assert part in page.text
    assert Path(result.report).stat().st_size < 5e6


def test_its_run_card_says_how_to_make_it_again(done):
    result, _ = done
    card = json.loads((Path(result.out) / "runcard.json").read_text("utf-8"))
    assert card["kind"] == "demo"
    assert card["seeds"] == {"demo": 7}
    assert card["results"]["verdicts"] == result.verdicts
    assert "simulating" in (Path(result.out) / "log.txt").read_text("utf-8")


def test_the_surface_is_what_it_was_made_with():
    told = {row.name: row.value for row in measure_surface(rough_surface(3), outliers=True)}
    assert 1e3 * told["Sq"] == pytest.approx(SURFACE_SQ_NM, rel=0.02)
    assert told["tilt_x"] == pytest.approx(SURFACE_TILT_UM_MM[0], abs=0.02)
    assert told["tilt_y"] == pytest.approx(SURFACE_TILT_UM_MM[1], abs=0.02)
    assert 0.95 < told["valid_fraction"] < 0.99
    assert np.array_equal(rough_surface(3).heights, rough_surface(3).heights, equal_nan=True)


def test_the_surface_that_was_written_is_the_one_that_was_made(done):
    result, _ = done
    read = read_height_map(Path(result.out) / "surface" / "rough-tilted.x3p")
    made = rough_surface(7)
    assert np.array_equal(read.valid, made.valid)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lot").mkdir()
    (precious / "lot" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than a demonstration"):
        run_demo(precious)
    (precious / "runcard.json").write_text('{"kind": "inspect"}')
    with pytest.raises(UsageError, match="something else than a demonstration"):
        run_demo(precious)
    assert (precious / "lot" / "mine.txt").read_text() == "mine"


def test_a_former_demonstration_is_replaced_and_torch_is_not_needed(done, tmp_path):
    result, _ = done
    shutil.copytree(result.out, tmp_path / "d")
    code = (
        "import sys, waferlens.lab.demo as demo\n"
        f"demo.run_demo({str(tmp_path)!r} + '/d', structures=4, sites=1, holes_per_site=2, good_fields=22, "
        "lot_fields=(2, 2), swath_fields=1)\n"
        "sys.exit('torch' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "d" / "fields" / "fit" / "good").iterdir())) == 22


def test_a_bundle_that_is_not_there_is_refused_before_anything_is_made(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "d"), "--bundle", "hole-slow"]) == 2
    assert "hole-slow" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
