"""Small pictures as data inside the page: images, maps through a colour scale, each at its own resolution.

A picture is a PNG with a palette, one byte a pixel and nothing resampled; the browser enlarges it with hard pixels.
Where a map has no value its picture is transparent and the page's own ground shows.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

MOST_PIXELS = 420
"""Longer sides are reduced to this many pixels; an image of a hole is far below [px]"""
_EMPTY = 255  # the palette's place for "no value"
_STEPS = 255
_WIDEST_DRAWING = 1400


@dataclass(frozen=True, slots=True)
class Scale:
    """Colours for a range of values."""

    name: str
    low: float
    high: float
    unit: str
    colours: str
    """`grey`, `height`, `sigma` or `signed`."""


def grey(pixels: np.ndarray) -> tuple[str, float, float]:
    """An image of any type, its middle 99 % of grey values stretched from black to white.

    Returns:
        The picture, and what is black and white in it [grey]
    """
    low, high = span(pixels.astype(np.float64), 0.5)
    scale = Scale("image", low, high, "grey", "grey")
    return coloured(pixels, scale), low, high


def coloured(values: np.ndarray, scale: Scale) -> str:
    """A map through a colour scale, as the address of an inline PNG.

    Args:
        values: one number a pixel, NaN where there is none [unit]
        scale: values beyond its ends take the end's colour.
    """
    values = reduced(np.asarray(values, np.float64))
    known = np.isfinite(values)
    reach = scale.high - scale.low or 1.0
    index = np.where(known, (np.where(known, values, 0.0) - scale.low) / reach * (_STEPS - 1), 0.0)
    places = np.where(known, np.clip(np.rint(index), 0, _STEPS - 1), _EMPTY).astype(np.uint8)
    return _png(places, palette(scale.colours))


def tinted(values: np.ndarray, scale: Scale) -> str:
    """A map through a colour scale, not reduced and packed at a small loss: a third of the bytes of `coloured`.

    Args:
        values: one number a pixel, NaN where there is none [unit]
        scale: values beyond its ends take the end's colour.
    """
    known = np.isfinite(values)
    share = (np.where(known, values, scale.low) - scale.low) / (scale.high - scale.low or 1.0)
    places = np.rint(np.clip(share, 0, 1) * (_STEPS - 1)).astype(np.uint8)
    pixels = palette(scale.colours)[places][..., ::-1]
    if not known.all():
        pixels = np.dstack([pixels, 255 * known.astype(np.uint8)])
    return packed(np.ascontiguousarray(pixels), 82)


def shaded(counts: np.ndarray, colour: tuple[int, int, int]) -> str:
    """A density in one ink, the denser the less transparent, by the logarithm; it lies on any ground.

    Args:
        counts: how many in each cell; where 0, nothing is drawn.
        colour: red, green, blue.
    """
    from PIL import Image

    least, most = np.min(counts[counts > 0], initial=counts.max()), counts.max()
    share = np.log(np.maximum(counts, 1) / max(least, 1)) / (np.log(max(most, 1) / max(least, 1)) or 1.0)
    places = np.where(counts > 0, 1 + np.rint(share.clip(0, 1) * (_STEPS - 1)), 0).astype(np.uint8)
    picture = Image.frombytes("P", (counts.shape[1], counts.shape[0]), places.tobytes())
    picture.putpalette(list(colour) * 256)
    # the rarest cell has to be seen as well
    opacity = bytes([0, *np.linspace(70, 255, _STEPS).round().astype(np.uint8).tolist()])
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True, transparency=opacity)
    return _address(out.getvalue())


def photo(pixels: np.ndarray, most: int, stretch: tuple[float, float]) -> str:
    """A large image for looking at: reduced, and packed at the loss of what no eye sees on a page.

    Args:
        pixels: of any type [grey]
        most: longest side of the picture [px]
        stretch: what becomes black and what white [grey]
    """
    by = max(pixels.shape) / most
    if by > 1:
        size = (max(1, round(pixels.shape[1] / by)), max(1, round(pixels.shape[0] / by)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    low, high = stretch
    shown = np.clip((pixels.astype(np.float32) - low) * (255.0 / (high - low or 1.0)), 0, 255).astype(np.uint8)
    return packed(shown, 82)


def packed(pixels: UInt8[np.ndarray, "h w *c"], quality: int = 90) -> str:
    """Grey, or blue, green, red and how opaque, as an inline address, at a small loss."""
    _, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return _address(data.tobytes(), "webp")


def gradient(colours: str) -> str:
    """The colours of a scale as a CSS gradient from left to right."""
    chosen = palette(colours)[np.linspace(0, _STEPS - 1, 9).round().astype(int)]
    return "linear-gradient(to right," + ",".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in chosen) + ")"


def palette(colours: str) -> UInt8[np.ndarray, "255 3"]:
    """Red, green, blue of the steps of a scale."""
    ramp = np.linspace(0, 255, _STEPS).round().astype(np.uint8)[:, np.newaxis]
    if colours == "grey":
        return np.repeat(ramp, 3, axis=1)
    if colours == "signed":  # blue below, red above, pale in the middle: for what has a zero
        at = np.linspace(-1, 1, _STEPS)[:, np.newaxis]
        ends = np.where(at < 0, np.array([38, 92, 138]), np.array([178, 58, 46]))
        return np.rint(242 + (ends - 242) * np.abs(at) ** 0.8).astype(np.uint8)
    chosen = {"height": cv2.COLORMAP_VIRIDIS, "sigma": cv2.COLORMAP_INFERNO}[colours]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, chosen)[:, 0, ::-1])


def span(values: np.ndarray, tail_percent: float) -> tuple[float, float]:
    """The ends of a colour scale: the values without so many per cent on either side; never the same twice."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.percentile(known, (tail_percent, 100 - tail_percent)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def reduced(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """A map whose sides are short enough for a page: means over the known values of whole blocks."""
    by = -(-max(values.shape) // MOST_PIXELS)
    return values if by <= 1 else block_means(values, by)


def block_means(values: Float[np.ndarray, "h w"], by: int) -> Float[np.ndarray, "p q"]:
    """Means over the known values of blocks of so many pixels a side; NaN where none is known."""
    h, w = values.shape
    rows, columns = np.arange(0, h, by), np.arange(0, w, by)
    known = np.isfinite(values)
    total = np.add.reduceat(np.add.reduceat(np.where(known, values, 0.0), rows, axis=0), columns, axis=1)
    count = np.add.reduceat(np.add.reduceat(known.astype(np.float64), rows, axis=0), columns, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def contour(heights: Float[np.ndarray, "h w"], level: float) -> list[list[tuple[float, float]]]:
    """Where a map crosses a level, as closed lines of (x, y); to a quarter of a pixel, for looking at only [px]"""
    by = 4
    h, w = heights.shape
    fine = cv2.resize(np.nan_to_num(heights.astype(np.float32)), (w * by, h * by), interpolation=cv2.INTER_LINEAR)
    found, _ = cv2.findContours((fine < level).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    lines = [line[:, 0].astype(np.float64) for line in found if len(line) > 6 * by]
    # of the enlarged picture, the centre of pixel 0 lies at 1.5
    return [[(float((x + 0.5) / by), float((y + 0.5) / by)) for x, y in line[::3]] for line in lines]


def drawing(data: bytes) -> str:
    """A drawing that is there as PNG, as an inline address: at most 1400 px wide, and a fifth of the bytes.

    Raises:
        ValueError: the bytes are no picture.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise ValueError("not a picture")
    h, w = pixels.shape[:2]
    if w > _WIDEST_DRAWING:
        size = (_WIDEST_DRAWING, round(h * _WIDEST_DRAWING / w))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return packed(pixels)


def _png(places: UInt8[np.ndarray, "h w"], colours: UInt8[np.ndarray, "255 3"]) -> str:
    from PIL import Image

    h, w = places.shape
    picture = Image.frombytes("P", (w, h), places.tobytes())
    picture.putpalette([*colours.ravel().tolist(), 0, 0, 0])
    out = io.BytesIO()
    if (places == _EMPTY).any():
        picture.save(out, "PNG", optimize=True, transparency=_EMPTY)
    else:
        picture.save(out, "PNG", optimize=True)
    return _address(out.getvalue())


def _address(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
