"""A contact sheet of a package domain: devices in three lights with their truth drawn in, to be looked at."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from waferlens.recipe.package_world import PackageWorld
from waferlens.simulate.hole.contact_sheet import GAP_PX, INK, PAPER, TITLE_PX
from waferlens.simulate.package.device import SimulatedDevice, draw_device
from waferlens.simulate.package.light import LIGHTS

HEIGHT_PX = 432
"""Rows of an image on the sheet [px]"""
COLOURS = {"crack": (255, 70, 60), "rotate": (255, 160, 40), "ignore": (80, 160, 255)}
"""Of boxes, by class: red, green, blue."""


def world_sheet(world: PackageWorld, seed: int, columns: int = 6, first: int = 0) -> UInt8[np.ndarray, "y x 3"]:
    """The sheet of a world, in OpenCV's order of colours: a column a device, a row a light, the truth below.

    Args:
        world: The domain.
        seed: Seed of the drawn set.
        columns: How many devices.
        first: Number of the first.
    """
    made = [draw_device(world, seed, first + number) for number in range(columns)]
    rows = [_row([_small(one.images[light]) for one in made], f"{world.name}: {light}") for light in LIGHTS]
    told = ", ".join(one.truth.verdict for one in made)
    rows.append(_row([_small(_truth(one)) for one in made], f"truth: {told}"))
    return np.concatenate(rows)[..., ::-1].copy()


def _small(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "y x 3"]:
    scale = HEIGHT_PX / image.shape[0]
    return cv2.resize(image, (round(image.shape[1] * scale), HEIGHT_PX), interpolation=cv2.INTER_AREA)


def _truth(made: SimulatedDevice) -> UInt8[np.ndarray, "h w 3"]:
    """Corners of package and die, and boxes, over the brightfield picture."""
    picture = (0.5 * made.images["bf"]).astype(np.uint8)
    for quad in (made.truth.ic_quad, made.truth.die_quad):
        if quad is not None:
            cv2.polylines(picture, [np.rint(quad * 16).astype(np.int32)], True, (240, 240, 240), 3, cv2.LINE_AA, 4)
    for defect in made.truth.defects:
        x0, y0, x1, y1 = (round(edge) for edge in defect.box)
        cv2.rectangle(picture, (x0 - 6, y0 - 6), (x1 + 6, y1 + 6), COLOURS[defect.label], 4)
    return picture


def _row(images: list[np.ndarray], title: str) -> UInt8[np.ndarray, "y x 3"]:
    tiles = [cv2.copyMakeBorder(one, 0, GAP_PX, GAP_PX, 0, cv2.BORDER_CONSTANT, value=(PAPER,) * 3) for one in images]
    band = np.concatenate(tiles, axis=1)
    words = np.full((TITLE_PX, band.shape[1], 3), PAPER, np.uint8)
    cv2.putText(words, title, (GAP_PX, TITLE_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return np.concatenate([words, band])
