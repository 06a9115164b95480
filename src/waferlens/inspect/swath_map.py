"""The map of a swath: its image on the network's grid, the network tile by tile, the tiles faded into one another.

The image is read once, in the order of its file, and averaged over areas of the grid: of a billion pixels 25 million
remain, and they fit into memory. A tile takes all rows of the swath, for the track is the highest of a column; along
the scan neighbouring tiles overlap, and where they do each counts the less the nearer its end is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
from jaxtyping import Float32, UInt8

from waferlens.bundle.wafer import MULTIPLE_PX, WaferSession
from waferlens.errors import FormatError
from waferlens.formats.swath import open_swath
from waferlens.inspect.swath_facts import ColumnTrack, SwathFacts, read_columns
from waferlens.ops.area import AreaSums
from waferlens.prepare.wafer_input import grid, shown

TILE_PX, OVERLAP_PX = 1024, 96
"""Columns of a tile, and how far a tile reaches beyond the middle of the fading, both multiples of `MULTIPLE_PX`"""
MOST_TILE_PX = 1_500_000
"""Pixels of a tile; images with more rows take narrower tiles"""
NARROWEST_TILE_PX = 384
OFF_WAFER_UM = 1000.0
"""The trace says where the wafer ends if nothing came back over this length at an end of the scan [um]"""
DARK = 0.018
"""Columns at an end of the scan whose median is darker show no wafer [share of white]"""
UNKNOWN = 255
"""Class of a pixel beyond the wafer."""


@dataclass(frozen=True, slots=True, eq=False)
class SwathMap:
    """A map with what it was made from, all on one grid."""

    image: Float32[np.ndarray, "h w"]
    """0 black .. 1 white."""
    height_um: Float32[np.ndarray, "h w"]
    """Above the carrier, positive up; NaN beyond the wafer [um]"""
    sigma_um: Float32[np.ndarray, "h w"] | None
    """One standard deviation; None if the network tells none [um]"""
    shares: Float32[np.ndarray, "3 h w"] | None
    """Of `bundle.wafer.CLASSES`."""
    pitch_um: float
    x0_um: float
    """Outer edge of the first column on the stage, or in the image where the stage is not known [um]"""
    y0_um: float
    columns: ColumnTrack | None
    inputs: tuple[str, ...]
    """What the network was told."""
    image_px: tuple[int, int]
    """Rows and columns of the image that was read [px]"""

    @property
    def kinds(self) -> UInt8[np.ndarray, "h w"] | None:
        """The most likely class of each pixel, `UNKNOWN` beyond the wafer."""
        if self.shares is None:
            return None
        kinds = self.shares.argmax(axis=0).astype(np.uint8)
        kinds[~np.isfinite(self.height_um)] = UNKNOWN
        return kinds


def swath_map(
    path: str,
    facts: SwathFacts,
    session: WaferSession,
    lock: Lock,
    advance: Callable[[float], None] | None = None,
) -> SwathMap:
    """The map of one swath or field.

    Args:
        path: Of its image.
        facts: What is known of it.
        session: The network.
        lock: Held while the network runs: it uses all cores by itself.
        advance: Called with the share of the network's work that is done.

    Raises:
        InputError: image or trace cannot be used.
    """
    image, pitch, start, image_px = _on_grid(path, facts, session)
    h, w = image.shape
    columns = read_columns(facts, image_px[1], pitch, w, start[0])
    known = [name for name in session.known if _is_known(name, facts, columns)]
    made = _Faded(h, w)
    for first, last, weight in _tiles(h, w, session):
        part = slice(first, last)
        with lock:
            told = session.predict(
                image[:, part],
                objective_z_um=None if columns is None or columns.objective_z_um is None
                else columns.objective_z_um[part],
                track_z_um=None if columns is None else columns.track_z_um[part],
                product=facts.product,
                direction=1 if columns is None else columns.direction,
            )  # fmt: skip
        made.add(part, weight, told.height_um, told.sigma_um, told.classes)
        if advance is not None:
            advance(last / w)
    off = _off_wafer(image, columns, pitch)
    made.height[:, off] = np.nan
    if made.sigma is not None:
        made.sigma[:, off] = np.nan
    if made.shares is not None:
        made.shares[:, :, off] = np.nan
    x0, y0 = facts.stage_um or (0.0, 0.0)
    return SwathMap(
        image, made.height, made.sigma, made.shares, pitch, x0 + start[0], y0 + start[1], columns,
        ("image", *known), image_px,
    )  # fmt: skip


def _is_known(name: str, facts: SwathFacts, columns: ColumnTrack | None) -> bool:
    if name == "product":
        return facts.product is not None
    return columns is not None and (name == "track" or columns.objective_z_um is not None)


def _on_grid(
    path: str, facts: SwathFacts, session: WaferSession
) -> tuple[Float32[np.ndarray, "h w"], float, tuple[float, float], tuple[int, int]]:
    """The image on the network's grid, its pitch, where the grid begins in the image, and the image's size.

    On the stage the grid's lines lie at multiples of its pitch, so that swaths lie on one another without resampling.
    """
    with open_swath(path) as opened:
        h, w = opened.shape
        pitch = session.pitch_um
        ratio = None if pitch is None else pitch / facts.pitch_um
        if pitch is not None and session.size_px is None and ratio is not None and ratio > 1 - 1e-3:
            if ratio < 1 + 1e-3:  # the pitch is that of the network, but for digits
                pitch, ratio = facts.pitch_um, 1.0
            start = (0.0, 0.0) if facts.stage_um is None else tuple((-place) % pitch for place in facts.stage_um)
            rows, columns = (
                grid(count - begin / facts.pitch_um, facts.pitch_um, pitch)
                for count, begin in ((h, start[1]), (w, start[0]))
            )
            sums = AreaSums((h, w), ratio, (start[1] / facts.pitch_um, start[0] / facts.pitch_um), (rows, columns))
            for part, row, column in opened.parts:
                sums.add(part, row, column)
            image = sums.mean() * np.float32(1 / opened.white)
        else:
            whole = np.empty((h, w), opened.dtype)
            for part, row, column in opened.parts:
                inside = whole[row : row + part.shape[0], column : column + part.shape[1]]
                inside[...] = part[: inside.shape[0], : inside.shape[1]]
            seen = shown(
                whole, facts.pitch_um, None, network_pitch_um=pitch, size_px=session.size_px, full_scale=opened.white
            )
            image, pitch, start = seen.image, seen.pitch_um, (0.0, 0.0)
            if abs(image.shape[0] / image.shape[1] * w / h - 1) > 0.01:
                size = f"{image.shape[1]}x{image.shape[0]}"
                raise FormatError(path, f"is {w}x{h} px; this network takes whole fields, scaled to {size} px")
    if not np.isfinite(image).all():
        raise FormatError(path, "holds NaN or infinite grey values, or is smaller than one pixel of the network")
    return image, float(pitch), (float(start[0]), float(start[1])), (h, w)


def _tiles(h: int, w: int, session: WaferSession) -> list[tuple[int, int, Float32[np.ndarray, " n"]]]:
    """First and last column of each tile, and how much each of its columns counts."""
    if session.size_px is not None:
        return [(0, w, np.ones(w, np.float32))]
    wide = min(TILE_PX, max(NARROWEST_TILE_PX, MOST_TILE_PX // h // MULTIPLE_PX * MULTIPLE_PX))
    if w <= wide:
        return [(0, w, np.ones(w, np.float32))]
    step = wide - 2 * OVERLAP_PX
    bounds = list(range(step + OVERLAP_PX, w - OVERLAP_PX, step))  # middles of the fadings
    tiles = []
    for low, high in zip([None, *bounds], [*bounds, None], strict=True):
        last = w if high is None else high + OVERLAP_PX
        # the last tile is as wide as the others: a network that never saw narrow images is shown none
        first = 0 if low is None else min(low - OVERLAP_PX, max(0, (w - wide) // MULTIPLE_PX * MULTIPLE_PX))
        place = np.arange(first, last) + 0.5
        weight = np.ones(last - first)
        if low is not None:
            weight *= np.clip(0.5 + (place - low) / (2 * OVERLAP_PX), 0, 1)
        if high is not None:
            weight *= np.clip(0.5 + (high - place) / (2 * OVERLAP_PX), 0, 1)
        tiles.append((first, last, weight.astype(np.float32)))
    return tiles


class _Faded:
    """Sums of tiles, each column weighted; the weights of a column add up to one."""

    def __init__(self, h: int, w: int) -> None:
        self.height = np.zeros((h, w), np.float32)
        self.sigma: np.ndarray | None = None
        self.shares: np.ndarray | None = None

    def add(
        self, part: slice, weight: np.ndarray, height: np.ndarray, sigma: np.ndarray | None, shares: np.ndarray | None
    ) -> None:
        self.height[:, part] += weight * height
        if sigma is not None:
            self.sigma = np.zeros_like(self.height) if self.sigma is None else self.sigma
            self.sigma[:, part] += weight * sigma
        if shares is not None:
            self.shares = np.zeros((3, *self.height.shape), np.float32) if self.shares is None else self.shares
            self.shares[:, :, part] += weight * shares


def _off_wafer(image: Float32[np.ndarray, "h w"], columns: ColumnTrack | None, pitch_um: float) -> np.ndarray:
    """Columns at the ends of the scan that lie beyond the wafer: nothing came back, or nothing is seen."""
    w = image.shape[1]
    off = np.zeros(w, bool)
    silent = None if columns is None else ~np.isfinite(columns.track_z_um)
    dark = np.median(image[:: max(1, image.shape[0] // 64)], axis=0) < DARK
    for state, least in ((silent, OFF_WAFER_UM), (dark, OFF_WAFER_UM)):
        if state is None or not state.any():
            continue
        seen = np.flatnonzero(~state)
        left, right = (seen[0], w - 1 - seen[-1]) if len(seen) else (w, 0)
        if left * pitch_um >= least:
            off[:left] = True
        if right * pitch_um >= least:
            off[w - right :] = True
    return off
