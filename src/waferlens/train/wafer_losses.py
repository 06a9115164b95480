"""Losses of the wafer station; heights and errors in units of the full scale.

Supervised by the track alone, a network learns through a model of the sensor: what a column's heights would have read.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from waferlens.recipe.wafer import AfSensor, WaferLoss
from waferlens.train.berhu import berhu

Map = Float[Tensor, "b 1 h w"]
RANGE = (-0.1, 1.1)
"""Where heights lie: a bowed carrier is a little below 0, and nothing is much above the full scale."""
BOUND_COLUMNS = 5
"""Columns over which a bound is the highest, and the lowest, of what was read: readings are noisy, the more so without
their lag."""
LEAST_SIGNAL = 0.01
"""Share of white below which a pixel gives the sensor no less: the square root would have no gradient at 0."""


def pixel_loss(kind: str, height: Map, truth: Map, where: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean error over the pixels where there is truth."""
    error = (height - truth)[where]
    match kind:
        case "l1":
            return error.abs().mean()
        case "mse":
            return error.square().mean()
        case _:
            return berhu(height[where], truth[where])


def laplace_nll(height: Map, log_sigma: Map, truth: Map, where: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Negative log-likelihood of the error under a Laplace distribution, up to a constant; the height gets no gradient.

    Its spread is the mean absolute error. Errors at edges and of misjudged levels have long tails, which would blow a
    normal distribution's spread up for every pixel like them.

    Source: Kendall, Gal, NeurIPS 2017 (arXiv:1703.04977), section 3.1.
    """
    error = (height.detach() - truth)[where].abs()
    spread = log_sigma[where]
    return (error * torch.exp(-spread) + spread).mean()


def class_loss(
    logits: Float[Tensor, "b k p q"], kinds: Int64[Tensor, "b p q"], where: Bool[Tensor, "b p q"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the classes over the pixels where there is truth."""
    each = torch.nn.functional.cross_entropy(logits, kinds, reduction="none")
    return each[where].mean()


def column_reading(
    height: Map, image: Float[Tensor, "b c h w"], sensor: AfSensor, full_scale: float, seen: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, "b w"]:
    """What the auto-focus would read at each column, before its lag: the soft maximum over the rows.

    Args:
        height: Of each pixel [full scale]
        image: 0..1, of any number of channels; a brighter pixel returns more signal.
        sensor: Softness and share of the mean.
        full_scale: Height that stands for 1 [um]
        seen: Pixels of the image; what was filled up is none.
    """
    signal = image.mean(dim=1, keepdim=True).clamp(min=LEAST_SIGNAL)
    softness = sensor.softness_um / full_scale
    logits = height / softness + 0.5 * torch.log(signal)
    logits = logits.masked_fill(~seen, -1e4)
    soft_maximum = (logits.softmax(dim=2) * height).sum(dim=2)
    weight = signal * seen
    mean = (weight * height).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6)
    return ((1 - sensor.mean_share) * soft_maximum + sensor.mean_share * mean)[:, 0]


def lagged(reading: Float[Tensor, "b w"], lag_columns: float, direction: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
    """A reading after the sensor's low-pass of first order, run along the scan.

    Args:
        reading: One value a column.
        lag_columns: Length of the low-pass [columns]
        direction: 1 along +x, -1 against it.
    """
    if lag_columns <= 0:
        return reading
    reach = max(1, int(6 * lag_columns))
    kernel = torch.exp(-torch.arange(reach, device=reading.device, dtype=reading.dtype) / lag_columns)
    kernel = (kernel / kernel.sum()).flip(0)[None, None]

    def forward(values: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(values[:, None], (reach - 1, 0), mode="replicate")
        return torch.nn.functional.conv1d(padded, kernel)[:, 0]

    along, against = forward(reading), forward(reading.flip(1)).flip(1)
    return torch.where(direction[:, None] >= 0, along, against)


def wafer_loss(
    loss: WaferLoss,
    told: tuple[Tensor, Tensor | None, Tensor | None],
    batch: dict[str, Tensor],
    full_scale: float,
    pitch_um: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The weighted sum of a recipe's terms, and each term by name.

    Args:
        loss: The recipe's section.
        told: Height and log sigma [full scale], logits of the classes.
        batch: `image` `b c h w`; `truth` `b 1 h w`, NaN where there is none; `kinds` `b p q`, -1 where there is none;
            `dense` `b`, whether the dense truth of a field may be used; `track` `b w`, NaN where not known [full
            scale]; `direction` `b`; `seen` `b 1 h w`, pixels of the image.
        full_scale: Height that stands for 1 [unit]
        pitch_um: Of the columns [um]
    """
    height, log_sigma, logits = told
    truth = batch["truth"]
    where = torch.isfinite(truth) & batch["dense"][:, None, None, None]
    if loss.mask_zero:
        where &= truth > 0
    filled = torch.nan_to_num(truth)
    terms: dict[str, tuple[float, Tensor]] = {}
    if where.any():
        terms["pixel"] = (1.0, pixel_loss(loss.pixel, height, filled, where))
        if loss.sigma_weight and log_sigma is not None:
            terms["sigma"] = (loss.sigma_weight, laplace_nll(height, log_sigma, filled, where))
        kinds = batch["kinds"]
        known = (kinds >= 0) & batch["dense"][:, None, None]
        if loss.class_weight and logits is not None and known.any():
            terms["classes"] = (loss.class_weight, class_loss(logits, kinds.clamp(min=0), known))
    if loss.supervision != "dense":
        known_columns = torch.isfinite(batch["track"])
        if known_columns.any():
            error = track_error(loss.sensor, height, batch, full_scale, pitch_um)
            terms["track"] = (loss.track_weight, error.mean())
            terms["range"] = (loss.track_weight, beyond_range(height, batch["seen"]))
            if loss.bound_weight:
                beyond = beyond_reading(loss.sensor, height, batch, pitch_um, loss.short_share)
                terms["bound"] = (loss.bound_weight, beyond)
            if loss.sigma_weight and log_sigma is not None and "sigma" not in terms:
                terms["sigma"] = (loss.sigma_weight, track_nll(error, log_sigma, known_columns))
    if not terms:  # nothing is known of any field of this batch
        return 0.0 * height.sum(), {}
    total = torch.stack([weight * term for weight, term in terms.values()]).sum()
    return total, {name: term.detach() for name, (_, term) in terms.items()}


def track_error(
    sensor: AfSensor, height: Map, batch: dict[str, Tensor], full_scale: float, pitch_um: float
) -> Float[Tensor, " n"]:
    """Absolute errors of what the sensor would read, at the columns where it did read [full scale]"""
    reading = column_reading(height, batch["image"], sensor, full_scale, batch["seen"])
    expected = lagged(reading, sensor.lag_um / pitch_um, batch["direction"])
    known = torch.isfinite(batch["track"])
    return (expected - torch.nan_to_num(batch["track"]))[known].abs()


def beyond_range(height: Map, seen: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """How far heights lie outside `RANGE` on average.

    A soft maximum does not feel how deep the rest of its column lies: without this the deep runs away.
    """
    low, high = RANGE
    each = torch.relu(low - height) + torch.relu(height - high)
    return (each * seen).sum() / seen.sum().clamp(min=1)


def beyond_reading(
    sensor: AfSensor, height: Map, batch: dict[str, Tensor], pitch_um: float, short_share: float
) -> Float[Tensor, ""]:
    """How far heights lie above what was read of their column, and, weighing less, how far below.

    A reading is near the highest surface of its column: no pixel lies above it, and some lie below. So of all pixels
    that look alike, the reading of their columns is an upper bound, and it is reached where there is nothing higher: a
    low quantile of it is their height. Unlike the sensor's soft maximum this tells every pixel something.

    Source: Koenker, Bassett, "Regression quantiles", Econometrica 46 (1978) 33, for a loss that weighs both sides
    differently.

    Args:
        sensor: Its share of the mean lets the highest surface lie above the reading.
        height: Of each pixel [full scale]
        batch: As `wafer_loss` takes it.
        pitch_um: Of the columns [um]
        short_share: Weight of what lies below the reading, where that of what lies above is 1.
    """
    top = unlagged(batch["track"], sensor.lag_um / pitch_um, batch["direction"])
    known = torch.isfinite(top)
    top = torch.nan_to_num(top)
    pooled = torch.nn.functional.max_pool1d(top[:, None], BOUND_COLUMNS, 1, BOUND_COLUMNS // 2)[:, 0]
    lowest = -torch.nn.functional.max_pool1d(-top[:, None], BOUND_COLUMNS, 1, BOUND_COLUMNS // 2)[:, 0]
    high = (pooled / (1 - sensor.mean_share)).clamp(min=pooled)[:, None, None]
    low = lowest[:, None, None]
    each = torch.relu(height - high) + short_share * torch.relu(low - height)
    where = batch["seen"] & known[:, None, None]
    return (each * where).sum() / where.sum().clamp(min=1)


def unlagged(track: Float[Tensor, "b w"], lag_columns: float, direction: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
    """What the sensor would have read without its low-pass of first order; not known where a neighbour is not.

    Args:
        track: One value a column, NaN where not known.
        lag_columns: Length of the low-pass [columns]
        direction: 1 along +x, -1 against it.
    """
    if lag_columns <= 0:
        return track
    keep = math.exp(-1 / lag_columns)

    def forward(values: Tensor) -> Tensor:
        before = torch.cat([values[:, :1], values[:, :-1]], dim=1)
        return (values - keep * before) / (1 - keep)

    return torch.where(direction[:, None] >= 0, forward(track), forward(track.flip(1)).flip(1))


def track_nll(error: Float[Tensor, " n"], log_sigma: Map, known_columns: Bool[Tensor, "b w"]) -> Float[Tensor, ""]:
    """Likelihood of the track's error under the mean sigma of its column: all that a track can tell about sigma."""
    spread = log_sigma.mean(dim=2)[:, 0][known_columns]
    return (error.detach() * torch.exp(-spread) + spread).mean()
