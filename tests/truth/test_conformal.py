"""Thresholds from good parts: the promised rate holds over repetitions, and what cannot be promised is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from waferlens.errors import UsageError
from waferlens.ops.conformal import conformal_threshold, needed_images, risk_threshold


def test_ninety_nine_images_support_one_percent_by_their_greatest_score():
    scores = np.random.default_rng(1).normal(size=99)
    threshold, told = conformal_threshold(scores, 0.01)
    assert threshold == scores.max()
    assert (told.rank, told.images, told.tied, told.rate) == (99, 99, 1, 0.01)
    assert told.mean == 0.01
    # the rate above the greatest of 99 is Beta(1, 99): its quantiles are 1 - (1 - p)^(1/99)
    assert told.low == pytest.approx(1 - 0.95 ** (1 / 99))
    assert told.high == pytest.approx(1 - 0.05 ** (1 / 99))


def test_ninety_eight_do_not_and_the_refusal_says_so():
    with pytest.raises(
        UsageError, match=r"98 good images cannot support a false-alarm rate of 1 %, it takes 99.*1.1 %"
    ):
        conformal_threshold(np.arange(98.0), 0.01)
    with pytest.raises(UsageError, match="0 good images"):
        conformal_threshold(np.empty(0), 0.5)


@pytest.mark.parametrize(("rate", "count"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3)])
def test_the_fewest_images(rate, count):
    assert needed_images(rate) == count
    assert conformal_threshold(np.arange(float(count)), rate)[0] == count - 1
    with pytest.raises(UsageError):
        conformal_threshold(np.arange(float(count - 1)), rate)


@given(st.integers(1, 3000), st.integers(1, 999))
def test_the_rank_is_that_of_the_definition(count, thousandths):
    rank = -(-((count + 1) * (1000 - thousandths)) // 1000)  # ceil((n + 1) (1 - rate)) in whole numbers
    if rank > count:
        with pytest.raises(UsageError):
            conformal_threshold(np.arange(count) + 1.0, thousandths / 1000)
    else:
        threshold, told = conformal_threshold(np.arange(count) + 1.0, thousandths / 1000)
        assert threshold == told.rank == rank
        assert told.low < told.mean < told.high
        assert told.mean <= thousandths / 1000 + 1e-12


def test_observed_rates_keep_the_promise_and_spread_as_told():
    # the true rate of a threshold on uniform scores is 1 - threshold: no second sample is needed
    rng = np.random.default_rng(2)
    true = np.array([1 - conformal_threshold(rng.random(500), 0.01)[0] for _ in range(4000)])
    told = conformal_threshold(rng.random(500), 0.01)[1]
    assert (told.rank, told.mean) == (496, 5 / 501)
    assert true.mean() == pytest.approx(told.mean, abs=4 * true.std() / math.sqrt(len(true)))
    assert kstest(true, beta(5, 496).cdf).pvalue > 0.001
    inside = np.mean((true >= told.low) & (true <= told.high))
    assert inside == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / len(true)))


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_ties_alarm_less_and_never_more(digits):
    rng = np.random.default_rng(3)
    rates = []
    for _ in range(400):
        threshold, told = conformal_threshold(rng.exponential(size=199).round(digits), 0.05)
        rates.append(np.mean(rng.exponential(size=500).round(digits) > threshold))
    assert told.tied >= 1
    assert np.mean(rates) < 0.05 + 3 * np.std(rates) / math.sqrt(len(rates))


def test_all_scores_equal_alarm_never():
    threshold, told = conformal_threshold(np.zeros(100), 0.05)
    assert (threshold, told.tied) == (0.0, 100)


def test_images_that_cannot_be_scored():
    scores = np.r_[np.arange(198.0), math.inf]
    assert conformal_threshold(scores, 0.01)[0] == 197.0
    with pytest.raises(UsageError, match="3 of 199 good images cannot be scored"):
        conformal_threshold(np.r_[np.arange(196.0), [math.inf] * 3], 0.01)
    with pytest.raises(UsageError, match="1 of 199 scores are NaN"):
        conformal_threshold(np.r_[np.arange(198.0), math.nan], 0.01)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan, 5.0])
def test_a_rate_is_between_0_and_1(rate):
    with pytest.raises(UsageError, match="between 0 and 1"):
        conformal_threshold(np.arange(1000.0), rate)


def test_the_promise_is_told_in_words():
    told = str(conformal_threshold(np.arange(500.0), 0.01)[1])
    assert told == (
        "at most 1 % of good images alarm, by 500 good images; 90 % interval of the true rate: 0.395 % to 1.82 %"
    )


def test_one_finding_an_image_is_the_conformal_threshold():
    # with bound 1 and unit areas the loss is the alarm of the image, whose score is its greatest finding
    rng = np.random.default_rng(4)
    for count, rate in ((99, 0.01), (250, 0.05), (500, 0.013)):
        scores = [rng.random(3) for _ in range(count)]
        by_risk, told = risk_threshold(scores, 1.0, rate, bound=1)
        assert by_risk == conformal_threshold(np.array([one.max() for one in scores]), rate)[0]
        assert told.observed <= rate


def test_a_rate_per_area_holds_over_repetitions():
    rng = np.random.default_rng(5)
    rate, bound = 0.05, 5
    later, inside = [], []
    for _ in range(600):
        counts = np.minimum(rng.poisson(2.0, 100), 40)
        scores = [rng.exponential(size=count) for count in counts]
        threshold, told = risk_threshold(scores, 2.0, rate, bound=bound)
        # above the threshold, counts are Poisson with the mean 2 exp(-threshold) an image of 2 mm²
        true = 2.0 * math.exp(-threshold) / 2.0
        later.append(np.minimum(rng.poisson(2.0 * true, 200), bound).mean() / 2.0)
        inside.append(told.low <= true <= told.high)
    assert np.mean(later) <= rate + 3 * np.std(later) / math.sqrt(len(later))
    assert np.mean(later) > 0.3 * rate  # and not by never finding anything
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)


def test_clusters_widen_the_interval_to_what_it_says():
    rng = np.random.default_rng(6)
    inside = []
    for _ in range(500):
        # clusters of four findings with one score each: as scratches are that fall apart
        counts = rng.poisson(1.0, 150)
        scores = [np.repeat(rng.exponential(size=count), 4) for count in counts]
        threshold, told = risk_threshold(scores, 1.0, 0.5, bound=40)
        inside.append(told.low <= 4.0 * math.exp(-threshold) <= told.high)
    assert np.mean(inside) > 0.8


def test_areas_may_differ():
    scores = [np.array([5.0, 2.0]), np.array([3.0]), np.empty(0), np.array([4.0])]
    areas = np.array([1.0, 2.0, 4.0, 3.0])
    # (10 + 1) * 0.3 - 2 = 1.3: one finding of these images may stay
    threshold, told = risk_threshold(scores, areas, 0.3, bound=2)
    assert (threshold, told.area_mm2, told.observed) == (4.0, 10.0, 0.1)
    assert risk_threshold(scores, areas, 5.0, bound=2, floor=1.5)[0] == 1.5
    assert risk_threshold(scores, areas, 0.3, bound=2, floor=4.5)[0] == 4.5


def test_an_area_that_cannot_support_a_rate():
    assert risk_threshold([np.empty(0)] * 99, 1.0, 0.01, bound=1)[0] == 0.0
    with pytest.raises(UsageError, match=r"98 good images of 98 mm² cannot support 0\.01 .* takes 100 mm²"):
        risk_threshold([np.empty(0)] * 98, 1.0, 0.01, bound=1)
    for wrong in ({"rate": 0.0, "bound": 1}, {"rate": 1.0, "bound": 0}):
        with pytest.raises(UsageError, match="positive"):
            risk_threshold([np.empty(0)], 1.0, **wrong)
    with pytest.raises(UsageError, match="NaN"):
        risk_threshold([np.array([math.nan])], 100.0, 1.0, bound=1)
    with pytest.raises(UsageError, match="0 good images"):
        risk_threshold([], 1.0, 1.0, bound=1)
