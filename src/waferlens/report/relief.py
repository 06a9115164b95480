"""A map seen from above and aside: a shaded surface, drawn once and without seams.

Parallel projection, so that lengths along either side can be compared. Each column of the picture is a cut through the
surface; the silhouette that rises from the front to the back says which point of the cut is seen at each height of the
picture, and between two points the surface is straight. What stands behind is thus hidden and nothing is left open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from waferlens.report import pictures

TURN_DEG, LOOK_DOWN_DEG = 28.0, 38.0
"""How far the map is turned, and from how high above its plane it is seen [deg]"""
SIZE_PX = 1240
"""Width the surface is drawn at; the picture is half of it [px]"""
RISE = 0.2
"""Of the shorter side: what the range of heights may at most look like."""
LEAST_RANGE = 0.35
"""Of the colours' range: a map whose heights span less is drawn as if they spanned this much, and looks flat."""
_EXAGGERATIONS = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
_LIGHT = np.array([-0.55, -0.45, 0.9]) / math.sqrt(0.55**2 + 0.45**2 + 0.9**2)
"""From the left, the front and above: along the picture, into it, up."""
_AMBIENT = 0.38
_SIDE, _NOTHING = (134, 141, 149), (150, 150, 150)  # the cut through the wafer; what is not known


@dataclass(frozen=True, slots=True)
class Relief:
    """A surface as it is drawn."""

    picture: str
    """Inline address."""
    width: int
    """[px]"""
    height: int
    """[px]"""
    exaggeration: int
    """How many times higher than it is."""
    left: tuple[float, float]
    """Where the corners at the foot stand in the picture: left, front, right [px]"""
    front: tuple[float, float]
    right: tuple[float, float]
    rise_px_per_um: float
    """How much of the picture 1 um of height takes."""


def draw(heights_um: Float[np.ndarray, "h w"], pitch_um: float, scale: pictures.Scale) -> Relief | None:
    """Draws a map; None where nothing of it is known.

    Args:
        heights_um: NaN where it is not known [um]
        pitch_um: of its pixels [um]
        scale: the colours of the heights; what lies far beyond it is drawn at its end.
    """
    known = np.isfinite(heights_um)
    if not known.any():
        return None
    low, high = pictures.span(heights_um, 0.5)
    foot = min(low, scale.low)
    heights = np.where(known, np.clip(heights_um, low - 0.1 * (high - low), high + 0.25 * (high - low)), foot)
    h, w = heights.shape
    turn, look = math.radians(TURN_DEG), math.radians(LOOK_DOWN_DEG)
    across, deep = w * math.cos(turn) + h * math.sin(turn), w * math.sin(turn) + h * math.cos(turn)
    fine = SIZE_PX / across  # pixels of the picture to one of the map
    range_px = max(high - foot, LEAST_RANGE * (scale.high - scale.low), 1e-9) / pitch_um
    most = RISE * min(h, w) / range_px
    exaggeration = max((one for one in _EXAGGERATIONS if one <= most), default=1)
    turned, inside = _turned(heights, known, turn, fine, (math.ceil(deep * fine), SIZE_PX))
    rise = exaggeration * fine / pitch_um  # of a height of 1 um, before it is looked down upon
    surface = (turned[0] - foot) * rise
    along = np.arange(len(surface))[:, np.newaxis] * math.sin(look) + surface * math.cos(look)
    high_px = math.ceil(float(along[inside].max())) + 2
    drawn = _seen(along, surface, turned, inside, foot, rise, high_px, scale, w * math.cos(turn) * fine)
    picture = _halved(drawn)
    feet = {}
    for name, (x, y) in {"left": (0, h), "front": (w, h), "right": (w, 0)}.items():
        u = x * math.cos(turn) + (h - y) * math.sin(turn)
        v = (w - x) * math.sin(turn) + (h - y) * math.cos(turn)
        feet[name] = (0.5 * u * fine, 0.5 * (high_px - v * fine * math.sin(look)))
    return Relief(
        pictures.packed(picture, 88), picture.shape[1], picture.shape[0], exaggeration, feet["left"], feet["front"],
        feet["right"], 0.5 * rise * math.cos(look),
    )  # fmt: skip


def _turned(
    heights: np.ndarray, known: np.ndarray, turn: float, fine: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Heights and how much of them is known on lines from the front to the back, and which points lie in the map."""
    h, w = heights.shape
    v, u = np.meshgrid((np.arange(size[0]) + 0.5) / fine, (np.arange(size[1]) + 0.5) / fine, indexing="ij")
    u -= h * math.sin(turn)
    v -= w * math.sin(turn) + h * math.cos(turn)
    x = u * math.cos(turn) - v * math.sin(turn)
    y = -u * math.sin(turn) - v * math.cos(turn)
    inside = (x >= 0) & (x <= w) & (y >= 0) & (y <= h)
    at = ((x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32))
    made = [
        cv2.remap(one.astype(np.float32), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for one in (heights, known)
    ]
    return np.stack(made).astype(np.float64), inside


def _seen(
    along: np.ndarray,
    surface: np.ndarray,
    turned: np.ndarray,
    inside: np.ndarray,
    foot: float,
    rise: float,
    high_px: int,
    scale: pictures.Scale,
    corner: float,
) -> UInt8[np.ndarray, "p q 4"]:
    """The picture: blue, green, red and how opaque, bottom row last."""
    gv, gu = np.gradient(surface)
    light = _LIGHT[2] - gu * _LIGHT[0] - gv * _LIGHT[1]
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(light / np.sqrt(1 + gu**2 + gv**2), 0, 1)
    colours = pictures.palette(scale.colours).astype(np.float64)
    steps = len(colours) - 1
    out = np.zeros((high_px, along.shape[1], 4), np.uint8)
    levels = np.arange(high_px) + 0.5
    for column in range(along.shape[1]):
        places = np.flatnonzero(inside[:, column])
        if not len(places):
            continue
        cut = along[places, column]
        sill = cut[0] - (turned[0][places[0], column] - foot) * rise * math.cos(math.radians(LOOK_DOWN_DEG))
        point = np.searchsorted(np.maximum.accumulate(cut), levels)
        shown = (levels >= sill) & (point < len(cut))
        point = point[shown]
        before = np.maximum(point - 1, 0)
        share = np.clip((levels[shown] - cut[before]) / np.maximum(cut[point] - cut[before], 1e-9), 0, 1)

        def between(values: np.ndarray, share=share, point=point, before=before, places=places, column=column):
            here = values[places, column]
            return here[before] + share * (here[point] - here[before])

        place = np.clip((between(turned[0]) - scale.low) / (scale.high - scale.low or 1.0), 0, 1)
        colour = colours[np.rint(place * steps).astype(int)]
        colour = np.where(between(turned[1])[:, np.newaxis] < 0.5, _NOTHING, colour) * between(light)[:, np.newaxis]
        side = 1.0 if column < corner else 0.72
        colour = np.where((point == 0)[:, np.newaxis], np.multiply(_SIDE, side), colour)
        rows = high_px - 1 - np.flatnonzero(shown)
        out[rows, column, :3] = np.clip(colour[:, ::-1], 0, 255)
        out[rows, column, 3] = 255
    return out


def _halved(picture: np.ndarray) -> UInt8[np.ndarray, "p q 4"]:
    """Half the size, each pixel the mean of those that are there."""
    h, w = (side // 2 for side in picture.shape[:2])
    blocks = picture[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 4).astype(np.float64)
    opaque = blocks[..., 3:].sum(axis=(1, 3))
    colour = (blocks[..., :3] * blocks[..., 3:]).sum(axis=(1, 3)) / np.maximum(opaque, 1)
    return np.dstack([np.rint(colour), np.rint(opaque / 4)]).astype(np.uint8)
