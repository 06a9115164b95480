"""Losses of the wafer station against their formulas, and the sensor in them against the one that is simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from waferlens.prepare.wafer_geometry import column_values
from waferlens.recipe.wafer import AfSensor, WaferLoss
from waferlens.simulate.wafer.af import AfSensor as SimulatedSensor
from waferlens.simulate.wafer.af import af_track
from waferlens.simulate.wafer.af import column_reading as simulated_reading
from waferlens.simulate.wafer.dataset import wafer_world
from waferlens.simulate.wafer.field import ideal_raster
from waferlens.simulate.wafer.scene import FIELD_UM
from waferlens.train.berhu import berhu
from waferlens.train.wafer_losses import (
    RANGE,
    beyond_range,
    beyond_reading,
    column_reading,
    lagged,
    laplace_nll,
    pixel_loss,
    track_error,
    track_nll,
    unlagged,
    wafer_loss,
)

SCALE = 781.25


def image(values: np.ndarray) -> torch.Tensor:
    """`h w` as `1 1 h w`."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]


def everywhere(h: int, w: int) -> torch.Tensor:
    return torch.ones(1, 1, h, w, dtype=torch.bool)


# Pixels


def test_berhu_is_its_formula() -> None:
    errors = torch.tensor([0.0, 0.5, 1.0, -2.0, 3.0, -10.0])
    c = 0.2 * 10.0
    expected = [abs(e) if abs(e) <= c else (e * e + c * c) / (2 * c) for e in errors.tolist()]
    assert berhu(errors, torch.zeros(6)).item() == pytest.approx(np.mean(expected), rel=1e-6)
    # both branches meet at c, in value and slope
    near = torch.tensor([c - 1e-4, c + 1e-4, 10.0], requires_grad=True)
    berhu(near, torch.zeros(3)).backward()
    assert near.grad is not None
    assert (3 * near.grad[:2]).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


def test_berhu_of_no_error_is_nothing() -> None:
    value = torch.ones(4, requires_grad=True)
    loss = berhu(value, torch.ones(4))
    loss.backward()
    assert loss.item() == 0.0
    assert value.grad is not None
    assert torch.isfinite(value.grad).all()


@pytest.mark.parametrize(("kind", "expected"), [("l1", 2.0), ("mse", (1 + 9) / 2), ("berhu", None)])
def test_errors_are_means_over_what_is_known(kind: str, expected: float | None) -> None:
    truth = torch.tensor([1.0, 2.0, 100.0]).reshape(1, 1, 1, 3)
    height = torch.tensor([2.0, 5.0, 0.0]).reshape(1, 1, 1, 3)
    where = torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    if expected is None:
        c = 0.2 * 3.0
        expected = np.mean([(1 + c * c) / (2 * c), (9 + c * c) / (2 * c)])
    assert pixel_loss(kind, height, truth, where).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("error", [0.003, -0.2, 1.5])
def test_the_likelihood_is_greatest_where_sigma_is_the_error(error: float) -> None:
    height = torch.full((1, 1, 2, 2), error, requires_grad=True)
    log_sigma = torch.full((1, 1, 2, 2), math.log(abs(error)), requires_grad=True)
    truth, where = torch.zeros(1, 1, 2, 2), everywhere(2, 2)
    loss = laplace_nll(height, log_sigma, truth, where)
    loss.backward()
    assert loss.item() == pytest.approx(1 + math.log(abs(error)), rel=1e-5)
    assert log_sigma.grad is not None
    assert log_sigma.grad.abs().max() < 1e-6
    assert height.grad is None  # a height is not made worse for the sake of sigma
    with torch.no_grad():
        for step in (-0.1, 0.1):
            assert laplace_nll(height, log_sigma + step, truth, where) > loss


def test_the_likelihood_is_greatest_where_sigma_is_the_mean_error() -> None:
    # of many errors, sigma becomes the mean absolute one, not the root mean square
    error = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)) ** 3
    log_sigma = torch.full_like(error, error.abs().mean().log().item(), requires_grad=True)
    laplace_nll(error, log_sigma, torch.zeros_like(error), everywhere(200, 200)).backward()
    assert log_sigma.grad is not None
    assert abs(log_sigma.grad.sum().item()) < 1e-4


def batch_of(h: int = 8, w: int = 12, b: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {
        "image": torch.rand(b, 1, h, w, generator=draw),
        "truth": torch.rand(b, 1, h, w, generator=draw),
        "kinds": torch.randint(0, 3, (b, h // 4, w // 4), generator=draw),
        "dense": torch.ones(b, dtype=torch.bool),
        "track": torch.rand(b, w, generator=draw),
        "direction": torch.ones(b),
        "seen": torch.ones(b, 1, h, w, dtype=torch.bool),
    }


def outputs(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    b, _, h, w = batch["image"].shape
    shapes = ((b, 1, h, w), (b, 1, h, w), (b, 3, h // 4, w // 4))
    return tuple(torch.rand(shape, generator=draw).requires_grad_() for shape in shapes)  # type: ignore[return-value]


def gradients(loss: WaferLoss, batch: dict[str, torch.Tensor]) -> tuple[list[torch.Tensor], set[str], torch.Tensor]:
    """Of height, log sigma and logits; the names of the terms; the sum."""
    told = outputs(batch)
    total, terms = wafer_loss(loss, told, batch, SCALE, 8.197)
    total.backward()
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in told], set(terms), total.detach()


FULL = {"sigma_weight": 0.1, "class_weight": 0.1}


def test_pixels_without_truth_give_no_gradient() -> None:
    batch = batch_of()
    batch["truth"][0, 0, 2, 3:7] = math.nan
    batch["kinds"][0, 1, 2] = -1
    (height, log_sigma, logits), terms, total = gradients(WaferLoss(**FULL), batch)
    assert terms == {"pixel", "sigma", "classes"}
    assert torch.isfinite(total)
    unknown = ~batch["truth"].isfinite()
    for grad in (height, log_sigma):
        assert (grad[unknown] == 0).all()
        assert (grad[~unknown] != 0).all()
    assert (logits[0, :, 1, 2] == 0).all()
    assert (logits[1] != 0).all()


def test_depth_0_gives_no_gradient_where_it_was_not_measured() -> None:
    batch = batch_of()
    batch["truth"][:, :, 4:] = 0.0
    masked, *_ = gradients(WaferLoss(mask_zero=True, pixel="berhu"), batch)
    assert (masked[0][:, :, 4:] == 0).all()
    assert (masked[0][:, :, :4] != 0).all()
    counted, *_ = gradients(WaferLoss(pixel="berhu"), batch)
    assert (counted[0][:, :, 4:] != 0).all()


def test_what_supervises_decides_where_gradients_come_from() -> None:
    batch = batch_of()
    batch["dense"][1] = False
    (height, log_sigma, logits), terms, _ = gradients(WaferLoss(**FULL), batch)
    assert terms == {"pixel", "sigma", "classes"}
    assert all((grad[1] == 0).all() and (grad[0] != 0).all() for grad in (height, log_sigma, logits))
    # mixed: the field without dense truth learns from its track
    (height, log_sigma, logits), terms, _ = gradients(WaferLoss(supervision="mixed", **FULL), batch)
    assert terms == {"pixel", "sigma", "classes", "track", "range"}
    assert (height[1] != 0).any(dim=1).all()
    assert (log_sigma[1] == 0).all()
    batch["dense"][:] = False
    (height, log_sigma, logits), terms, _ = gradients(WaferLoss(supervision="track", **FULL), batch)
    assert terms == {"track", "range", "sigma"}
    assert "bound" in gradients(WaferLoss(supervision="track", bound_weight=1.0, **FULL), batch)[1]
    assert (logits == 0).all()
    assert (log_sigma != 0).all()


def test_a_batch_of_which_nothing_is_known_teaches_nothing() -> None:
    batch = batch_of()
    batch["dense"][:] = False
    batch["track"][:] = math.nan
    for supervision in ("dense", "track", "mixed"):
        grads, terms, total = gradients(WaferLoss(supervision=supervision, **FULL), batch)  # type: ignore[arg-type]
        assert terms == set()
        assert total == 0
        assert all((grad == 0).all() for grad in grads)


def test_columns_without_a_reading_count_for_nothing() -> None:
    batch = batch_of(b=1)
    still = AfSensor(lag_um=0.0)
    batch["track"][0, 5:] = math.nan
    loss = WaferLoss(supervision="track", sensor=still)
    batch["dense"][:] = False
    (height, *_), _, _ = gradients(loss, batch)
    assert (height[..., 5:] == 0).all()
    assert (height[..., :5] != 0).any(dim=2).all()
    reading = column_reading(outputs(batch)[0], batch["image"], still, SCALE, batch["seen"])[0]
    expected = (reading - batch["track"][0]).abs()[:5]
    assert torch.allclose(track_error(still, outputs(batch)[0], batch, SCALE, 8.197), expected)


def test_heights_that_no_wafer_has_are_drawn_back_and_others_left_alone() -> None:
    low, high = RANGE
    height = image(np.array([[low - 3.0, low, 0.4, high, high + 1.0, 99.0]])).requires_grad_()
    seen = torch.tensor([True, True, True, True, True, False]).expand(1, 1, 1, 6)
    beyond = beyond_range(height, seen)
    beyond.backward()
    assert beyond.item() == pytest.approx((3.0 + 1.0) / 5)
    assert height.grad is not None
    assert height.grad.ravel().tolist() == pytest.approx([-0.2, 0, 0, 0, 0.2, 0])


def still(track: list[float], h: int = 2) -> dict[str, torch.Tensor]:
    """A batch of one field whose sensor does not lag."""
    return {
        "track": torch.tensor([track]),
        "direction": torch.ones(1),
        "seen": torch.ones(1, 1, h, len(track), dtype=torch.bool),
    }


def test_what_lies_above_a_reading_costs_more_than_what_lies_below() -> None:
    sensor = AfSensor(lag_um=0.0, mean_share=0.2)
    batch = still([0.4] * 12)
    # the highest surface lies at 0.5 at the most: 0.2 of the reading is the mean of its column, which is 0 or more
    height = image(np.array([[0.4, 0.5, 0.6, 0.2] * 3, [0.45, 0.0, 0.4, 0.4] * 3])).requires_grad_()
    loss = beyond_reading(sensor, height, batch, 8.197, 0.25)
    assert loss.item() == pytest.approx((0.1 + 0.25 * (0.2 + 0.4)) / 8)
    loss.backward()
    assert height.grad is not None
    assert (24 * height.grad[0, 0, :, :4]).tolist() == [[0, 0, 1, -0.25], [0, -0.25, 0, 0]]
    batch["track"][0, 3] = math.nan
    batch["seen"][..., 1, :] = False
    told = beyond_reading(sensor, height, batch, 8.197, 0.25).item()
    assert told == pytest.approx((3 * 0.1 + 2 * 0.25 * 0.2) / 11), "neither that column nor those rows count"
    assert beyond_reading(sensor, height, still([math.nan] * 12), 8.197, 0.25).item() == 0.0


def test_a_bound_is_as_loose_as_its_neighbours_readings() -> None:
    batch = still([0.1] * 6 + [0.9] * 6, h=1)
    sensor = AfSensor(lag_um=0.0, mean_share=0.0)
    height = image(np.array([[0.1] * 4 + [0.5] * 4 + [0.9] * 4]))
    assert beyond_reading(sensor, height, batch, 8.197, 0.3).item() == pytest.approx(0.0)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_pixels_that_look_alike_get_a_quantile_of_their_readings(share: float) -> None:
    """A carrier that is seen alone in 60 columns and beside a die in 40, and the die that is seen in these."""
    tops = torch.cat([torch.zeros(60), torch.full((40,), 0.8)])
    batch = still(tops.tolist())
    batch["seen"][..., 1, :60] = False  # the second row is die, where there is one
    low, high = (torch.tensor(0.3, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.SGD([low, high], lr=0.05)
    for _ in range(1500):
        height = torch.stack([low.expand(100), high.expand(100)])[None, None]
        optimiser.zero_grad()
        beyond_reading(AfSensor(lag_um=0.0, mean_share=0.0), height, batch, 8.197, share).backward()
        optimiser.step()
    assert (low.item(), high.item()) == pytest.approx((0.0, 0.8), abs=0.03), "less than 60 % lies below: the carrier"


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_lag_is_taken_back(direction: float) -> None:
    reading = torch.from_numpy(np.cumsum(np.random.default_rng(6).normal(0, 0.02, 300)))[None]
    way = torch.tensor([direction])
    late = lagged(reading, 8.9, way)
    assert (late - reading).abs().max() > 0.05
    inner = slice(60, 240)
    # `lagged` leaves out what lies more than six lags back
    assert torch.allclose(unlagged(late, 8.9, way)[:, inner], reading[:, inner], atol=0.01)
    late[0, 100] = math.nan
    gone = torch.isnan(unlagged(late, 8.9, way))[0].nonzero().ravel().tolist()
    assert gone == ([100, 101] if direction > 0 else [99, 100])
    assert torch.equal(unlagged(reading, 0.0, way), reading)


def test_the_tracks_likelihood_is_of_the_column_mean_of_sigma() -> None:
    log_sigma = torch.randn(2, 1, 4, 3)
    known = torch.tensor([[True, False, True], [False, True, False]])
    error = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    spread = torch.stack([log_sigma[0, 0, :, 0].mean(), log_sigma[0, 0, :, 2].mean(), log_sigma[1, 0, :, 1].mean()])
    expected = (error * (-spread).exp() + spread).mean()
    assert torch.allclose(track_nll(error, log_sigma, known), expected)


# The sensor


def two_levels(h: int = 40, w: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    height = np.where(np.arange(h)[:, None] < 15, 640.0, 620.0) + rng.normal(0, 4, (h, w))
    height[:, 3] = 0.0
    return height.astype(np.float32), rng.uniform(0.05, 0.9, (h, w)).astype(np.float32)


@pytest.mark.parametrize(("softness", "share"), [(12.0, 0.15), (25.0, 0.35), (3.0, 0.0)])
def test_a_reading_is_that_of_the_simulated_sensor(softness: float, share: float) -> None:
    height, light = two_levels()
    # at 60 um a pixel its footprint of 20 x 40 um is one pixel
    expected, _ = simulated_reading(height, light, 60.0, SimulatedSensor(softness_um=softness, mean_share=share))
    spec = AfSensor(softness_um=softness, mean_share=share)
    reading = column_reading(image(height) / SCALE, image(light), spec, SCALE, everywhere(*height.shape))
    assert SCALE * reading[0].numpy() == pytest.approx(expected, abs=0.01)


def test_colours_read_as_their_mean() -> None:
    height, light = two_levels()
    colours = torch.cat([image(light) * factor for factor in (0.5, 1.0, 1.5)], dim=1)
    seen = everywhere(*height.shape)
    one = column_reading(image(height) / SCALE, image(light), AfSensor(), SCALE, seen)
    three = column_reading(image(height) / SCALE, colours, AfSensor(), SCALE, seen)
    assert three.shape == one.shape
    assert torch.allclose(one, three, atol=1e-6)


def test_rows_that_were_filled_up_are_not_read() -> None:
    height, light = two_levels()
    filled = np.pad(height, ((0, 10), (0, 0)), constant_values=5000.0)
    lit = np.pad(light, ((0, 10), (0, 0)), constant_values=1.0)
    seen = everywhere(*filled.shape)
    seen[:, :, len(height) :] = False
    whole = column_reading(image(height) / SCALE, image(light), AfSensor(), SCALE, everywhere(*height.shape))
    part = column_reading(image(filled) / SCALE, image(lit), AfSensor(), SCALE, seen)
    assert torch.allclose(whole, part, atol=1e-6)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("lag_ms", [0.4, 1.5])
def test_the_lag_is_the_low_pass_of_the_sensor(lag_ms: float, direction: float) -> None:
    reading = np.cumsum(np.random.default_rng(6).normal(0, 30, 240)) + 300
    sensor = SimulatedSensor(lag_ms=lag_ms)
    keep = math.exp(-1e3 / sensor.rate_hz / lag_ms)
    way = reading if direction > 0 else reading[::-1]
    expected = lfilter([1 - keep], [1, -keep], way, zi=[keep * way[0]])[0][:: int(direction)]
    # columns as far apart as the samples
    lag_columns = sensor.speed_mm_s * lag_ms / sensor.step_um
    ours = lagged(torch.from_numpy(reading)[None], lag_columns, torch.tensor([direction]))[0].numpy()
    assert ours == pytest.approx(expected, abs=0.003 * np.ptp(reading))  # what lies six lags back is left out


def test_no_lag_changes_nothing_and_each_field_has_its_own_direction() -> None:
    reading = torch.rand(2, 50)
    assert torch.equal(lagged(reading, 0.0, torch.ones(2)), reading)
    both = lagged(reading, 4.0, torch.tensor([1.0, -1.0]))
    assert torch.allclose(both[:1], lagged(reading[:1], 4.0, torch.tensor([1.0])))
    assert torch.allclose(both[1:], lagged(reading[1:], 4.0, torch.tensor([-1.0])))
    assert torch.allclose(both[1].flip(0), lagged(reading[1:].flip(1), 4.0, torch.tensor([1.0]))[0])


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("number", [0, 3])
def test_a_made_scene_is_read_as_its_trace_has_it(number: int, direction: int) -> None:
    """Without noise, and all the way: scene, sensor, trace, columns."""
    grid = 228
    pitch = FIELD_UM / grid
    scene = ideal_raster(wafer_world("sim"), 3, 3 * number, grid)
    trace = af_track(
        scene.surface_um, scene.reflectance, pitch, SimulatedSensor(), np.random.default_rng(0), None,
        direction=direction,
    )  # fmt: skip
    track, _ = column_values(trace, pitch, grid)
    batch = {
        "image": image(scene.reflectance),
        "track": torch.from_numpy(track / np.float32(SCALE))[None],
        "direction": torch.tensor([float(direction)]),
        "seen": everywhere(grid, grid),
    }
    height = image(scene.surface_um) / SCALE
    error = SCALE * track_error(AfSensor(), height, batch, SCALE, pitch).numpy()
    late = SCALE * track_error(AfSensor(lag_um=0.0), height, batch, SCALE, pitch).numpy()
    turned = SCALE * track_error(AfSensor(), height, batch | {"direction": -batch["direction"]}, SCALE, pitch).numpy()
    assert np.median(error) < 0.5
    assert error.mean() < 1.5  # of steps of up to 750 um: the trace interpolates between samples
    assert error.mean() < 0.1 * min(late.mean(), turned.mean())
