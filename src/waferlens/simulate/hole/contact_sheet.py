"""A contact sheet: many small images and depth maps side by side in one PNG, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Num, UInt8

from waferlens.errors import InputError
from waferlens.recipe.hole_world import HoleWorld
from waferlens.simulate.hole.world import draw_pairs, draw_site

ZOOM = 2
GAP_PX = 6
TITLE_PX = 18
PAPER = 255
INK = (40, 40, 40)
DEEPEST_NM, HIGHEST_NM = 0.0, 180.0
"""What the two ends of the colours stand for: the same on every sheet, so that sheets compare [nm]"""


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """One row of a sheet."""

    title: str
    images: Num[np.ndarray, "n h w"]
    """Grey images (uint8), or heights [nm]"""
    heights: bool = False
    """Whether these are heights; they are drawn in colour."""
    span: tuple[float, float] = (DEEPEST_NM, HIGHEST_NM)
    """Heights at the two ends of the colours."""


def contact_sheet(strips: Sequence[Strip], zoom: int = ZOOM) -> UInt8[np.ndarray, "y x 3"]:
    """Draws strips below one another, every image at `zoom` times its size, in OpenCV's order of colours."""
    rows = [_row(strip, zoom) for strip in strips]
    width = max(row.shape[1] for row in rows)
    padded = [
        cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(PAPER,) * 3) for row in rows
    ]
    return np.concatenate(padded)


def world_sheet(world: HoleWorld, seed: int, columns: int = 12) -> UInt8[np.ndarray, "y x 3"]:
    """The sheet of a world: its pictures, the second picture of a pair where there is one, and the truth.

    Args:
        world: The domain.
        seed: Seed of the drawn set.
        columns: How many holes, dealt over the plateaus.
    """
    cases = len(world.plateaus)
    if world.kind == "sites":
        sites = [draw_site(world, seed, number, -(-columns // cases)) for number in range(cases)]
        told = ", ".join(f"{site.average_depth_nm:.1f}" for site in sites)
        return contact_sheet(
            [
                Strip(
                    f"{world.name}: one site after the other, average depth {told} nm",
                    _first([site.images for site in sites], columns),
                ),
                Strip("truth", _first([site.heights for site in sites], columns), heights=True),
            ]
        )
    structures = [draw_pairs(world, seed, number) for number in range(-(-columns // cases))]
    pairs = sorted((pair for structure in structures for pair in structure), key=lambda pair: pair.plateau_nm)[:columns]
    return contact_sheet(
        [
            Strip(f"{world.name}: from low to high plateau", np.stack([pair.images[0] for pair in pairs])),
            Strip("the same again, other noise", np.stack([pair.images[1] for pair in pairs])),
            Strip("truth", np.stack([pair.heights for pair in pairs]), heights=True),
        ]
    )


def write_contact_sheet(path: Path, sheet: UInt8[np.ndarray, "y x 3"]) -> None:
    """Writes a sheet as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    done, data = cv2.imencode(".png", sheet)
    if not done:
        raise InputError(path, "the sheet cannot be encoded as PNG")
    try:
        path.write_bytes(data.tobytes())
    except OSError as wrong:
        raise InputError(path, f"cannot be written: {wrong.strerror}; name a file in a folder that exists") from wrong


def _first(groups: Sequence[np.ndarray], columns: int) -> np.ndarray:
    return np.concatenate(groups)[:columns]


def _row(strip: Strip, zoom: int) -> UInt8[np.ndarray, "y x 3"]:
    tiles = []
    for image in strip.images:
        if strip.heights:
            low, high = strip.span
            scaled = (np.asarray(image, np.float32) - low) * (255.0 / (high - low))
            tile = cv2.applyColorMap(np.clip(np.rint(scaled), 0, 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        else:
            tile = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        tile = cv2.resize(tile, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
        tiles.append(cv2.copyMakeBorder(tile, 0, GAP_PX, GAP_PX, 0, cv2.BORDER_CONSTANT, value=(PAPER,) * 3))
    band = np.concatenate(tiles, axis=1)
    title = np.full((TITLE_PX, band.shape[1], 3), PAPER, np.uint8)
    cv2.putText(title, strip.title, (GAP_PX, TITLE_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return np.concatenate([title, band])
