"""Where an objective has to stand to see a surface in focus, and how high it has to stay to touch nothing.

The fields of an objective tile a height map. In each, the heights of the wanted layer are compared with the depth of
focus: within it, one position sees all of them; beyond it, a stack of positions does. The height that is safe comes
from the upper bound of the heights, over everything that lies under the body of the objective and not only under its
field. What the map does not tell is never guessed: such fields are refused, and say why.

Source: depth of focus after S. Inoué, K. R. Spring, "Video Microscopy" (1997): the waves' part, wavelength / NA², and
the camera's part, pixel / (magnification NA); both are whole depths, not half of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from waferlens.errors import UsageError
from waferlens.records import Die

CAMERA_PIXEL_UM = 6.4566
"""Pixel of S0's camera: 5 times its 1.2913298 um on the wafer [um]"""
CAMERA_PX = 4342
"""Rows, and columns of a field, of S0's camera [px]"""
CLEAR_UM = 12.0
"""Left out along the edges of a layer [um]"""
BODY_RADIUS_UM = 15_000.0
"""Radius of the front of an objective, all of which must stay clear [um]"""

Layer = Literal["all", "top", "carrier"] | int
"""What is to be in focus: every height; the top level of each die; what lies between dies; the level of a number, the
lowest being 0. All but the first need the dies."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What of an objective matters here. Its working distance is the user's to tell."""

    magnification: float
    na: float


OBJECTIVES = {
    "5x": Objective(5.0, 0.14),
    "10x": Objective(10.0, 0.28),
    "20x": Objective(20.0, 0.42),
    "35x": Objective(35.0, 0.50),
}
"""The objectives of the station."""


@dataclass(frozen=True, slots=True)
class PlannedField:
    """One field of the objective."""

    box_um: tuple[float, float, float, float]
    """x0 y0 x1 y1 from the outer edge of the map's first pixel [um]"""
    state: Literal["single", "stack", "no layer", "no data"]
    """One position, several, nothing of the layer in it, or nothing known in it."""
    target_um: float | None
    """Median height of the layer [um]"""
    low_um: float | None
    """Lower end of the layer's heights that are to be in focus [um]"""
    high_um: float | None
    """Upper end [um]"""
    slices_um: tuple[float, ...]
    """Heights of the plane of focus, rising [um]"""
    sigma_um: float | None
    """Median standard deviation of the layer's heights [um]"""
    missing: float
    """Share of the field without a height."""
    safe_um: float | None
    """Lowest height above the carrier that the front of the objective may have here; None where it is refused [um]"""
    flags: tuple[str, ...]
    """What to know before it is used; empty where nothing stands against it."""


@dataclass(frozen=True, slots=True)
class FocusPlan:
    """All fields of an objective over a map, row by row."""

    magnification: float
    na: float
    depth_of_focus_um: float
    field_um: tuple[float, float]
    """Width and height of a field [um]"""
    layer: Layer
    coverage: float
    """Of the interval whose upper end is the upper bound of a height."""
    sigmas: float
    """How many sigma the bound lies above the height."""
    clearance_um: float
    fields: tuple[PlannedField, ...]

    @property
    def positions(self) -> int:
        """Positions of focus of all fields together."""
        return sum(len(field.slices_um) for field in self.fields)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a field, as a table holds it; slices are joined by semicolons."""
        rows = []
        for number, field in enumerate(self.fields):
            row: dict[str, Any] = {"field": number}
            row |= dict(zip(("x0_um", "y0_um", "x1_um", "y1_um"), field.box_um, strict=True))
            told = asdict(field)
            row |= {name: told[name] for name in ("state", "target_um", "low_um", "high_um")}
            row["slices"] = len(field.slices_um)
            row["slices_um"] = ";".join(f"{z:.3f}" for z in field.slices_um)
            row |= {name: told[name] for name in ("sigma_um", "missing", "safe_um")}
            row["flags"] = "; ".join(field.flags)
            rows.append(row)
        return rows

    def as_json(self) -> dict[str, Any]:
        """The plan as a dictionary that JSON can hold."""
        return asdict(self)


def depth_of_focus_um(
    magnification: float, na: float, *, wavelength_um: float = 0.55, camera_pixel_um: float = CAMERA_PIXEL_UM
) -> float:
    """Whole depth over which a surface is in focus, in air [um]

    Args:
        magnification: of the objective
        na: its numerical aperture
        wavelength_um: of the light [um]
        camera_pixel_um: pixel of the camera, not of the wafer [um]

    Raises:
        UsageError: a number is out of range.
    """
    if not 0 < na < 1:
        raise UsageError(f"na = {na:g} must lie between 0 and 1, in air")
    for name, value in (
        ("magnification", magnification),
        ("wavelength_um", wavelength_um),
        ("camera_pixel_um", camera_pixel_um),
    ):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} = {value:g} must be positive")
    return wavelength_um / na**2 + camera_pixel_um / (magnification * na)


def slice_positions(low_um: float, high_um: float, depth_um: float, *, overlap: float = 0.0) -> tuple[float, ...]:
    """Fewest planes of focus, evenly spaced, that together see everything between two heights.

    Args:
        low_um: lower end [um]
        high_um: upper end [um]
        depth_um: depth of focus of each [um]
        overlap: share of the depth that neighbours must have in common.
    """
    extent = high_um - low_um
    # a ratio that is whole but for rounding needs no further plane
    further = math.ceil((extent - depth_um) / (depth_um * (1 - overlap)) - 1e-9)
    if further <= 0:
        return (0.5 * (low_um + high_um),)
    return tuple(float(z) for z in np.linspace(low_um + 0.5 * depth_um, high_um - 0.5 * depth_um, further + 1))


def focus_plan(
    height_um: Float[np.ndarray, "h w"],
    sigma_um: Float[np.ndarray, "h w"] | None,
    pitch_um: float,
    *,
    magnification: float,
    na: float,
    wavelength_um: float = 0.55,
    camera_pixel_um: float = CAMERA_PIXEL_UM,
    field_um: tuple[float, float] | None = None,
    layer: Layer = "all",
    dies: Sequence[Die] | None = None,
    clearance_um: float = 50.0,
    coverage: float = 0.9,
    sigmas: float | None = None,
    share: float = 0.98,
    slice_overlap: float = 0.0,
    field_overlap: float = 0.0,
    body_radius_um: float = BODY_RADIUS_UM,
    working_distance_um: float | None = None,
) -> FocusPlan:
    """Plans the focus of an objective over a height map.

    Args:
        height_um: above the carrier, NaN where not known [um]
        sigma_um: standard deviation of each height; without it no upper bound is known, and every field says so [um]
        pitch_um: distance of neighbouring pixels [um]
        magnification: of the objective
        na: its numerical aperture
        wavelength_um: of the light [um]
        camera_pixel_um: pixel of the camera [um]
        field_um: width and height of a field; None for S0's camera [um]
        layer: what is to be in focus
        dies: sites of the die map, for every layer but `all`
        clearance_um: distance kept above the upper bound of the highest place [um]
        coverage: of the two-sided interval whose upper end is that bound, were errors Gaussian
        sigmas: how many sigma the bound lies above the height, from a calibration; takes the place of coverage
        share: middle share of the layer's heights that is to be in focus; what is left out are spikes and edges
        slice_overlap: share of the depth of focus that neighbouring slices have in common
        field_overlap: share of a field that neighbours have at least in common
        body_radius_um: radius of the front of the objective [um]
        working_distance_um: from its front to its plane of focus; with it, fields whose lowest slice would bring the
            front below the safe height are told [um]

    Raises:
        UsageError: shapes differ, a number is out of range, or a layer needs dies.
    """
    _require(height_um, sigma_um, pitch_um, dies, layer)
    for name, value, low, high in (
        ("coverage", coverage, 0.0, 1.0),
        ("share", share, 0.0, 1.0 + 1e-12),
        ("slice_overlap", slice_overlap, -1e-12, 1.0),
        ("field_overlap", field_overlap, -1e-12, 1.0),
    ):
        if not low < value < high:
            raise UsageError(f"{name} = {value:g} must be a share between 0 and 1")
    for name, value in (("clearance_um", clearance_um), ("body_radius_um", body_radius_um), ("sigmas", sigmas or 0.0)):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} = {value:g} must be 0 or positive")
    depth = depth_of_focus_um(magnification, na, wavelength_um=wavelength_um, camera_pixel_um=camera_pixel_um)
    if field_um is None:
        field_um = (CAMERA_PX * camera_pixel_um / magnification,) * 2
    if not min(field_um) >= pitch_um:
        raise UsageError(f"field_um = {field_um} must be at least one pixel of the map, {pitch_um:g} um")
    if sigmas is None:
        sigmas = float(ndtri(0.5 * (1 + coverage)))
    h, w = height_um.shape
    boxes = [
        (x, y, x + wide, y + high)
        for y, high in _tiles(h * pitch_um, field_um[1], field_overlap)
        for x, wide in _tiles(w * pitch_um, field_um[0], field_overlap)
    ]
    known = np.isfinite(height_um) if sigma_um is None else np.isfinite(height_um) & np.isfinite(sigma_um)
    wanted = _layer_mask(layer, dies, (h, w), pitch_um)
    windows = [_window(box, (h, w), pitch_um) for box in boxes]
    highest, gaps = _bounds(height_um, sigma_um, sigmas, known, windows)
    safe, clear = _clearances(boxes, highest, gaps, body_radius_um, clearance_um, (w * pitch_um, h * pitch_um))
    fields = []
    for number, (box, window) in enumerate(zip(boxes, windows, strict=True)):
        flags = list(clear[number])
        if sigma_um is None:
            flags.append("no sigma: the safe height is from the heights alone, which is no bound")
        inside = known[window] if wanted is None else known[window] & wanted[window]
        missing = float(gaps[number])
        if not inside.any():
            state: Literal["no layer", "no data"] = "no data" if missing == 1.0 else "no layer"
            fields.append(PlannedField(box, state, None, None, None, (), None, missing, safe[number], tuple(flags)))
            continue
        heights = height_um[window][inside].astype(np.float64)
        low, target, high = (float(z) for z in np.quantile(heights, (0.5 - 0.5 * share, 0.5, 0.5 + 0.5 * share)))
        slices = slice_positions(low, high, depth, overlap=slice_overlap)
        if len(slices) == 1:
            # at the median, but so that both ends stay in focus
            slices = (min(max(target, high - 0.5 * depth), low + 0.5 * depth),)
        spread = None
        if sigma_um is not None:
            spread = float(np.median(sigma_um[window][inside]))
            if sigmas * spread > 0.5 * depth:
                flags.append(
                    f"heights are known to {sigmas * spread:.3g} um only: focus may miss by more than its depth"
                )
        if missing > 0:
            flags.append(f"{100 * missing:.3g} % of the field has no height")
        if working_distance_um is not None and safe[number] is not None:
            lowest = slices[0] + working_distance_um
            if lowest < safe[number]:
                flags.append(
                    f"refused: the front would stand at {lowest:.4g} um, the safe height is {safe[number]:.4g}"
                )
        kind: Literal["single", "stack"] = "single" if len(slices) == 1 else "stack"
        fields.append(PlannedField(box, kind, target, low, high, slices, spread, missing, safe[number], tuple(flags)))
    return FocusPlan(magnification, na, depth, field_um, layer, coverage, sigmas, clearance_um, tuple(fields))


def _require(
    height_um: np.ndarray, sigma_um: np.ndarray | None, pitch_um: float, dies: Sequence[Die] | None, layer: Layer
) -> None:
    if height_um.ndim != 2 or 0 in height_um.shape:
        raise UsageError(f"height_um has shape {height_um.shape}; a map has rows and columns")
    if sigma_um is not None and sigma_um.shape != height_um.shape:
        raise UsageError(f"sigma_um has shape {sigma_um.shape}, height_um {height_um.shape}; they must be alike")
    if not (math.isfinite(pitch_um) and pitch_um > 0):
        raise UsageError(f"pitch_um = {pitch_um:g} must be positive")
    if isinstance(layer, int) and layer < 0:
        raise UsageError(f"layer = {layer}: levels are counted from 0, the lowest")
    if not isinstance(layer, int) and layer not in ("all", "top", "carrier"):
        raise UsageError(f"layer = '{layer}' is unknown; all, top, carrier, or the number of a level")
    if layer != "all" and dies is None:
        raise UsageError(f"layer = {layer!r} needs the dies: only they tell it from the rest; or take layer = 'all'")


def _tiles(extent: float, field: float, overlap: float) -> list[tuple[float, float]]:
    """Starts and lengths of fields along one axis; they reach from end to end, or one covers all of it."""
    if field >= extent:
        return [(0.0, extent)]
    count = math.ceil((extent - field) / (field * (1 - overlap)) - 1e-9) + 1
    return [(float(start), field) for start in np.linspace(0, extent - field, count)]


def _window(box: tuple[float, float, float, float], shape: tuple[int, int], pitch: float) -> tuple[slice, slice]:
    """The pixels a box touches."""
    x0, y0, x1, y1 = (edge / pitch for edge in box)
    rows = slice(max(0, math.floor(y0 + 1e-6)), min(shape[0], math.ceil(y1 - 1e-6)))
    return rows, slice(max(0, math.floor(x0 + 1e-6)), min(shape[1], math.ceil(x1 - 1e-6)))


def _layer_mask(
    layer: Layer, dies: Sequence[Die] | None, shape: tuple[int, int], pitch: float
) -> Bool[np.ndarray, "h w"] | None:
    """The pixels well inside the layer, for those at its edges are of two heights; None for all."""
    if layer == "all":
        return None
    mask = np.full(shape, layer == "carrier")
    for die in dies or ():
        if layer == "carrier":
            if die.state != "missing":  # what may be a die is not carrier
                mask[_window(_grown(die.box_um, CLEAR_UM), shape, pitch)] = False
            continue
        if die.state != "present":
            continue
        if layer == "top" and die.top_um is None:
            continue  # a part of a die that does not show its top
        levels = die.levels or ((*die.box_um, die.top_um or 0.0),)
        number = len(levels) - 1 if layer == "top" else int(layer)
        if number >= len(levels):
            continue
        mask[_inner(_grown(levels[number][:4], -CLEAR_UM), shape, pitch)] = True
        if number + 1 < len(levels):  # the next level stands on this one
            mask[_window(_grown(levels[number + 1][:4], CLEAR_UM), shape, pitch)] = False
    return mask


def _grown(box: tuple[float, float, float, float], by_um: float) -> tuple[float, float, float, float]:
    return box[0] - by_um, box[1] - by_um, box[2] + by_um, box[3] + by_um


def _inner(box: tuple[float, ...], shape: tuple[int, int], pitch: float) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (edge / pitch for edge in box)
    rows = slice(max(0, math.ceil(y0 - 1e-6)), max(0, min(shape[0], math.floor(y1 + 1e-6))))
    return rows, slice(max(0, math.ceil(x0 - 1e-6)), max(0, min(shape[1], math.floor(x1 + 1e-6))))


def _bounds(
    height_um: np.ndarray,
    sigma_um: np.ndarray | None,
    sigmas: float,
    known: np.ndarray,
    windows: list[tuple[slice, slice]],
) -> tuple[np.ndarray, np.ndarray]:
    """Of each field the highest upper bound, and the share that has no height."""
    highest = np.full(len(windows), -math.inf)
    gaps = np.empty(len(windows))
    for number, window in enumerate(windows):
        inside = known[window]
        gaps[number] = 1 - inside.mean()
        if not inside.any():
            continue
        upper = height_um[window].astype(np.float64)
        if sigma_um is not None:
            upper = upper + sigmas * sigma_um[window]
        highest[number] = upper[inside].max()
    return highest, gaps


def _clearances(
    boxes: list[tuple[float, float, float, float]],
    highest: np.ndarray,
    gaps: np.ndarray,
    radius: float,
    clearance: float,
    extent: tuple[float, float],
) -> tuple[list[float | None], list[list[str]]]:
    """The safe height of each field, over all fields its body may touch while it moves through this one."""
    edges = np.array(boxes)
    safe: list[float | None] = []
    flags: list[list[str]] = []
    for x0, y0, x1, y1 in boxes:
        away_x = np.maximum(np.maximum(edges[:, 0] - x1, x0 - edges[:, 2]), 0)
        away_y = np.maximum(np.maximum(edges[:, 1] - y1, y0 - edges[:, 3]), 0)
        under = np.hypot(away_x, away_y) <= radius
        told = []
        if (gaps[under] > 0).any():
            told.append(f"refused: no safe height, {int((gaps[under] > 0).sum())} fields under the objective have gaps")
        if x0 < radius or y0 < radius or x1 > extent[0] - radius or y1 > extent[1] - radius:
            told.append("the objective reaches beyond the map, whose heights are all that the safe height knows")
        safe.append(None if told and told[0].startswith("refused") else float(highest[under].max()) + clearance)
        flags.append(told)
    return safe, flags
