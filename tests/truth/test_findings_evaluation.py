"""Findings against truth by hand, rates against SciPy, and curves against known data and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from waferlens.errors import UsageError
from waferlens.evaluate.curves import binned_pod, clopper_pearson, fit_pod, overkill_escape, wilson
from waferlens.evaluate.findings import check_rate, false_alarm_rate, judge
from waferlens.ops.conformal import conformal_threshold
from waferlens.records import Finding


def at(x: float, y: float = 0.0, size: float = 10.0, kind: str = "deviation") -> Finding:
    return Finding(kind, (x, y, x + size, y + size), 1.0, size * size, 5.0, "light", True)


TRUTH = [[at(0, kind="open"), at(100, kind="short")], [at(0, kind="open")], []]
FOUND = [[at(1), at(4, 4), at(300)], [], [at(50), at(70)]]


def test_counts_by_hand():
    told = judge(FOUND, TRUTH)
    # the first finding is the open; the second overlaps it too (36 of 164: too little); the others are false
    assert (told.images, told.truths, told.found, told.hits, told.duplicates) == (3, 3, 5, 1, 0)
    assert told.precision.value == pytest.approx(1 / 5)
    assert told.recall.value == pytest.approx(1 / 3)
    assert told.f.value == pytest.approx(2 / 8)
    assert told.false_alarms_per_image.value == pytest.approx(4 / 3)
    assert told.alarmed_share.value == pytest.approx(2 / 3)
    assert told.missed_counts == {"open": (1, 2), "short": (1, 1)}
    assert told.missed["open"].value == 0.5
    assert "cluster bootstrap over 3 images" in told.precision.method
    for one in (told.precision, told.recall, told.f, told.false_alarms_per_image, *told.missed.values()):
        assert one.low <= one.value <= one.high


def test_by_centre_a_fragment_is_a_duplicate():
    told = judge(FOUND, TRUTH, rule="centre")
    assert (told.hits, told.duplicates) == (1, 1)
    small = [[at(2, size=1), at(7, size=1)], [at(4, size=2)], []]
    assert (judge(small, TRUTH).hits, judge(small, TRUTH, rule="centre").hits) == (0, 2)
    assert judge(small, TRUTH, rule="centre").duplicates == 1


def test_classes_count_only_where_asked():
    found = [[at(0, kind="short"), at(100, kind="short"), at(200, kind="new")], [], []]
    assert judge(found, TRUTH).hits == 2
    told = judge(found, TRUTH, same_kind=True)
    assert (told.hits, told.missed_counts["open"]) == (1, (2, 2))
    assert told.false_alarms_per_image.value == pytest.approx(2 / 3)


def test_nothing_wrong_has_an_exact_interval():
    told = judge(TRUTH * 10, TRUTH * 10)
    assert (told.f.value, told.f.high, told.recall.low) == (1.0, 1.0, pytest.approx(0.025 ** (1 / 30)))
    jaccard = 0.025 ** (1 / 30)
    assert told.f.low == pytest.approx(2 * jaccard / (1 + jaccard))
    # no false alarm on 30 images: at most -ln 0.025 / 30 of them on each
    assert told.false_alarms_per_image.high == pytest.approx(-math.log(0.025) / 30)
    assert told.alarmed_share.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert "exact" in told.missed["short"].method
    assert (told.missed["short"].low, told.missed["short"].high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))


def test_no_case_has_no_number():
    told = judge([[], []], [[], []])
    assert (told.precision.value, told.recall.value, told.f.value, told.missed) == (None, None, None, {})
    assert told.false_alarms_per_image.value == 0.0
    assert judge([[at(0)]], [[]]).precision.value == 0.0


def test_groups_widen_the_interval_where_images_resemble_each_other():
    rng = np.random.default_rng(0)
    found, truth, group = [], [], []
    for board in range(20):
        works = rng.random() < 0.6  # on a board all are found, or none
        for _ in range(10):
            truth.append([at(0)])
            found.append([at(0)] if works else [])
            group.append(f"board {board}")
    clustered, free = judge(found, truth, group).recall, judge(found, truth).recall
    assert clustered.value == free.value
    # twenty independent numbers against two hundred: wider by the root of ten
    assert (clustered.high - clustered.low) / (free.high - free.low) == pytest.approx(math.sqrt(10), rel=0.15)
    assert "over 20 groups" in clustered.method
    p = clustered.value
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * math.sqrt(p * (1 - p) / 20), rel=0.1)


def test_a_class_that_few_groups_have():
    truth = [[at(0, kind="rare")]] + [[at(0, kind="usual")]] * 30
    told = judge([[]] + [[at(0)]] * 29 + [[]], truth)
    assert told.missed["rare"].value == 1.0  # draws without the image tell nothing about it
    assert told.missed["rare"].low == pytest.approx(0.025)
    assert 0 < told.missed["usual"].high < 0.2


def test_misuse_is_told():
    with pytest.raises(UsageError, match="findings of 1 images, truth of 2"):
        judge([[]], [[], []])
    with pytest.raises(UsageError, match="at least one"):
        judge([], [])
    with pytest.raises(UsageError, match="there are `iou` and `centre`"):
        judge([[]], [[]], rule="area")


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
@settings(max_examples=50, deadline=None)
def test_intervals_of_shares_are_those_of_scipy(case, level):
    count, total = case
    test = stats.binomtest(count, total)
    for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        expected = test.proportion_ci(level, method=method)
        assert ours(count, total, level) == (
            pytest.approx(expected.low, abs=1e-9),
            pytest.approx(expected.high, abs=1e-9),
        )


def test_the_rate_of_false_alarms():
    told = false_alarm_rate(20, 2000)
    expected = stats.binomtest(20, 2000).proportion_ci(0.95, method="exact")
    assert (told.value, told.low, told.high) == (0.01, pytest.approx(expected.low), pytest.approx(expected.high))
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert wilson(0, 0) == (0.0, 1.0)
    for wrong in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(UsageError):
            false_alarm_rate(*wrong)


def test_a_fixed_threshold_is_checked_by_the_binomial():
    check = check_rate([12, 8, 15, 9, 11], 1000, 0.01)
    assert check.observed == 55 / 5000
    assert check.more == pytest.approx(stats.binom.sf(54, 5000, 0.01), rel=1e-9)
    assert check.fewer == pytest.approx(stats.binom.cdf(55, 5000, 0.01), rel=1e-9)
    assert (check.low, check.high) == tuple(stats.binom.ppf([0.025, 0.975], 5000, 0.01) / 5000)
    assert check.kept
    assert check.consistent
    assert not check_rate([20] * 5, 1000, 0.01).kept
    few = check_rate([1] * 5, 1000, 0.01)
    assert few.kept
    assert not few.consistent
    assert check_rate([1000], 1000, 0.01).more == 0


def test_fitted_thresholds_are_checked_with_their_own_spread():
    promised = conformal_threshold(np.arange(500.0), 0.01)[1]
    one = check_rate([31], 2000, promised)
    expected = stats.betabinom(2000, 5, 496)
    assert one.expected == 5 / 501
    assert (one.more, one.fewer) == (pytest.approx(expected.sf(30)), pytest.approx(expected.cdf(31)))
    # ten repetitions of 500 fitted and 2000 tested: a binomial would reject every fifth honest lot
    rng = np.random.default_rng(1)
    by_promise, by_rate = [], []
    for _ in range(300):
        alarmed = rng.binomial(2000, rng.beta(5, 496, 10))
        by_promise.append(check_rate(alarmed, 2000, promised).consistent)
        by_rate.append(check_rate(alarmed, 2000, promised.mean).consistent)
    assert np.mean(by_promise) == pytest.approx(0.95, abs=0.04)
    assert np.mean(by_rate) < 0.8


def test_counts_that_cannot_be():
    for alarmed, images, stated in (([], 10, 0.1), ([11], 10, 0.1), ([-1], 10, 0.1), ([1], 10, 1.0)):
        with pytest.raises(UsageError):
            check_rate(alarmed, images, stated)


def test_overkill_and_escape_by_hand():
    curve = overkill_escape(np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 4.0, 9.0]))
    assert curve.threshold.tolist() == [-np.inf, 1, 2, 4, 5, 9]
    assert curve.overkill == pytest.approx([1, 0.75, 0.25, 0.25, 0, 0])
    assert curve.escape == pytest.approx([0, 0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert curve.at(3.0) == (0.25, pytest.approx(1 / 3))
    assert curve.at(-100.0) == (1.0, 0.0)
    assert curve.for_overkill(0.25) == (2.0, 0.25, pytest.approx(1 / 3))
    assert curve.for_overkill(0.0)[0] == 5.0
    # of twelve pairs the defective one is above in 1 + 3 + 4 and level with two
    assert curve.separation() == pytest.approx((8 + 2 / 2) / 12)
    with pytest.raises(UsageError, match="got 0 and 1"):
        overkill_escape(np.empty(0), np.ones(1))
    with pytest.raises(UsageError, match="NaN"):
        overkill_escape(np.ones(1), np.array([math.nan]))


def test_separation_is_that_of_two_normals():
    rng = np.random.default_rng(2)
    curve = overkill_escape(rng.normal(0, 1, 20000), rng.normal(1.5, 1, 20000))
    assert curve.separation() == pytest.approx(stats.norm.cdf(1.5 / math.sqrt(2)), abs=0.006)
    assert curve.at(0.75) == (
        pytest.approx(stats.norm.sf(0.75), abs=0.012),
        pytest.approx(stats.norm.sf(0.75), abs=0.012),
    )


# Temperature at launch [°F] and whether an O-ring eroded: Dalal, Fowlkes & Hoadley, J. Am. Stat. Assoc. 84 (1989) 945.
TEMPERATURE = [66, 70, 69, 68, 67, 72, 73, 70, 57, 63, 70, 78, 67, 53, 67, 75, 70, 81, 76, 79, 75, 76, 58]
DISTRESS = [0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]


def test_a_published_fit():
    pod = fit_pod({"t": np.array(TEMPERATURE, float)}, np.array(DISTRESS, bool), logarithmic=False)
    assert pod.coefficients == pytest.approx([15.0429, -0.2322], abs=5e-5)
    assert np.sqrt(np.diag(pod.covariance)) == pytest.approx([7.3786, 0.1082], abs=5e-4)
    assert -2 * pod.log_likelihood == pytest.approx(20.315, abs=5e-4)
    share, low, high = pod.share(t=31.0)
    assert share == pytest.approx(0.9996, abs=5e-5)
    assert low < share < high
    value, bound = pod.reach("t", 0.5, 0.9)
    assert value == pytest.approx(15.0429 / 0.2322, rel=3e-4)
    assert bound < value  # it falls with the temperature, so the bound is colder


def simulated(rng, count, b0=-6.0, b1=4.0):
    size = np.exp(rng.uniform(np.log(1.5), np.log(12.0), count))
    return size, rng.random(count) < 1 / (1 + np.exp(-(b0 + b1 * np.log(size))))


def test_the_bound_is_where_the_likelihood_says():
    size, hit = simulated(np.random.default_rng(3), 150)
    pod = fit_pod({"size": size}, hit)
    a90, bound = pod.reach("size")
    assert pod.share(size=a90)[0] == pytest.approx(0.9)
    assert pod.x.T @ (hit - pod.share(size=size)[0]) == pytest.approx([0, 0], abs=1e-6)  # likelihood is at its top
    # with the odds held at the bound, the best slope by trying loses half of 2.706
    slopes = np.linspace(0.5, 12, 20001)
    odds = math.log(9) + slopes[:, None] * (np.log(size) - math.log(bound))
    best = (-np.logaddexp(0, np.where(hit, -1, 1) * odds).sum(axis=1)).max()
    assert 2 * (pod.log_likelihood - best) == pytest.approx(stats.norm.ppf(0.95) ** 2, abs=1e-5)
    assert pod.reach("size", confidence=0.5)[1] == a90


def test_a90_95_is_above_the_true_a90_nineteen_times_of_twenty():
    rng = np.random.default_rng(4)
    true = math.exp((math.log(9) + 6.0) / 4.0)
    above, middle = [], []
    for _ in range(150):
        size, hit = simulated(rng, 120)
        a90, bound = fit_pod({"size": size}, hit).reach("size")
        above.append(bound >= true)
        middle.append(a90)
    assert np.mean(above) == pytest.approx(0.95, abs=0.04)
    assert np.median(middle) == pytest.approx(true, rel=0.03)


def test_size_and_contrast_together():
    rng = np.random.default_rng(5)
    count = 4000
    size, contrast = np.exp(rng.uniform(0, 2.5, count)), np.exp(rng.uniform(1, 4, count))
    odds = -9.0 + 3.0 * np.log(size) + 2.0 * np.log(contrast)
    pod = fit_pod({"size": size, "contrast": contrast}, rng.random(count) < 1 / (1 + np.exp(-odds)))
    assert pod.coefficients == pytest.approx([-9, 3, 2], rel=0.1)
    for fixed in (5.0, 20.0):
        true = math.exp((math.log(9) + 9 - 2 * math.log(fixed)) / 3)
        a90, bound = pod.reach("size", contrast=fixed)
        assert a90 == pytest.approx(true, rel=0.06)
        assert a90 < bound < 1.2 * a90
    with pytest.raises(UsageError, match="needs values of all others"):
        pod.reach("size")
    with pytest.raises(UsageError, match="asks for size, contrast, got size"):
        pod.share(size=3.0)


def test_data_that_cannot_tell_give_no_bound():
    size = np.arange(1.0, 13.0)
    for turn, beyond in ((1, math.inf), (-1, 0.0)):  # found a little more often where large, and where small
        pod = fit_pod({"size": size[::turn]}, np.array([0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1], bool))
        assert pod.reach("size")[1] == beyond


@pytest.mark.parametrize(
    ("size", "hit", "reason"),
    [
        ([1, 2, 3], [True, True, True], "3 of 3 defects were found"),
        ([1, 2, 3], [False] * 3, "0 of 3"),
        ([1, 2, 3, 4], [False, False, True, True], "do not overlap"),
        ([1, 2, 2, 4], [False, False, True, True], "do not overlap"),  # at one size only: still no finite slope
        ([2, 2, 2], [True, False, True], "do not vary"),
        ([0, 2, 3], [True, False, True], "must be positive"),
        ([math.nan, 2, 3], [True, False, True], "not finite"),
        ([1, 2], [True, False, True], "2 numbers, but there are 3 defects"),
    ],
)
def test_hits_and_misses_that_cannot_be_fitted(size, hit, reason):
    with pytest.raises(UsageError, match=reason):
        fit_pod({"size": np.array(size, float)}, np.array(hit))


def test_shares_in_bins():
    size, contrast = np.array([1, 2, 3, 4, 5, 9.0]), np.array([1, 1, 9, 9, 1, 1.0])
    hit = np.array([0, 1, 1, 1, 0, 1], bool)
    one = binned_pod({"size": size}, hit, {"size": [1, 3, 5, 7]})
    assert (one.total.tolist(), one.hits.tolist()) == ([2, 2, 1], [1, 2, 0])
    assert (one.low[1], one.high[1]) == (pytest.approx(stats.binomtest(2, 2).proportion_ci(method="wilson").low), 1.0)
    exact = binned_pod({"size": size}, hit, {"size": [1, 3, 5, 7]}, interval="clopper-pearson")
    assert exact.low[1] == pytest.approx(math.sqrt(0.025))
    two = binned_pod({"size": size, "contrast": contrast}, hit, {"size": [0, 3, 10], "contrast": [0, 5, 10]})
    assert two.total.tolist() == [[2, 0], [2, 2]]
    assert two.hits.tolist() == [[1, 0], [1, 2]]
    assert math.isnan(two.share[0, 1])
    assert (two.low[0, 1], two.high[0, 1]) == (0, 1)
