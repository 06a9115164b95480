"""An image beside its good part: laid over it, matched, and refused where the two do not belong together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from make_pairs import board
from waferlens.errors import InputError, UsageError
from waferlens.prepare.beside_reference import MIDDLE_GREY, UnlikeError, beside, with_reference
from waferlens.recipe.pairing import forms_of, is_compared, reference_path, shared_part

HERE = Path("board_test.png")


def test_a_good_image_differs_nowhere_from_its_reference() -> None:
    good = board(3)
    picture = beside(good, good, HERE)
    assert np.array_equal(picture[..., 0], good)
    assert np.array_equal(picture[..., 1], good)
    assert np.all(picture[..., 2] == MIDDLE_GREY)


def test_a_shifted_and_dimmed_reference_is_laid_over_the_image() -> None:
    good = board(4)
    moved = cv2.warpAffine(good, np.array([[1, 0, 3.0], [0, 1, -2.0]]), good.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    dimmed = np.rint(0.6 * moved + 20).astype(np.uint8)
    picture = beside(good, dimmed, HERE)
    inner = picture[8:-8, 8:-8].astype(float)
    assert np.abs(inner[..., 1] - inner[..., 0]).max() <= 3
    assert np.abs(inner[..., 2] - MIDDLE_GREY).max() <= 2


@pytest.mark.parametrize("step", [90, -90])
def test_the_third_channel_tells_by_how_much_the_image_is_brighter(step: int) -> None:
    good = board(5)
    image = good.copy()
    dark = np.argwhere(cv2.erode((good < 100 if step > 0 else good > 150).astype(np.uint8), np.ones((9, 9))))
    y, x = dark[len(dark) // 2]
    image[y - 3 : y + 4, x - 3 : x + 4] = np.clip(image[y - 3 : y + 4, x - 3 : x + 4].astype(int) + step, 0, 255)
    change = image.astype(float) - good
    told = beside(image, good, HERE)[..., 2].astype(float) - MIDDLE_GREY
    assert abs(change).max() > 60
    assert np.abs(told - change / 2).max() <= 2


def test_a_plain_reference_is_taken_as_it_lies() -> None:
    image = np.full((64, 64), 200, np.uint8)
    image[20:24, 30:34] = 40
    picture = beside(image, np.full((64, 64), 200, np.uint8), HERE)
    assert np.array_equal(picture[..., 2] != MIDDLE_GREY, image == 40)


def test_another_part_is_refused() -> None:
    with pytest.raises(UnlikeError, match=r"board_test\.png: does not lie on its reference: "):
        beside(board(6), board(7), HERE)
    with pytest.raises(UnlikeError, match="does not lie on its reference"):
        beside(board(6), np.full((40, 40), 9, np.uint8), HERE)


def test_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a_test.png"), board(8))
    cv2.imwrite(str(tmp_path / "a_temp.png"), board(8).astype(np.uint16) * 257)
    with pytest.raises(InputError, match=r"a_temp\.png: has values of uint16"):
        with_reference(tmp_path / "a_test.png", tmp_path / "a_temp.png")


@given(st.text("ab_.", min_size=0, max_size=6))
def test_names_lead_to_their_references_and_back(shared: str) -> None:
    ours, theirs = forms_of("{}_test.png:good_{}.png")
    name = ours.replace("{}", shared)
    assert shared_part(name, ours) == shared
    assert shared_part(theirs.replace("{}", shared), theirs) == shared
    assert is_compared(f"some/where/{name}", "{}_test.png:good_{}.png") or shared_part(name, theirs) is not None


@pytest.mark.parametrize("pattern", ["", "{}", "a:b", "{}:{}:{}", "{}{}:{}", "{}_a.png"])
def test_a_pattern_is_two_names(pattern: str) -> None:
    with pytest.raises(UsageError, match="expected two names"):
        forms_of(pattern)


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its reference .*a_temp\.png is not there; see --pair-by"):
        reference_path(tmp_path / "a_test.png", "{}_test.png:{}_temp.png")
    with pytest.raises(InputError, match=r"its name is not of the form \{\}_test\.png"):
        reference_path(tmp_path / "a.png", "{}_test.png:{}_temp.png")
