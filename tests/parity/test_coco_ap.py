"""Average precision on paper, and equal to the reference implementation: pycocotools, or faster-coco-eval beside it."""

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waferlens.errors import UsageError
from waferlens.evaluate.average_precision import SIZES_PX2, Found, Truth, joined_found, joined_truth, match
from waferlens.formats.rle import counts_of, packed
from waferlens.ops.detection_matching import IGNORED, RIGHT, WRONG

CLASSES = 3
SIDE = 40
"""Of the masks [px]"""


def references() -> list:
    """(COCO, COCOeval) of each reference that is installed."""
    known = []
    with contextlib.suppress(ImportError):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        known.append(pytest.param((COCO, COCOeval), id="pycocotools"))
    with contextlib.suppress(ImportError):
        from faster_coco_eval import COCO, COCOeval_faster

        known.append(pytest.param((COCO, COCOeval_faster), id="faster-coco-eval"))
    return known or [pytest.param(None, marks=pytest.mark.skip(reason="neither reference is installed"))]


def evaluated(reference, found, truth, images, *, kind="bbox", most=(1, 10, 100), apart=True, areas=None):
    """Precision, recall and scores of the reference, -1 where there is no truth; ours are NaN there."""
    coco, evaluation = reference

    def entry(one, place, number):
        x0, y0, x1, y1 = (float(edge) for edge in one.boxes[place])
        told = {
            "id": number,
            "image_id": int(one.image[place]) + 1,
            "category_id": int(one.kinds[place]) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        if one.runs is not None:
            counts = packed(one.runs[place])
            told["segmentation"] = {"size": [SIDE, SIDE], "counts": counts}
        return told

    labelled = []
    for place in range(len(truth.image)):
        told = entry(truth, place, place + 1)
        told["area"] = float(areas[place])
        told["iscrowd"] = int(truth.crowd[place])
        if truth.ignore[place] and not truth.crowd[place]:
            told["area"] = (
                1e12  # its own word for what is ignored is overwritten; of no size that is asked for is the same
            )
        labelled.append(told)
    data = {
        "info": {},
        "images": [{"id": number + 1, "width": SIDE, "height": SIDE} for number in range(images)],
        "categories": [{"id": number + 1, "name": str(number)} for number in range(CLASSES)],
        "annotations": labelled,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco()
        true.dataset = data
        true.createIndex()
        got = [
            entry(found, place, place + 1) | {"score": float(found.scores[place])} for place in range(len(found.image))
        ]
        if kind == "segm":
            for one in got:
                del one["bbox"]
        told = true.loadRes(got)
        run = evaluation(true, told, kind)
        run.params.maxDets = list(most)
        run.params.useCats = int(apart)
        run.evaluate()
        run.accumulate()
    return run.eval["precision"], run.eval["recall"], run.eval["scores"]


def same(ours, theirs):
    precision, recall, scores = theirs
    for mine, its in ((ours.precision, precision), (ours.recall, recall), (ours.scores, scores)):
        its = np.asarray(its, np.float64).reshape(mine.shape)
        known = ~np.isnan(mine)
        np.testing.assert_array_equal(known, its > -1)
        np.testing.assert_allclose(mine[known], its[known], rtol=0, atol=1e-9)


def mean(values: np.ndarray) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else math.nan


# places on a coarse lattice and few scores: boxes that coincide, overlaps of exactly a half, ties everywhere
edge = st.integers(0, 12).map(lambda n: 10.0 * n)
side = st.sampled_from([0.0, 10.0, 20.0, 30.0, 40.0, 100.0, 7.5])
box = st.tuples(edge, edge, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
free = st.tuples(*[st.floats(0, 100, width=32)] * 2, *[st.floats(0, 120, width=32)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
score = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 1.0]) | st.floats(0, 1)


@st.composite
def cases(draw):
    images = draw(st.integers(1, 6))
    at = st.integers(0, images - 1)
    kind = st.integers(0, CLASSES - 1)
    shape = box | free
    truths = draw(st.lists(st.tuples(at, shape, kind, st.integers(0, 5), st.integers(0, 3)), max_size=25))
    near = shape
    if truths:  # half of the detections lie near a truth
        moved = st.tuples(st.sampled_from([one[1] for one in truths]), st.sampled_from([0.0, 0.0, 1.0, 5.0, 10.0])).map(
            lambda it: tuple(edge + it[1] for edge in it[0])
        )
        near = shape | moved
    detections = draw(st.lists(st.tuples(at, near, kind, score), min_size=1, max_size=60))
    truth = Truth(
        np.array([one[0] for one in truths], np.int64),
        np.array([one[1] for one in truths], np.float64).reshape(-1, 4),
        np.array([one[2] for one in truths], np.int64),
        ignore=np.array([one[3] == 0 for one in truths], bool),
        crowd=np.array([one[3] == 1 for one in truths], bool),
    )
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    # of segmented objects the area is less than the box's, and may lie at the very end of a size
    areas = np.array(
        [(area, 0.7 * area, 1024.0, 9216.0)[one[4]] for one, area in zip(truths, sides.prod(axis=1), strict=True)]
    )
    found = Found(
        np.array([one[0] for one in detections], np.int64),
        np.array([one[1] for one in detections], np.float64),
        np.array([one[3] for one in detections], np.float64),
        np.array([one[2] for one in detections], np.int64),
    )
    return found, truth, areas, images, draw(st.sampled_from([(1, 10, 100), (2,), (1, 3)])), draw(st.integers(0, 4)) > 0


@pytest.mark.parametrize("reference", references())
@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_boxes_equal_the_reference(reference, case):
    found, truth, areas, images, most, apart = case
    truth = Truth(truth.image, truth.boxes, truth.kinds, truth.ignore, truth.crowd, areas)
    ours = match(found, truth, CLASSES, most=most, classes_apart=apart).average_precision()
    theirs = evaluated(reference, found, truth, images, most=most, apart=apart, areas=areas)
    same(ours, theirs)
    for place, size in enumerate(SIZES_PX2):
        expected = mean(theirs[0][:, :, :, place, -1])
        assert ours.ap(size=size) == pytest.approx(expected, abs=1e-9, nan_ok=True)
        assert ours.ap(0.5, size=size) == pytest.approx(mean(theirs[0][0, :, :, place, -1]), abs=1e-9, nan_ok=True)
        assert ours.ar(size=size) == pytest.approx(mean(theirs[1][:, :, place, -1]), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("reference", references())
@pytest.mark.parametrize("seed", range(8))
def test_masks_equal_the_reference(reference, seed):
    rng = np.random.default_rng(seed)
    images, some, more = 4, 20, 60

    def mask():
        x, y = rng.integers(0, 8, 2) * 4
        out = np.zeros((SIDE, SIDE), bool)
        out[y : y + rng.integers(3, 20), x : x + rng.integers(3, 20)] = True
        return out

    at, kinds, flags = rng.integers(0, images, some), rng.integers(0, CLASSES, some), rng.integers(0, 6, some)
    true = [mask() for _ in range(some)]
    near = rng.integers(0, some, more)  # each detection is a truth with holes, some of them elsewhere
    holes = [true[one] & (rng.random((SIDE, SIDE)) < rng.choice([0.5, 0.8, 1.0])) for one in near]
    guessed = [made if rng.random() < 0.8 else mask() for made in holes]
    boxes = np.tile([0.0, 0.0, SIDE, SIDE], (more, 1))
    truth = Truth(at, boxes[:some], kinds, flags == 0, flags == 1, runs=[counts_of(one) for one in true])
    scores = rng.integers(0, 8, more) / 8
    found = Found(at[near], boxes, scores, kinds[near], [counts_of(one) for one in guessed])
    areas = np.array([one.sum() for one in true], float)
    ours = match(found, truth, CLASSES).average_precision()
    assert 0 < ours.ap() < ours.ap(0.5) < 1
    same(ours, evaluated(reference, found, truth, images, kind="segm", areas=areas))


A, B, ELSEWHERE = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (60.0, 60.0, 70.0, 70.0)


def one_image(boxes, scores, true_boxes, **flags):
    found = Found(np.zeros(len(boxes), int), np.array(boxes, float), np.array(scores, float), np.zeros(len(boxes), int))
    truth = Truth(
        np.zeros(len(true_boxes), int),
        np.array(true_boxes, float).reshape(-1, 4),
        np.zeros(len(true_boxes), int),
        **{name: np.array(told) for name, told in flags.items()},
    )
    return match(found, truth, 1)


def test_three_detections_on_paper():
    told = one_image([A, ELSEWHERE, B], [0.9, 0.8, 0.7], [A, B]).average_precision()
    # right, wrong, right: precision 1 up to recall 0.5 (51 of the 101 recalls), 2/3 beyond (50)
    assert told.ap(0.5) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101, abs=1e-12)
    assert told.ap() == pytest.approx(told.ap(0.5), abs=1e-12)  # the boxes fit exactly
    # the one box that a class and an image may have is right: recall 1/2
    assert told.ap(0.5, most=1) == pytest.approx(51 / 101)
    assert told.ar(most=1) == 0.5
    assert told.ar() == 1.0
    # the other way round the wrong one comes first: 1/2, and 2/3 which counts for all recalls below too
    told = one_image([A, ELSEWHERE, B], [0.8, 0.9, 0.7], [A, B]).average_precision()
    assert told.ap(0.5) == pytest.approx(2 / 3, abs=1e-12)


def test_overlap_by_overlap_on_paper():
    # 10 x 10 against 10 x 8 within it: 0.8, right at 0.5 to 0.8, seven of ten overlaps
    told = one_image([(0, 0, 10, 8)], [1.0], [A])
    assert told.average_precision().ap() == pytest.approx(0.7, abs=1e-12)
    assert told.named().tolist() == [[RIGHT] * 7 + [WRONG] * 3]
    # a half exactly is enough
    assert one_image([(0, 0, 10, 5)], [1.0], [A]).average_precision().ap(0.5) == pytest.approx(1.0)


def test_what_is_ignored_on_paper():
    twice = [A, A, A]
    once = one_image(twice, [0.9, 0.8, 0.7], [A, A], ignore=[False, True])
    assert once.named()[:, 0].tolist() == [RIGHT, IGNORED, WRONG]  # one may take what is ignored
    crowd = one_image(twice, [0.9, 0.8, 0.7], [A, A], crowd=[False, True])
    assert crowd.named()[:, 0].tolist() == [RIGHT, IGNORED, IGNORED]  # any number may take a crowd
    # a small part of a crowd lies wholly in it
    part = [(0, 0, 2, 2)]
    assert one_image(part, [1.0], [A], crowd=[True]).named()[0, 0] == IGNORED
    assert one_image(part, [1.0], [A], ignore=[True]).named()[0, 0] == WRONG
    assert math.isnan(one_image(part, [1.0], [A], ignore=[True]).average_precision().ap())


def test_sizes_on_paper():
    large, small = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 210.0, 10.0)
    told = one_image([large, small, (300, 0, 310, 10)], [0.9, 0.8, 0.95], [large, small]).average_precision()
    # the wrong box is small: it counts among the small and not among the large
    assert (told.ap(0.5, size="large"), told.ap(0.5, size="small")) == pytest.approx((1.0, 0.5))
    assert math.isnan(told.ap(0.5, size="medium"))
    assert told.truths.tolist() == [[2, 1, 0, 1]]


def test_classes_without_a_truth_are_left_out():
    found = joined_found([np.array([A, B])], [np.array([0.9, 0.8])], [np.array([0, 1])])
    truth = joined_truth([np.array([A])], [np.array([0])])
    told = match(found, truth, 2).average_precision()
    assert (told.ap(0.5), told.ap(0.5, kind=0)) == pytest.approx((1.0, 1.0), abs=1e-12)
    assert math.isnan(told.ap(0.5, kind=1))
    nothing = match(joined_found([[]], [[]], [[]]), truth, 2).average_precision()
    assert (nothing.ap(), nothing.ar()) == (0.0, 0.0)
    assert math.isnan(match(joined_found([], [], []), joined_truth([], []), 2).average_precision().ap())


@settings(max_examples=60, deadline=None)
@given(case=cases(), seed=st.integers(0, 99))
def test_what_may_not_matter_does_not(case, seed):
    found, truth, _, images, _, _ = case
    rng = np.random.default_rng(seed)
    # scores without ties: of equal ones the order decides, which a permutation changes
    scores = rng.permutation(len(found.scores)).astype(float)
    told = match(Found(found.image, found.boxes, scores, found.kinds), truth, CLASSES).average_precision()
    for values in (told.precision, told.recall):
        known = values[~np.isnan(values)]
        assert ((known >= 0) & (known <= 1 + 1e-12)).all()
    assert (np.diff(told.precision, axis=1)[~np.isnan(told.precision[:, 1:])] <= 0).all()  # falls with recall
    number = rng.permutation(images)
    renamed = match(
        Found(number[found.image], found.boxes, np.exp(scores / 7) - 3, found.kinds),
        Truth(number[truth.image], truth.boxes, truth.kinds, truth.ignore, truth.crowd),
        CLASSES,
    ).average_precision()
    np.testing.assert_array_equal(renamed.precision, told.precision)
    np.testing.assert_array_equal(renamed.recall, told.recall)
    # what is below all others cannot raise a precision
    last = match(
        Found(
            np.append(found.image, 0),
            np.vstack([found.boxes, [[900, 900, 910, 910]]]),
            np.append(scores, -1.0),
            np.append(found.kinds, 0),
        ),
        truth,
        CLASSES,
    ).average_precision()
    np.testing.assert_array_equal(last.precision[:, :, 1:], told.precision[:, :, 1:])
    np.testing.assert_array_equal(last.precision[:, 1:], told.precision[:, 1:])


@settings(max_examples=60, deadline=None)
@given(case=cases(), seed=st.integers(0, 99))
def test_a_draw_is_the_images_laid_side_by_side(case, seed):
    found, truth, _, images, most, _ = case
    rng = np.random.default_rng(seed)
    devices = rng.integers(0, 3, images)
    weight = rng.integers(0, 3, (2, 3))
    # scores without ties: of equal ones the order decides, which copies laid behind each other change
    found = Found(found.image, found.boxes, rng.permutation(len(found.scores)).astype(float), found.kinds)
    matches = match(found, truth, CLASSES, most=most)
    drawn = matches.drawn(devices, weight)
    for row, told in zip(weight, drawn, strict=True):
        copies = [image for image in range(images) for _ in range(row[devices[image]])]

        def laid(one, copies=copies):
            places = [np.flatnonzero(one.image == image) for image in copies]
            number = np.repeat(np.arange(len(copies)), [len(place) for place in places])
            return number, np.concatenate([np.empty(0, int), *places])

        (at, places), (true_at, true_places) = laid(found), laid(truth)
        expected = match(
            Found(at, found.boxes[places], found.scores[places], found.kinds[places]),
            Truth(
                true_at,
                truth.boxes[true_places],
                truth.kinds[true_places],
                truth.ignore[true_places],
                truth.crowd[true_places],
            ),
            CLASSES,
            most=most,
        ).average_precision()
        np.testing.assert_allclose(told, expected.precision[:, :, :, 0, -1].mean(axis=1), rtol=0, atol=1e-12)


def test_misuse_is_told():
    found, truth = joined_found([np.array([A])], [np.array([0.9])], [np.array([0])]), joined_truth([[A]], [[0]])
    with pytest.raises(UsageError, match="from 0 to 0"):
        match(Found(found.image, found.boxes, found.scores, found.kinds + 1), truth, 1)
    with pytest.raises(UsageError, match="NaN"):
        match(Found(found.image, found.boxes, found.scores * np.nan, found.kinds), truth, 1)
    with pytest.raises(UsageError, match="wrong way round"):
        match(Found(found.image, found.boxes[:, ::-1], found.scores, found.kinds), truth, 1)
    with pytest.raises(UsageError, match="both, or neither"):
        match(Found(found.image, found.boxes, found.scores, found.kinds, [np.array([0, 1600])]), truth, 1)
    with pytest.raises(UsageError, match="a mask of 9 pixels beside one of 4"):
        match(
            Found(found.image, found.boxes, found.scores, found.kinds, [np.array([0, 4])]),
            Truth(truth.image, truth.boxes, truth.kinds, runs=[np.array([0, 9])]),
            1,
        )
    told = match(found, truth, 1).average_precision()
    with pytest.raises(UsageError, match="there are all, small, medium, large"):
        told.ap(size="tiny")
    with pytest.raises(UsageError, match=r"overlap 0\.33: matched at 0\.5, 0\.55"):
        told.ap(0.33)
    with pytest.raises(UsageError, match="detections an image: matched for 1, 10, 100"):
        told.ap(most=5)
    with pytest.raises(UsageError, match="boxes of 1, kinds of 2"):
        joined_truth([[A]], [[0], [0]])
