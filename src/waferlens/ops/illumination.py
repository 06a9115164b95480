"""Which light an image of a package was taken in, from its mean colour; near the limits it is not guessed.

The rule of S2: all three means above 15 is brightfield; else more red than blue is darkfield under white light, else
darkfield under blue light. A mean over a million pixels has no noise to speak of: what moves it is exposure and white
balance. So the margin is the change that a tenth of a stop makes at the limit, 15 (2^(0.1 / 2.2) - 1) = 0.5 grey with a
gamma of 2.2: an image whose name would change if it had been exposed by 7 % more or less is to be looked at.

Source: S2, sorting by illumination.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from waferlens.errors import UsageError

LIMIT_GREY = 15.0
"""Above it in all colours an image is brightfield, for white at 255 [grey]"""
MARGIN_GREY = 0.5
"""How near to a limit an image is not sorted [grey]"""
DARK_GREY = 8.0
"""Of the brightest colour's mean: below it an image shows nothing but the noise of its sensor [grey]"""

Light = Literal["bf", "dfw", "dfb"]
NAMES: dict[str, str] = {"bf": "brightfield", "dfw": "darkfield white", "dfb": "darkfield blue"}


@dataclass(frozen=True, slots=True)
class SortedLight:
    """The light of an image."""

    light: Light | None
    """`bf`, `dfw` or `dfb`; None where it is too near a limit, or too dark: then a person is to say."""
    nearest: Light
    """What the rule alone would say"""
    means: tuple[float, float, float]
    """Mean red, green, blue, for white at 255 [grey]"""
    margin_grey: float
    """How far the image is from the nearest limit that would rename it [grey]"""
    reason: str = ""
    """Why it was not sorted."""


def sort_light(
    image: np.ndarray, *, limit_grey: float = LIMIT_GREY, margin_grey: float = MARGIN_GREY, full_scale: float = 255.0
) -> SortedLight:
    """Sorts an image by its light.

    Args:
        image: `h w 3`, red, green, blue [grey]
        limit_grey: above it in all colours an image is brightfield, for white at 255 [grey]
        margin_grey: how near to a limit an image is not sorted [grey]
        full_scale: grey of white.

    Raises:
        UsageError: the image has no three colours, or a number is out of range.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(f"image has the shape {image.shape}; its light is told by three colours, h w 3")
    if not 0 < limit_grey < 255 or margin_grey < 0:
        raise UsageError(f"limit_grey = {limit_grey:g}, margin_grey = {margin_grey:g}: 0..255, and not negative")
    means = np.array(cv2.mean(image)[:3]) * (255.0 / full_scale)
    red, green, blue = (float(one) for one in means)
    over = min(red, green, blue) - limit_grey
    if over > 0:
        nearest: Light = "bf"
        margin, other = over, f"its least colour is {over + limit_grey:.2f}, and above {limit_grey:g} is brightfield"
    else:
        nearest = "dfw" if red > blue else "dfb"
        margin, other = -over, f"its least colour is {over + limit_grey:.2f}, and above {limit_grey:g} is brightfield"
        if abs(red - blue) < margin:
            margin, other = abs(red - blue), f"red {red:.2f} and blue {blue:.2f} tell white from blue darkfield"
    if dark := too_dark((red, green, blue)):
        return SortedLight(None, nearest, (red, green, blue), margin, dark)
    if margin < margin_grey:
        return SortedLight(None, nearest, (red, green, blue), margin, f"near the limit of lights: {other}")
    return SortedLight(nearest, nearest, (red, green, blue), margin)


def too_dark(means: tuple[float, float, float]) -> str:
    """Why an image of these mean colours shows nothing; empty where it shows something."""
    brightest = max(means)
    if brightest >= DARK_GREY:
        return ""
    return f"a dark image: its brightest colour has a mean of {brightest:.1f} grey, less than {DARK_GREY:g}"
