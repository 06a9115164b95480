"""Pictures of packages by formulas: rectangles with soft borders at any angle, seen by a camera with noise."""

from __future__ import annotations

import math

import cv2
import numpy as np

GAMMA = 2.2
LENS_PX = 1.0


def rectangle(centre: tuple[float, float], width: float, height: float, angle_deg: float) -> np.ndarray:
    """Corners, clockwise from the upper left of the upright rectangle; counter-clockwise turns are positive."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    u, v = np.array([-1, 1, 1, -1]) * width / 2, np.array([-1, -1, 1, 1]) * height / 2
    return np.column_stack([centre[0] + u * cos + v * sin, centre[1] - u * sin + v * cos])


def cover(
    shape: tuple[int, int], centre: tuple[float, float], width: float, height: float, angle_deg: float, soft: float
) -> np.ndarray:
    """Share of each pixel inside, 1 / (1 + exp(4 d / soft))."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    u, v = dx * cos - dy * sin, dx * sin + dy * cos
    away = np.maximum(np.abs(u) - width / 2, np.abs(v) - height / 2)
    return 1.0 / (1.0 + np.exp(np.clip(4.0 * away / soft, -40, 40)))


def package_picture(
    shape: tuple[int, int] = (700, 620),
    centre: tuple[float, float] = (310.0, 350.0),
    size: tuple[float, float] = (290.0, 545.0),
    angle_deg: float = 0.0,
    die_deg: float | None = 0.0,
    die_shift: tuple[float, float] = (0.0, 0.0),
    light: str = "bf",
    border_px: float = 10.0,
    noise: int | None = 0,
    full_well_e: float = 6000.0,
) -> tuple[np.ndarray, dict[str, np.ndarray | float]]:
    """A package on a green board, its cavity towards the top, a die in it; None as `die_deg` leaves the die out."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))

    def place(u: float, v: float) -> tuple[float, float]:
        return centre[0] + u * cos + v * sin, centre[1] - u * sin + v * cos

    colours = {
        "bf": {"board": (0.04, 0.16, 0.06), "body": (0.01, 0.01, 0.01), "floor": (0.1, 0.11, 0.09)},
        "dfw": {"board": (0.012, 0.009, 0.002), "body": (0.005, 0.002, 0.001), "floor": (0.022, 0.01, 0.003)},
        "dfb": {"board": (0.0004, 0.004, 0.015), "body": (0.0001, 0.001, 0.006), "floor": (0.0005, 0.003, 0.025)},
    }[light]
    seam = {"bf": (0.01, 0.01, 0.01), "dfw": (0.04, 0.02, 0.006), "dfb": (0.001, 0.006, 0.045)}[light]
    top = {"bf": (0.30, 0.33, 0.34), "dfw": (0.001, 0.0006, 0.0002), "dfb": (0.0001, 0.0003, 0.001)}[light]
    scene = np.empty((*shape, 3), np.float32)
    scene[:] = colours["board"]
    cavity_at, cavity_size, die_size = place(0.0, -0.115 * size[1]), (0.78 * size[0], 0.52 * size[1]), (170.0, 210.0)
    die_at = place(die_shift[0], -0.115 * size[1] + die_shift[1])
    layers = [
        (centre, size, angle_deg, border_px, colours["body"]),
        (cavity_at, cavity_size, angle_deg, 3.0, colours["floor"]),
    ]
    die_angle = angle_deg + (die_deg or 0.0)
    if die_deg is not None:
        layers.append((die_at, (die_size[0] + 10, die_size[1] + 10), die_angle, 3.0, seam))
        layers.append((die_at, die_size, die_angle, 3.0, top))
    for at, sides, turn, soft, colour in layers:
        share = cover(shape, at, *sides, turn, soft)[..., np.newaxis]
        scene += (np.array(colour, np.float32) - scene) * share
    electrons = cv2.GaussianBlur(scene, (0, 0), LENS_PX) * full_well_e
    if noise is not None:
        rng = np.random.default_rng(noise)
        electrons = electrons + np.sqrt(electrons + 9.0) * rng.standard_normal(electrons.shape, np.float32)
    grey = 255 * np.clip(electrons / full_well_e, 0, 1) ** (1 / GAMMA)
    truth: dict[str, np.ndarray | float] = {
        "ic": rectangle(centre, *size, angle_deg),
        "cavity": rectangle(cavity_at, *cavity_size, angle_deg),
        "die": rectangle(die_at, *die_size, die_angle),
    }
    return np.rint(grey).astype(np.uint8), truth
