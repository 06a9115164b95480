"""The square that a Segment Anything network looks at, and the way back from it to the image.

SAM sees an image whose longer side has 1024 px, filled up to a square with the mean colour of the images it was trained
on; SAM 2 sees it stretched to the square. Positions are those of the house on both sides: the centre of the first pixel
is (0, 0), and a box has outer edges, which is also what these networks take.

Source: Kirillov et al., Segment Anything, ICCV 2023 (arXiv:2304.02643); Ravi et al., SAM 2, 2024 (arXiv:2408.00714).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

MEAN_GREY = (123.675, 116.28, 103.53)
"""Mean red, green, blue of ImageNet: after the network's normalisation this is zero [grey]"""


@dataclass(frozen=True, slots=True)
class SamFrame:
    """An image on its square."""

    pixels: Float32[np.ndarray, "3 s s"]
    """Red, green, blue in 0..255 [grey]"""
    shape_px: tuple[int, int]
    """Rows and columns of the image [px]"""
    shown_px: tuple[int, int]
    """Rows and columns of the square that it covers; the rest is filled up [px]"""

    def box(self, box: Float[np.ndarray, "4"]) -> Float32[np.ndarray, "4"]:
        """A box of the image on the square: x0 y0 x1 y1, outer edges [px]"""
        (h, w), (rows, columns) = self.shape_px, self.shown_px
        scale = np.array([columns / w, rows / h, columns / w, rows / h])
        return ((np.asarray(box, np.float64) + 0.5) * scale - 0.5).astype(np.float32)

    def on_image(self, logits: Float[np.ndarray, "m m"]) -> Float32[np.ndarray, "h w"]:
        """A coarse map of the whole square, brought to the image's pixels."""
        side, (rows, columns), (h, w) = self.pixels.shape[1], self.shown_px, self.shape_px
        fine = cv2.resize(np.asarray(logits, np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        return cv2.resize(np.ascontiguousarray(fine[:rows, :columns]), (w, h), interpolation=cv2.INTER_LINEAR)


def sam_frame(rgb: UInt8[np.ndarray, "h w 3"], side_px: int = 1024, *, stretched: bool = False) -> SamFrame:
    """An image on the square of a network.

    Args:
        rgb: Red, green, blue.
        side_px: Side of the square [px]
        stretched: Fill the square by stretching, as SAM 2 was trained; else keep the ratio and fill up.
    """
    h, w = rgb.shape[:2]
    scale = side_px / max(h, w)
    rows, columns = (side_px, side_px) if stretched else (round(h * scale), round(w * scale))
    how = cv2.INTER_AREA if rows < h or columns < w else cv2.INTER_LINEAR
    shown = cv2.resize(rgb, (columns, rows), interpolation=how).astype(np.float32)
    square = np.empty((side_px, side_px, 3), np.float32)
    square[:] = MEAN_GREY
    square[:rows, :columns] = shown
    return SamFrame(np.ascontiguousarray(square.transpose(2, 0, 1)), (h, w), (rows, columns))
