"""From a scene to the light on the camera: tilted surfaces, defocus layer by layer, and what is near hides what is far.

Order of operations: light that a tilted surface sends past the pupil is lost; then layers of like blur are laid over
one another from far to near, each blurred with its own transfer, each covering what lies behind it. Under a nearer
layer the colour of the farther one is continued, so a step between two surfaces of one colour shows no halo.

The grid's values are means over its pixels, so the pixel's own blur is in them already and none is added.

Source: overlap of pupils: the reasoning of Hopkins 1955 on tilted mirrors; layers: Kraus, Strengert, Computer Graphics
Forum 26 (2007) 645, without their halo.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float32

from waferlens.simulate.wafer.otf import Lens, transfer

FIRST_PX = 0.5
"""Blur up to this radius is one layer [px]"""
RATIO = 1.35
"""Between the radii of neighbouring layers."""
LEAST_PX = 20
"""Layers of fewer pixels are given to their neighbour."""
MARGIN_PX = 12
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


def defocused(
    radiance: Float32[np.ndarray, "h w"],
    height_um: Float32[np.ndarray, "h w"],
    focus_um: float | np.ndarray,
    pitch_um: float,
    lens: Lens,
) -> Float32[np.ndarray, "h w"]:
    """The light on the camera.

    Args:
        radiance: Light each pixel sends into the lens.
        height_um: Of each pixel [um]
        focus_um: Height of the plane of focus, of the image or of each column [um]
        pitch_um: Of the grid [um]
        lens: The objective.
    """
    residual = height_um - np.asarray(focus_um, np.float32)
    signed_px = residual * np.float32(math.tan(math.asin(lens.na)) / pitch_um)
    layers = _layers(signed_px)
    numbers = np.unique(layers)
    out: np.ndarray | None = None
    for number in numbers:
        own = layers == number
        dz = float(np.abs(residual[own]).mean())
        if out is None:
            out = _blurred(_continued(radiance, own, _radius_px(dz, pitch_um, lens)), dz, pitch_um, lens)
            continue
        radius = _radius_px(dz, pitch_um, lens)
        for window in _windows(own, math.ceil(3 * radius) + MARGIN_PX):
            _lay(out, radiance, layers, number, window, dz, radius, pitch_um, lens)
    assert out is not None  # an image has a pixel
    return out


def _layers(signed_px: Float32[np.ndarray, "h w"]) -> np.ndarray:
    """The layer of each pixel, the farthest first; small ones are given to the neighbour nearer to focus."""
    away = np.abs(signed_px)
    number = np.ceil(np.log(np.maximum(away, FIRST_PX) / FIRST_PX) / math.log(RATIO)).astype(np.int16)
    number = np.where(signed_px < 0, -number, number)
    low = int(number.min())
    counts = np.bincount((number - low).ravel())
    target = np.arange(len(counts))
    for place in [*range(len(counts))]:
        if 0 < counts[place] < LEAST_PX:
            step = 1 if place + low < 0 else -1
            other = place + step
            while 0 <= other < len(counts) and counts[other] == 0:
                other += step
            if 0 <= other < len(counts):
                target[target == place] = other
                counts[other] += counts[place]
                counts[place] = 0
    return target[number - low] + low


def _radius_px(dz_um: float, pitch_um: float, lens: Lens) -> float:
    """Radius of the blur, waves included [px]"""
    waves = 0.61 * lens.wavelength_um / lens.na
    return math.hypot(float(lens.geometric_radius_um(dz_um)), waves) / pitch_um


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
    radiance: np.ndarray,
    layers: np.ndarray,
    number: int,
    window: tuple[slice, slice],
    dz: float,
    radius: float,
    pitch_um: float,
    lens: Lens,
) -> None:
    """Lays one layer over what lies behind it, within a window."""
    h, w = layers.shape
    halo = math.ceil(3 * radius) + MARGIN_PX
    y0, y1 = max(0, window[0].start - halo), min(h, window[0].stop + halo)
    x0, x1 = max(0, window[1].start - halo), min(w, window[1].stop + halo)
    around = (slice(y0, y1), slice(x0, x1))
    cut = layers[around]
    own, up = cut == number, (cut >= number).astype(np.float32)
    fill = _continued(radiance[around], own, radius)
    inner = (
        slice(window[0].start - y0, window[0].stop - y0),
        slice(window[1].start - x0, window[1].stop - x0),
    )
    cover = np.clip(_blurred(up, dz, pitch_um, lens), 0.0, 1.0)[inner]
    light = _blurred(fill * up, dz, pitch_um, lens)[inner]
    out[window] = out[window] * (1.0 - cover) + light


def _blurred(
    image: Float32[np.ndarray, "h w"], dz_um: float, pitch_um: float, lens: Lens
) -> Float32[np.ndarray, "h w"]:
    """An image through the lens at one distance from focus, in tiles where it is large."""
    halo = math.ceil(3 * _radius_px(dz_um, pitch_um, lens)) + MARGIN_PX
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
