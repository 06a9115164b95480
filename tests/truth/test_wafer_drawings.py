"""Drawings of maps against what can be worked out by hand: relief, folded lines, the choice of the scan line, rows."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from waferlens.errors import FormatError, InputError
from waferlens.formats.tiff_rows import open_rows
from waferlens.report import relief, wafer_charts
from waferlens.report.pictures import Scale
from waferlens.report.wafer_frame import frame_of
from waferlens.report.wafer_scan import choose_line, shown_part

SCALE = Scale("height", 0.0, 100.0, "um", "height")
PITCH_UM = 10.0


def seen(made: relief.Relief) -> np.ndarray:
    """The picture of a relief: blue, green, red, how opaque."""
    data = np.frombuffer(base64.b64decode(made.picture.partition(",")[2]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def tops(made: relief.Relief) -> np.ndarray:
    """Of each column of the picture the first row that is drawn."""
    return (seen(made)[..., 3] > 127).argmax(axis=0)


def test_a_relief_has_no_holes_and_keeps_proportions() -> None:
    flat = np.full((60, 90), 20.0)
    made = relief.draw(flat, PITCH_UM, SCALE)
    drawn = seen(made)[..., 3] > 127
    for column in drawn.T:
        places = np.flatnonzero(column)
        assert len(places) == 0 or places[-1] - places[0] == len(places) - 1
    # three corners at the foot: both sides are foreshortened by the same turn and the same look
    turn, look = math.radians(relief.TURN_DEG), math.radians(relief.LOOK_DOWN_DEG)
    (x0, y0), (x1, y1), (x2, y2) = made.left, made.front, made.right
    assert (x1 - x0) / (x2 - x1) == pytest.approx(90 * math.cos(turn) / (60 * math.sin(turn)), rel=1e-6)
    assert (y1 - y0) / (y1 - y2) == pytest.approx(90 * math.sin(turn) / (60 * math.cos(turn)), rel=1e-6)
    assert (y1 - y2) / (x1 - x0) == pytest.approx(
        60 * math.cos(turn) * math.sin(look) / (90 * math.cos(turn)), rel=1e-6
    )


def test_a_step_is_as_high_as_it_is_said_to_be() -> None:
    # along the border at the back, where it is seen against nothing
    heights = np.zeros((80, 80))
    heights[:20] = 80.0
    wall = relief.draw(heights, PITCH_UM, SCALE)
    assert wall.exaggeration > 1
    corner = round(wall.right[0]) - 6  # the far right corner of the map
    rise = (wall.height - tops(wall)[corner]) - (wall.height - wall.right[1])
    assert rise == pytest.approx(80 * wall.rise_px_per_um, abs=6)
    look = math.radians(relief.LOOK_DOWN_DEG)
    across = 80 * (math.cos(math.radians(relief.TURN_DEG)) + math.sin(math.radians(relief.TURN_DEG)))
    expected = wall.exaggeration * math.cos(look) * wall.width / across / PITCH_UM
    assert wall.rise_px_per_um == pytest.approx(expected, rel=1e-3)


def test_what_stands_behind_is_hidden() -> None:
    heights = np.zeros((80, 80))
    heights[60:70] = 90.0  # a wall near the front
    heights[50:58] = 10.0  # behind it
    picture = seen(relief.draw(heights, PITCH_UM, Scale("height", 0.0, 90.0, "um", "grey")))
    middle = picture[:, picture.shape[1] // 2]
    bright = np.flatnonzero((middle[:, 3] > 127) & (middle[:, 0] > 90))
    assert len(bright) > 10
    assert relief.draw(np.full((5, 5), np.nan), PITCH_UM, SCALE) is None


def test_lines_of_a_folded_map_hold_all_of_it() -> None:
    frame = frame_of(70, 3500, PITCH_UM, 3, 1120)
    assert frame.lines == 5
    boxes = frame.pieces((0, 0, 35_000, 700))
    assert len(boxes) == 5
    assert sum(width * height for _, _, width, height in boxes) == pytest.approx(35_000 * 700 * frame.scale**2)
    # a box over the end of a line stands at the end of one and at the beginning of the next
    end = frame.run_um
    (_, _, first, _), (x, y, second, _) = frame.pieces((end - 100, 0, end + 50, 100))
    assert (first, second) == pytest.approx((100 * frame.scale, 50 * frame.scale))
    assert (x, y) == pytest.approx((34.0, frame.top(1)))
    assert frame.pieces((-50, -50, 0, 700)) == []
    cut = frame.cut(np.zeros((24, 1167)))
    assert sum(one.shape[1] for one in cut) == 1167
    assert cut[0].shape[1] * 3 * PITCH_UM == pytest.approx(frame.run_um)
    assert frame_of(700, 700, PITCH_UM, 2, 380).lines == 1


def test_many_boxes_become_a_picture() -> None:
    frame = frame_of(400, 400, PITCH_UM, 1, 380)
    boxes = [
        wafer_charts.Mark((x, y, x + 60, y + 60), "present") for x in range(0, 4000, 100) for y in range(0, 4000, 100)
    ]
    few = wafer_charts.box_chart(frame, wafer_charts.Ground([], "a"), boxes[:100], "boxes")
    many = wafer_charts.box_chart(frame, wafer_charts.Ground([], "b"), boxes, "boxes")
    assert few.count("site present") == 100
    assert "site present" not in many
    assert many.count("<image") == 1


def site(state: str, x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    return {"state": state, "box_um": [x0, y0, x1, y1]}


def test_the_scan_line_crosses_a_gap_beside_a_die() -> None:
    sites = [
        site("present", 0, 0, 900, 400), site("missing", 1000, 0, 1900, 400),
        site("present", 0, 600, 900, 1000), site("present", 1000, 600, 1900, 1000),
    ]  # fmt: skip
    line = choose_line(sites, (100, 200), PITCH_UM)
    assert line.row == 20
    assert line.gaps_um == ((1000, 1900),)
    assert line.middle_um == 950
    # without a die in its columns, a gap hides nothing
    line = choose_line([site("present", 0, 0, 900, 400), site("missing", 1000, 0, 1900, 400)], (100, 200), PITCH_UM)
    assert line.gaps_um == ()
    assert "most dies" in line.why
    assert choose_line(None, (100, 200), PITCH_UM).row == 50


def test_the_large_part_of_a_long_map_lies_about_the_gap() -> None:
    sites = [site("missing", 20_000, 0, 21_000, 400), site("present", 20_000, 500, 21_000, 1000)]
    line = choose_line(sites, (100, 3000), PITCH_UM)
    part = shown_part((100, 3000), PITCH_UM, line)
    assert (part.rows, part.columns) == (100, 200)
    assert part.column <= 2000 < 2100 <= part.column + part.columns
    whole = shown_part((684, 684), PITCH_UM, choose_line([], (684, 684), PITCH_UM))
    assert (whole.row, whole.column, whole.rows, whole.columns, whole.by) == (0, 0, 684, 684, 2)
    assert (
        shown_part((100, 3000), PITCH_UM, choose_line([site("present", 0, 0, 500, 900)], (100, 3000), PITCH_UM)).column
        == 0
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": (64, 128)}, {"rowsperstrip": 7}, {"rowsperstrip": 7, "compression": "zlib"}, {"compression": "zlib",
     "tile": (32, 32)}],
)  # fmt: skip
def test_rows_are_those_of_the_image(tmp_path: Path, options: dict[str, Any]) -> None:
    image = np.random.default_rng(0).random((150, 210)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **options)
    with open_rows(tmp_path / "a.tif") as opened:
        assert opened.shape == (150, 210)
        for first, last in ((0, 150), (3, 4), (149, 150), (60, 70), (10, 140)):
            np.testing.assert_array_equal(opened.rows(first, last), image[first:last])


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(FormatError, match="one channel"), open_rows(tmp_path / "rgb.tif"):
        pass
    with pytest.raises(InputError, match="No such file"), open_rows(tmp_path / "none.tif"):
        pass
    image = np.zeros((64, 64), np.float32)
    tifffile.imwrite(tmp_path / "cut.tif", image, photometric="minisblack", tile=(16, 16))
    data = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 3000])
    with pytest.raises(FormatError, match="truncated"), open_rows(tmp_path / "cut.tif") as opened:
        opened.rows(0, 64)
