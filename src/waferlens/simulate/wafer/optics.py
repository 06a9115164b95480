"""From a scene to the light on the camera: tilted surfaces, defocus layer by layer, and what is near hides what is far.

Order of operations: light that a tilted surface sends past the pupil is lost; then layers of like blur are laid over
one another from far to near, each blurred with its own transfer, each covering what lies behind it. Under a nearer
layer the colour of the farther one that it borders on is continued, so a step between two surfaces of one colour shows
no halo.

The grid's values are means over its pixels, so the pixel's own blur is in them already and none is added.

Source: overlap of pupils: the reasoning of Hopkins 1955 on tilted mirrors; layers: Kraus, Strengert, Computer Graphics
Forum 26 (2007) 645, without their halo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float32, Int16

from waferlens.simulate.wafer.otf import Lens, transfer

FIRST_PX = 0.5
"""Blur up to about this radius is one layer [px]"""
FIRST_UM = 0.65
"""Blur of the first layer of the finest grid; the layers of a coarser one begin at one of its layers [um]"""
RATIO = 1.35
"""Between the radii of neighbouring layers."""
LEAST_PX = 20
"""Layers of fewer pixels are given to a neighbour of like blur."""
MOST_STEPS = 2
"""How many layers away that neighbour may be."""
MARGIN_PX = 2
TILE_PX = 1024
"""Side of the tiles that a large image is blurred in [px]"""


def brightfield(tan_slope: np.ndarray, na: float) -> Float32[np.ndarray, "h w"]:
    """Share of the light that a tilted surface sends back into the pupil it came from.

    A surface tilted by alpha turns the light by 2 alpha; what comes back is the overlap of two pupils.

    Args:
        tan_slope: Tangent of the tilt.
        na: Numerical aperture.
    """
    u = np.sin(2.0 * np.arctan(tan_slope)) / (2.0 * na)
    u = np.where(tan_slope > 1.0, 1.0, np.clip(u, 0.0, 1.0))
    return ((2.0 / np.pi) * (np.arccos(u) - u * np.sqrt(1.0 - u * u))).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """What pixels on the edge of a surface see beside it: a part of them is farther away."""

    share: Float32[np.ndarray, "h w"]
    """Of each pixel, what the nearer surface covers; 1 off edges."""
    radiance: Float32[np.ndarray, "h w"]
    """Of the farther surface; told on edges only."""
    height_um: Float32[np.ndarray, "h w"]
    """Of the farther surface; told on edges only [um]"""


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """An image, or a part of it, as two surfaces a pixel with their layers."""

    over: Float32[np.ndarray, "h w"]
    under: Float32[np.ndarray, "h w"]
    share: Float32[np.ndarray, "h w"]
    over_layer: Int16[np.ndarray, "h w"]
    under_layer: Int16[np.ndarray, "h w"]
    """That of `over` off edges."""

    def part(self, window: tuple[slice, slice]) -> _View:
        return _View(*(getattr(self, name)[window] for name in self.__dataclass_fields__))

    def own(self, number: int) -> np.ndarray:
        return (self.over_layer == number) | (self.under_layer == number)

    def colour(self, number: int) -> Float32[np.ndarray, "h w"]:
        below = (self.under_layer == number) & (self.over_layer != number)
        return np.where(below, self.under, self.over)

    def cover(self, number: int) -> Float32[np.ndarray, "h w"]:
        """How much of each pixel hides what is behind a layer."""
        own, nearer = self.own(number), self.over_layer > number
        there = own | _hides(own, self.over_layer < number, nearer & ~own)
        return np.where(self.under_layer >= number, np.float32(1), self.share) * there


def defocused(
    radiance: Float32[np.ndarray, "h w"],
    height_um: Float32[np.ndarray, "h w"],
    focus_um: float | np.ndarray,
    pitch_um: float,
    lens: Lens,
    edges: Edges | None = None,
) -> Float32[np.ndarray, "h w"]:
    """The light on the camera.

    Args:
        radiance: Light each pixel sends into the lens; on edges the mean of both surfaces.
        height_um: Of each pixel; on edges of the nearer surface [um]
        focus_um: Height of the plane of focus, of the image or of each column [um]
        pitch_um: Of the grid [um]
        lens: The objective.
        edges: The farther surface of pixels on edges.
    """
    focus = np.broadcast_to(np.asarray(focus_um, np.float32), height_um.shape)
    residual = height_um - focus
    at = np.flatnonzero(edges.share < 1) if edges is not None else np.empty(0, np.intp)
    behind = edges.height_um.ravel()[at] - focus.ravel()[at] if edges is not None else np.empty(0, np.float32)
    view = _seen(radiance, residual, at, behind, edges, pitch_um, lens)
    out: np.ndarray | None = None
    for number in np.unique(np.append(view.over_layer, view.under_layer.ravel()[at])):
        nearer = np.abs(residual[view.over_layer == number])
        farther = np.abs(behind[view.under_layer.ravel()[at] == number])
        dz = float((nearer.sum(dtype=np.float64) + farther.sum(dtype=np.float64)) / (nearer.size + farther.size))
        radius = _radius_px(dz, pitch_um, lens)
        own = view.own(number)
        if out is None:
            out = _blurred(_continued(view.colour(number), own, radius), dz, pitch_um, lens)
            continue
        for window in _windows(own, _reach_px(dz, pitch_um, lens)):
            _lay(out, view, number, window, dz, pitch_um, lens)
    assert out is not None  # an image has a pixel
    return out


def _seen(
    radiance: Float32[np.ndarray, "h w"],
    residual: Float32[np.ndarray, "h w"],
    at: np.ndarray,
    behind: np.ndarray,
    edges: Edges | None,
    pitch_um: float,
    lens: Lens,
) -> _View:
    """An image as two surfaces a pixel: edges whose sides are of one layer are none."""
    slope = np.float32(math.tan(math.asin(lens.na)))
    layers = _layers(np.append(residual, behind) * slope, pitch_um)
    over_layer, under_at = layers[: residual.size].reshape(residual.shape), layers[residual.size :]
    if edges is None:
        return _View(radiance, radiance, np.ones_like(radiance), over_layer, over_layer)
    under_layer, over, share = over_layer.copy(), radiance.copy(), edges.share.copy()
    part, below = share.ravel()[at], edges.radiance.ravel()[at]
    apart = under_at != over_layer.ravel()[at]
    under_layer.ravel()[at] = under_at
    over.ravel()[at] = np.where(apart, (over.ravel()[at] - (1 - part) * below) / part, over.ravel()[at])
    share.ravel()[at] = np.where(apart, part, 1)
    return _View(over, edges.radiance, share, over_layer, under_layer)


def _layers(blur_um: Float32[np.ndarray, " n"], pitch_um: float) -> Int16[np.ndarray, " n"]:
    """The layer of each pixel by its signed radius of blur, the farthest first."""
    away = np.abs(blur_um)
    step = math.log(RATIO)
    first = FIRST_UM * RATIO ** max(0, math.floor(math.log(FIRST_PX * pitch_um / FIRST_UM) / step))
    number = np.ceil(np.log(np.maximum(away, first) / first) / step - 1e-4).astype(np.int16)
    number = np.where(blur_um < 0, -number, number)
    low = int(number.min())
    counts = np.bincount(number - low)
    target = np.arange(len(counts))
    for place in np.flatnonzero((counts > 0) & (counts < LEAST_PX)):
        full = np.flatnonzero(counts >= LEAST_PX)
        near = full[np.abs(full - place) <= MOST_STEPS]
        if len(near):
            # of two as near, the one nearer to focus
            target[place] = min(near, key=lambda other: (abs(other - place), abs(other + low)))
    return (target[number - low] + low).astype(np.int16)


def _radius_px(dz_um: float, pitch_um: float, lens: Lens) -> float:
    """Radius of the blur, waves included [px]"""
    waves = 0.61 * lens.wavelength_um / lens.na
    return math.hypot(float(lens.geometric_radius_um(dz_um)), waves) / pitch_um


def _reach_px(dz_um: float, pitch_um: float, lens: Lens) -> int:
    """How far a pixel's light reaches [px]"""
    return math.ceil(lens.reach_um(dz_um) / pitch_um) + MARGIN_PX


def _continued(radiance: Float32[np.ndarray, "h w"], own: np.ndarray, radius: float) -> Float32[np.ndarray, "h w"]:
    """A layer's colour, continued under whatever is not of it by means of boxes that grow."""
    weight = own.astype(np.float32)
    colour = radiance * weight
    filled = colour.copy()
    known = own
    size = 2 * math.ceil(radius) + 1
    while not known.all():
        share = cv2.boxFilter(weight, -1, (size, size), borderType=cv2.BORDER_REFLECT_101)
        mean = cv2.boxFilter(colour, -1, (size, size), borderType=cv2.BORDER_REFLECT_101)
        reached = ~known & (share > 1e-6)
        filled[reached] = mean[reached] / share[reached]
        known = known | reached
        if size > 2 * max(radiance.shape):
            filled[~known] = radiance[own].mean()
            break
        size = 4 * size + 1
    return filled


def _windows(own: np.ndarray, reach: int) -> list[tuple[slice, slice]]:
    """Where a layer can change the image: around its pixels, in tiles so that memory stays small."""
    h, w = own.shape
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    top, bottom = max(0, rows[0] - reach), min(h, rows[-1] + reach + 1)
    left, right = max(0, columns[0] - reach), min(w, columns[-1] + reach + 1)
    tiles = []
    for y in range(top, bottom, TILE_PX):
        for x in range(left, right, TILE_PX):
            inner = (slice(y, min(y + TILE_PX, bottom)), slice(x, min(x + TILE_PX, right)))
            around = own[max(0, y - reach) : inner[0].stop + reach, max(0, x - reach) : inner[1].stop + reach]
            if around.any():
                tiles.append(inner)
    return tiles


def _lay(
    out: np.ndarray,
    view: _View,
    number: int,
    window: tuple[slice, slice],
    dz: float,
    pitch_um: float,
    lens: Lens,
) -> None:
    """Lays one layer over what lies behind it, within a window."""
    h, w = out.shape
    halo = _reach_px(dz, pitch_um, lens)
    y0, y1 = max(0, window[0].start - halo), min(h, window[0].stop + halo)
    x0, x1 = max(0, window[1].start - halo), min(w, window[1].stop + halo)
    cut = view.part((slice(y0, y1), slice(x0, x1)))
    up = cut.cover(number)
    fill = _continued(cut.colour(number), cut.own(number), _radius_px(dz, pitch_um, lens))
    inner = (
        slice(window[0].start - y0, window[0].stop - y0),
        slice(window[1].start - x0, window[1].stop - x0),
    )
    cover = np.clip(_blurred(up, dz, pitch_um, lens), 0.0, 1.0)[inner]
    light = _blurred(fill * up, dz, pitch_um, lens)[inner]
    out[window] = out[window] * (1.0 - cover) + light


def _hides(own: np.ndarray, farther: np.ndarray, nearer: np.ndarray) -> np.ndarray:
    """What of the nearer hides more of a layer: all that lies closer to it than to anything behind it.

    Without this bound a particle would be continued under dies far from it, and its blur be seen around their edges.
    """
    if not nearer.any() or not farther.any():
        return nearer
    to_own, to_farther = (
        cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L1, 3, dstType=cv2.CV_8U) for part in (own, farther)
    )
    return nearer & (to_own <= to_farther)


def _blurred(
    image: Float32[np.ndarray, "h w"], dz_um: float, pitch_um: float, lens: Lens
) -> Float32[np.ndarray, "h w"]:
    """An image through the lens at one distance from focus, in tiles where it is large."""
    halo = _reach_px(dz_um, pitch_um, lens)
    h, w = image.shape
    if max(h, w) <= 2 * TILE_PX:
        return _blurred_whole(image, halo, dz_um, pitch_um, lens)
    out = np.empty_like(image)
    for y in range(0, h, TILE_PX):
        for x in range(0, w, TILE_PX):
            y0, x0 = max(0, y - halo), max(0, x - halo)
            part = image[y0 : min(h, y + TILE_PX + halo), x0 : min(w, x + TILE_PX + halo)]
            done = _blurred_whole(part, halo, dz_um, pitch_um, lens)
            out[y : y + TILE_PX, x : x + TILE_PX] = done[y - y0 : y - y0 + TILE_PX, x - x0 : x - x0 + TILE_PX]
    return out


def _blurred_whole(
    image: Float32[np.ndarray, "h w"], halo: int, dz_um: float, pitch_um: float, lens: Lens
) -> Float32[np.ndarray, "h w"]:
    h, w = image.shape
    rows = scipy.fft.next_fast_len(h + 2 * halo, real=True)
    columns = scipy.fft.next_fast_len(w + 2 * halo, real=True)
    padded = cv2.copyMakeBorder(image, halo, rows - h - halo, halo, columns - w - halo, cv2.BORDER_REFLECT_101)
    spectrum = scipy.fft.rfft2(padded)
    fy = scipy.fft.fftfreq(rows, pitch_um).astype(np.float32)
    fx = scipy.fft.rfftfreq(columns, pitch_um).astype(np.float32)
    spectrum *= transfer(lens, dz_um, np.hypot(fy[:, np.newaxis], fx))
    return scipy.fft.irfft2(spectrum, s=(rows, columns))[halo : halo + h, halo : halo + w].astype(np.float32)
