"""At edges width tells a moved edge from a defect, and a fitted displacement tells what moved from what is wrong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from waferlens.bundle.golden import GoldenSession
from waferlens.bundle.reference import reference_of
from waferlens.errors import RecipeError
from waferlens.ops.displacement import laid_by
from waferlens.prepare.golden import fit_images
from waferlens.recipe import load_recipe
from waferlens.records import Finding, Image

SHAPE = (240, 320)


def wires() -> np.ndarray:
    grey = np.full(SHAPE, 255, np.uint8)
    for y in range(30, SHAPE[0], 60):
        grey[y : y + 20, 20:-20] = 0
    for x in (20, 150, 290):
        grey[30:-30, x : x + 10] = 0
    return grey


def taken(pixels: np.ndarray) -> Image:
    return Image(pixels, 255.0)


def found(image: np.ndarray, reference: np.ndarray, *overrides: str) -> list[Finding]:
    recipe = load_recipe("golden-binary", ["findings.margin_px=0", *overrides])
    session = GoldenSession(recipe, recipe.threshold.factor)
    result = session.find(taken(image), [reference_of(recipe, taken(reference))])
    assert not result.compared.reason
    return result.findings


def test_an_edge_two_pixels_off_is_no_defect_and_a_bite_in_it_is_one():
    image = wires()
    image[48:50, 30:150] = 255  # a ribbon along the lower edge of the first wire
    assert found(image, wires()) == []
    image[45:50, 80:86] = 255
    (bite,) = found(image, wires())
    assert bite.light_or_dark == "light"
    assert bite.box == pytest.approx((79.5, 44.5, 85.5, 49.5), abs=1.01)


def test_without_compact_px_a_bite_at_an_edge_is_tolerated():
    image = wires()
    image[47:50, 80:86] = 255
    assert len(found(image, wires())) == 1
    assert found(image, wires(), "method.compact_px=null") == []


def test_a_scratch_far_from_edges_needs_no_width():
    image = wires()
    cv2.line(image, (200, 60), (230, 80), 0, 1)  # one pixel wide, on white
    (scratch,) = found(image, wires())
    assert scratch.light_or_dark == "dark"
    assert scratch.box == pytest.approx((199.5, 59.5, 230.5, 80.5), abs=1.01)


def test_what_moved_by_itself_is_no_defect_and_what_is_broken_is_one():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    field = np.stack((1.5 * np.sin(y / 40), 3 * np.sin(x / 50)))
    broken = wires()
    broken[90:110, 200:206] = 255
    image = np.where(laid_by(broken.astype(np.float32), np.eye(2, 3), field) > 127, 255, 0).astype(np.uint8)
    alone = found(image, wires(), "registration.local_px=null")
    (gap,) = found(image, wires(), "registration.local_px=32")
    assert len(alone) >= 5
    x0, y0, x1, y1 = gap.box
    assert (x0 + x1) / 2 == pytest.approx(202.5, abs=4)
    assert (y0 + y1) / 2 == pytest.approx(99.5, abs=5)


def test_good_parts_that_moved_each_by_itself_make_a_sharp_template():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    good = []
    for phase in range(5):
        field = np.stack((1.5 * np.sin(y / 40 + phase), 1.5 * np.sin(x / 50 + 2 * phase)))
        good.append(taken(laid_by(wires().astype(np.float32), np.eye(2, 3), field).astype(np.uint8)))
    spread = {}
    for local_px in ("null", "48"):
        recipe = load_recipe("golden-binary", [f"registration.local_px={local_px}"])
        reference = fit_images(recipe, good, [])[0].reference
        spread[local_px] = float(np.mean(reference.spread[10:-10, 10:-10]))
    assert spread["48"] < 0.7 * spread["null"]


def test_compact_px_needs_tolerated_edges():
    with pytest.raises(RecipeError, match="position_px = 0 tolerates nothing at edges"):
        load_recipe("golden-binary", ["method.position_px=0"])
    with pytest.raises(RecipeError, match="local_px"):
        load_recipe("golden-binary", ["registration.local_px=4"])
