"""The shipped recipe for binary images finds the defects of DeepPCB boards that did not tune it."""

from __future__ import annotations

import pytest

from waferlens.bundle.golden import GoldenSession
from waferlens.bundle.reference import reference_of
from waferlens.evaluate.findings import judge
from waferlens.formats.deeppcb import read_pairs, read_truth
from waferlens.load.folder import read_image
from waferlens.recipe import load_recipe

HELD_OUT = ("group13000", "group77000")


@pytest.mark.real_data
def test_held_out_boards(real_data):
    pairs = [pair for pair in read_pairs(real_data / "deeppcb") if pair.group in HELD_OUT][::25]
    assert len(pairs) == 12
    recipe = load_recipe("golden-binary")
    session = GoldenSession(recipe, recipe.threshold.factor)
    found = [
        session.find(read_image(pair.test), [reference_of(recipe, read_image(pair.template))]).findings
        for pair in pairs
    ]
    truth = [read_truth(pair.truth) for pair in pairs]
    for rule in ("centre", "iou"):
        judged = judge(found, truth, rule=rule, rounds=100)
        assert judged.truths > 60
        assert judged.f.value > 0.95, rule
