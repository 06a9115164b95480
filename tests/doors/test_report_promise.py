"""What the report says in words of golden recipes: promise, settings and rules; and its logarithmic axis."""

from __future__ import annotations

import numpy as np
import pytest

from html_page import plainly
from waferlens.ops.conformal import RiskGuarantee
from waferlens.recipe import load_recipe
from waferlens.recipe.golden import GoldenRecipe
from waferlens.report import svg
from waferlens.report.promise import promise_of, rule_lines, settings_of


def card_of(recipe: GoldenRecipe, **data: object) -> dict:
    options = {"reference": None, "pair_by": None}
    return {"recipe": recipe.model_dump(mode="json"), "data": {"options": options, "calibration": {}} | data}


def test_every_kind_of_promise_is_said():
    recipe = load_recipe("golden-template")
    risk = RiskGuarantee(0.5, 120, 34.0, 100, 0.44, 0.28, 0.66)
    told = {field: getattr(risk, field) for field in risk.__dataclass_fields__}
    threshold = {"factor": 1.3, "guarantee": told, "set": "2026-02-03T14:05:00+0000"}
    promise = promise_of(card_of(recipe, calibration={"template": 9}, threshold=threshold), recipe, 50)
    assert promise.title == "At most 0.5 false findings per mm²"
    assert "0.28 to 0.66 per mm²; 0.44 were observed" in plainly(promise.sentences[0])
    assert promise.chart is not None
    assert ("set on", "2026-02-03 14:05 UTC") in promise.facts
    none = promise_of(
        card_of(recipe, calibration={"template": 9}, threshold={"factor": 1.0, "guarantee": None}), recipe, 5
    )
    assert (none.title, none.chart) == ("No rate of false alarms is stated", None)
    assert "false_alarm_rate is null" in none.sentences[0]
    old = promise_of(card_of(recipe, calibration={"template": 9}), recipe, 5)
    assert "does not carry the promise" in old.sentences[0]
    assert old.mode == "fitted"


def test_settings_and_rules_are_said_in_words():
    for name, method, beginning in (
        (
            "golden-template",
            {"contrast_fraction": 0.05, "sigmas_light": 4, "sigmas_dark": 6},
            "4 σ light, 6 σ dark, at least 5 % of the",
        ),
        (
            "die-to-die",
            {"sigmas": 6, "contrast_fraction": 0.1, "position_px": 0.5},
            "6 σ, at least 10 % of the reference's range, and edges off by",
        ),
        ("golden-wavelet", {"levels": 3, "sub_images": [4, 5]}, "wavelet energy of 3 scales in 4 × 5 parts"),
    ):
        told = load_recipe(name).model_dump(mode="json")
        told["method"] |= method
        recipe = GoldenRecipe.model_validate(told)
        assert plainly(dict(settings_of(recipe))["tolerated"]).startswith(beginning)
    told = load_recipe("golden-template").model_dump(mode="json")
    told["rules"] = [
        {"name": "a", "critical": False, "min_area_px": 3, "max_area_px": 9, "light_or_dark": "dark"},
        {"name": "a", "critical": False, "min_elongation": 4, "inside": [[0, 0, 5, 5]]},
    ]
    first, second, rest = rule_lines(GoldenRecipe.model_validate(told), {("a", False): (3, 2)})
    assert plainly(first.asks) == "area 3 to 9 px², dark only"
    assert (first.findings, first.images) == (3, 2)
    assert second.asks == "long to short side ≥ 4, centre in 1 box"
    assert second.findings is None
    assert (rest.critical, rest.findings) == (True, 0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 4.0, [0.5, 1, 2]),
        (9, 1300, [10, 20, 50, 100, 200, 500, 1000]),
        (9, 2e4, [10, 30, 100, 300, 1e3, 3e3, 1e4]),
        (0.9, 2e7, [1, 1e2, 1e4, 1e6]),
    ],
)
def test_a_logarithmic_axis_has_round_numbers(low, high, expected):
    axis = svg.LogAxis(low, high, 0.0, 100.0)
    assert axis.ticks(5) == pytest.approx(expected)
    assert axis(low) == axis(0.0) == axis(-3.0) == 0
    assert axis(high) == axis(1e9) == pytest.approx(100)
    assert axis(np.sqrt(low * high)) == pytest.approx(50)
