"""The angle of a die from an image file, and a picture of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.errors import InputError
from waferlens.formats.package_set import read_picture
from waferlens.ops.die_angle import DieAngle, PinOne, die_angle

if TYPE_CHECKING:
    from waferlens.ops.die_angle import Datum

DATUM_COLOUR, DIE_COLOUR = (255, 190, 0), (0, 220, 255)
"""Of the lines in a picture: red, green, blue"""


def measure_die_angle(
    file: str | Path,
    *,
    datum: Datum = "package",
    light: str | None = None,
    pixel_um: float | None = None,
    pin_one: PinOne | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], DieAngle]:
    """Reads an image of a package and measures its die's angle.

    Args:
        file: a colour image of 8 bits.
        datum: what the angle is told against.
        light: `bf`, `dfw` or `dfb`; sorted by colour if None.
        pixel_um: size of a pixel [um]
        pin_one: what tells which end of the die is up.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no colour image of 8 bits.
        UsageError: a number is out of range.
    """
    image = read_picture(file)
    return image, die_angle(image, datum=datum, light=light, pixel_um=pixel_um, pin_one=pin_one)


def draw_die_angle(path: Path, image: UInt8[np.ndarray, "h w 3"], done: DieAngle) -> None:
    """Draws the lines of datum and die, and the angle, over the image.

    Raises:
        InputError: the picture cannot be written.
    """
    # darkfield is drawn brighter, so that the eye sees what was measured
    gain = min(6.0, 200.0 / max(float(np.percentile(image, 99)), 1.0))
    picture = np.clip(image.astype(np.float32) * max(gain, 1.0), 0, 255).astype(np.uint8)
    for quad, colour in ((done.datum_quad, DATUM_COLOUR), (done.die_quad, DIE_COLOUR)):
        if quad is not None:
            points = np.rint(quad * 16).astype(np.int32)
            cv2.polylines(picture, [points], True, colour, 1, cv2.LINE_AA, 4)
    text = done.reason if done.angle_deg is None else f"{done.angle_deg:+.3f} deg ({done.low:+.3f} .. {done.high:+.3f})"
    for thick, colour in ((4, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.putText(picture, text[:70], (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, thick, cv2.LINE_AA)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise InputError(path, "cannot be written")
