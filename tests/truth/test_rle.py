"""COCO's run lengths: equal to the reference implementation character by character, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from waferlens.formats.rle import counts_of, mask_of, packed, unpacked

masks = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def test_a_hand_made_mask() -> None:
    mask = np.array([[0, 1, 0], [1, 1, 0]], bool)  # down the columns: 0 1 1 1 0 0
    assert counts_of(mask).tolist() == [1, 3, 2]
    assert counts_of(~mask).tolist() == [0, 1, 3, 2]
    assert packed([1, 3, 2]) == "132"
    # 5 bits hold -16..15: 20 needs a second group, 10100 + 32 and then 0, that is chr(48 + 52) and "0"
    assert packed([20]) == "d0"
    # from the fourth count on the difference to the last but one: 4 - 3 = 1; 2 - 5 = -3 is 11101
    assert packed([1, 3, 5, 4, 2]) == "1351M"
    assert unpacked("1351M").tolist() == [1, 3, 5, 4, 2]


@given(masks)
@settings(max_examples=100, deadline=None)
def test_masks_come_back(mask) -> None:
    counts = counts_of(mask)
    assert counts.sum() == mask.size
    assert np.array_equal(mask_of(counts, *mask.shape), mask)
    assert np.array_equal(unpacked(packed(counts)), counts)


@given(masks)
@settings(max_examples=100, deadline=None)
def test_strings_are_those_of_the_reference(mask) -> None:
    reference = pytest.importorskip("faster_coco_eval.core.mask")
    told = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert tuple(told["size"]) == mask.shape
    assert packed(counts_of(mask)) == told["counts"].decode("ascii")
    ours = {"size": list(mask.shape), "counts": packed(counts_of(mask)).encode("ascii")}
    assert np.array_equal(reference.decode(ours).astype(bool), mask)


def test_a_large_mask_is_that_of_the_reference() -> None:
    reference = pytest.importorskip("faster_coco_eval.core.mask")
    rng = np.random.default_rng(5)
    mask = np.zeros((785, 1295), bool)
    for x, y, w, h in rng.integers(0, 700, (30, 4)):
        mask[y : y + h, x : x + w] ^= True
    assert packed(counts_of(mask)) == reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@given(st.lists(st.integers(0, 2**26), max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_counts_come_back(counts) -> None:
    assert unpacked(packed(counts)).tolist() == counts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2", "the character ' ' at place 1"),
        ("12é", "the character 'é'"),
        ("1p", "the character 'p' at place 1"),
        ("1d", "end inside a number"),
        ("o" * 13 + "0", "count 0 is too long"),
        ("O", "below 0"),
    ],
)
def test_a_string_that_is_none_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        unpacked(text)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([1, 2], "sum to 3 px, the mask has 2x2 = 4"),
        ([], "sum to 0 px"),
        ([-1, 5], "below 0"),
        ([2**60, 2**60], "larger than any mask"),
        ([1.5, 2.5], "whole numbers"),
        ([[1, 3]], "whole numbers"),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mask_of(counts, 2, 2)
    with pytest.raises(ValueError, match="a mask of"):
        mask_of([4], 2, 0)
