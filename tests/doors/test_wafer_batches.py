"""What a training step of the wafer station is given: sizes, cuts, what is hidden, and that it can be made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import GRID, tiny_fields, tiny_views, tiny_wafer
from waferlens.bundle.wafer import MULTIPLE_PX
from waferlens.formats.nyu import entries, read_views
from waferlens.load.nyu import split
from waferlens.train.wafer import FieldBatches, field_arrays, view_arrays

ON_FIELDS = ["wafer-fast", "wafer-fcrn", "wafer-unet"]


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_fields(tmp_path_factory.mktemp("wafers") / "fields")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_views(tmp_path_factory.mktemp("rooms") / "views")


@pytest.mark.parametrize("name", ON_FIELDS)
def test_networks_get_the_size_they_take(name: str, fields: Path) -> None:
    recipe = tiny_wafer(name)
    made = field_arrays(recipe, fields, "train")
    expected = (recipe.input.height_px, recipe.input.width_px)
    if name == "wafer-fast":
        assert made.size_px == (GRID, GRID)
        expected = (-(-GRID // MULTIPLE_PX) * MULTIPLE_PX,) * 2
        # what is filled up repeats the edge, and is neither seen nor known
        assert (made.image[:, :, GRID:, :GRID] == made.image[:, :, GRID - 1 : GRID, :GRID]).all()
        assert np.isnan(made.truth[:, GRID:]).all()
        assert (made.columns[:, :, GRID:] == 0).all()
        assert not next(iter(FieldBatches(made, recipe, None)))["seen"][:, :, GRID:].any()
    assert made.image.shape[2:] == made.truth.shape[1:] == expected
    assert made.columns.shape[2] == expected[1]


def test_batches_depend_on_seed_and_epoch_alone(fields: Path) -> None:
    recipe = tiny_wafer("wafer-fast", "train.crop_px=64")
    made = field_arrays(recipe, fields, "train")
    first, again, later = (list(FieldBatches(made, recipe, epoch)) for epoch in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(a[name].nan_to_num(-9), b[name].nan_to_num(-9)) for name in a)
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, later, strict=True))


def test_what_belongs_together_is_cut_and_turned_together(fields: Path) -> None:
    recipe = tiny_wafer(
        "wafer-fast", "train.crop_px=64", "train.augment.gain=0", "train.forget_known=0", "train.batch=1"
    )
    made = field_arrays(recipe, fields, "train")
    # every layer tells its own column, in its own units
    w = made.image.shape[3]
    place = np.arange(w, dtype=np.float32)
    made.image[:] = place
    made.truth[:] = place
    made.columns[:, 0] = made.columns[:, 2] = place
    made.columns[:, 1], made.columns[:, 3] = 1, 1
    made.kinds[:] = np.arange(w // 4)
    turned = set()
    for epoch in range(8):
        for batch in FieldBatches(made, recipe, epoch):
            columns = batch["columns"][0, 2]
            assert torch.allclose(65535 * batch["image"][0, 0, 3], columns, atol=1e-2)
            assert torch.allclose(recipe.target.full_scale * batch["truth"][0, 0, 5], columns, rtol=1e-5)
            assert torch.equal(batch["columns"][0, 0], columns)
            assert torch.equal(batch["kinds"][0, 2].float(), (columns.reshape(-1, 4).min(dim=1).values / 4).floor())
            known = batch["track"][0].isfinite()
            assert torch.allclose(recipe.target.full_scale * batch["track"][0][known], columns[known], rtol=1e-5)
            back = bool(columns[1] < columns[0])
            turned.add(back)
            direction = -1.0 if back else 1.0
            assert batch["direction"][0] == direction == batch["columns"][0, 3, 0]
            # a cut takes away what the sensor still remembers, at the end that the scan came from
            from_inside = bool(columns.min() > 0)
            run_in = -(-3 * recipe.loss.sensor.lag_um // made.pitch_um)
            assert (~known).sum() == (run_in if from_inside else 0)
            if from_inside:
                first = known[-1] if back else known[0]
                assert not first
    assert turned == {True, False}


def test_what_is_known_is_hidden_now_and_then(fields: Path) -> None:
    made = field_arrays(tiny_wafer("wafer-fast"), fields, "train")
    always = FieldBatches(made, tiny_wafer("wafer-fast", "train.forget_known=0"), 0)
    assert all((batch["product"][:, 0] == 1).all() and (batch["columns"][:, 3] != 0).any() for batch in always)
    partly = tiny_wafer("wafer-fast", "input.known=[product]", "train.forget_known=0.5")
    kept = torch.cat([batch["product"][:, 0] for epoch in range(20) for batch in FieldBatches(made, partly, epoch)])
    assert 0.3 < kept.mean() < 0.7
    for batch in FieldBatches(made, partly, 0):  # the line never tells these
        assert (batch["columns"] == 0).all()
        assert batch["track"].isfinite().any()  # which may supervise all the same


def test_views_are_scaled_and_depths_are_picked(views: Path) -> None:
    made = view_arrays(tiny_wafer("depth-cnn"), views, "train")
    assert made.image.shape[1:] == (3, 48, 64)
    assert made.image.dtype == np.uint8
    assert made.truth.shape[1:] == (48, 64)
    assert 0.05 < (made.truth == 0).mean() < 0.15  # not averaged away
    measured = np.concatenate([view.depth_m.ravel() for view in read_views(split(entries(views), views)["train"])])
    assert np.isin(made.truth, measured).all()
    grey = view_arrays(tiny_wafer("depth-cnn", "input.channels=1"), views, "train")
    assert np.abs(grey.image[:, 0] - made.image.mean(axis=1)).max() <= 0.51
    batch = next(iter(FieldBatches(made, tiny_wafer("depth-cnn"), None)))
    assert torch.equal(batch["image"], torch.from_numpy(made.image[:2].astype(np.float32) * np.float32(1 / 255)))
