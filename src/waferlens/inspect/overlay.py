"""An image with what was found on it: critical findings red, tolerable ones yellow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from waferlens.bundle.golden import Found
from waferlens.errors import InputError
from waferlens.records import Image

CRITICAL, TOLERABLE = (60, 60, 230), (40, 200, 240)
"""Blue, green, red: both are told apart in greyscale print and by people who see no red."""
RANGE = (0.1, 99.9)
"""Percentiles of the grey values that are drawn black and white, where an image has more than 8 bits [%]"""
LEAST_SIDE_PX = 480
"""Smaller images are enlarged by a whole number, so that a box does not cover what it shows [px]"""


def write_overlay(path: Path, image: Image, found: Found) -> None:
    """Draws the findings and writes a PNG, at once or not at all.

    Raises:
        InputError: it cannot be written.
    """
    grey = _shown(image)
    times = max(1, -(-LEAST_SIDE_PX // max(grey.shape)))
    shown = cv2.cvtColor(np.kron(grey, np.ones((times, times), np.uint8)), cv2.COLOR_GRAY2BGR)
    width = max(1, times // 2)
    for finding in reversed(found.findings):  # the strongest on top
        # the box is the outer edge of its pixels; the line is drawn around it, a pixel away
        x0, y0, x1, y1 = ((edge + 0.5) * times for edge in finding.box)
        corners = (round(x0) - 2 * width, round(y0) - 2 * width), (round(x1) + width, round(y1) + width)
        cv2.rectangle(shown, *corners, CRITICAL if finding.critical else TOLERABLE, width)
    write_picture(path, shown)


def write_picture(path: Path, shown: np.ndarray) -> None:
    """Writes a picture in blue, green, red as PNG, at once or not at all.

    Raises:
        InputError: it cannot be written.
    """
    written, data = cv2.imencode(".png", shown)
    if not written:
        raise InputError(path, "the overlay cannot be encoded")
    temporary = path.with_name(f"{path.name}.part")
    try:
        temporary.write_bytes(data.tobytes())
        temporary.replace(path)
    except OSError as wrong:
        raise InputError(path, f"cannot be written: {wrong.strerror or wrong}") from wrong


def _shown(image: Image) -> np.ndarray:
    """The grey values in 8 bits; those of more bits rarely fill them, and are stretched to what is there."""
    if image.full_scale == 255.0:
        return np.clip(image.pixels, 0, 255).astype(np.uint8)
    pixels = image.pixels.astype(np.float32)
    dark, bright = np.percentile(pixels[:: max(1, len(pixels) // 1000)], RANGE)
    return np.clip((pixels - dark) * (255.0 / max(bright - dark, 1e-6 * image.full_scale)), 0, 255).astype(np.uint8)
