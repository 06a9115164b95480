"""Checks of the package simulator's light and camera: the formulas, the point spread, noise, and S2's rules."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from waferlens.formats.package_set import DIE_BIT
from waferlens.simulate.checks import Check, absolute, at_least, at_most, exact, relative, reported
from waferlens.simulate.package.camera import GAMMA, Camera, acquire, noisy, spread
from waferlens.simulate.package.device import SimulatedDevice, draw_device
from waferlens.simulate.package.light import lit, slopes
from waferlens.simulate.package.scene import draw_scene
from waferlens.simulate.package.validation import sample, world_of

PLAIN = Camera(0.0, (1.0, 1.0, 1.0), 0.0, (0.5, 0.5), 6000.0, 0.0, False, None)
"""A camera without a fault."""
FRAMES = 3
"""Devices of each domain whose pictures are asked."""


def light_as_told(seed: int) -> list[Check]:
    """Without lens, shading and noise a picture is its formula; dark surfaces are dark."""
    _, surface = sample(seed)[0]
    maps, slope = surface.maps, slopes(surface.maps.height)
    picture = acquire(lit(maps, slope, "bf"), PLAIN, None).astype(np.float64)
    albedo, scatter = maps.albedo.astype(np.float64), maps.scatter.astype(np.float64)
    dy, dx = np.gradient(maps.height.astype(np.float64))
    back = 1.0 / (1.0 + (np.hypot(dx, dy) / 2.2) ** 2)
    tint = np.array([0.92, 1.0, 0.86])[:, np.newaxis, np.newaxis]
    bright = 1.15 * (albedo * back * tint + 0.10 * scatter) + 0.0015
    grey = 255.0 * (np.rint(65535 * np.clip(bright, 0, 1)) / 65535) ** (1 / GAMMA)  # the camera's 16 bits come first
    off = np.abs(picture - np.rint(grey).transpose(1, 2, 0))
    rows = [
        at_most("brightfield against its formula, worst [grey]", 1.0, off.max()),
        at_most("brightfield: share of values that are off by one", 0.002, (off > 0).mean()),
    ]
    mean = albedo.mean(axis=0)
    for light, strong, colour in (("dfw", 0.62, (1.0, 0.50, 0.16)), ("dfb", 0.80, (0.025, 0.16, 1.0))):
        got = lit(maps, slope, light)
        told = strong * (scatter + 0.006 * np.minimum(np.hypot(dx, dy), 6.0) + 0.012 * mean)
        told = told * np.array(colour)[:, np.newaxis, np.newaxis] * (0.6 + 0.4 * albedo / np.maximum(mean, 1e-6))
        rows.append(at_most(f"{light} against its formula, worst relative", 1e-4, np.abs(got / told - 1).max()))
    return rows


def point_spread(seed: int) -> list[Check]:
    """The spread of a step is that told, colour by colour."""
    rows = []
    step = np.zeros((3, 16, 129), np.float32)
    step[:, :, 64:] = 1.0
    for blur in (0.7, 1.3, 2.2):
        edge = np.diff(spread(step, blur)[:, 8].astype(np.float64), axis=1)
        x = np.arange(128) + 0.5
        for channel, name in enumerate(("red", "green", "blue")):
            middle = (edge[channel] * x).sum()
            sigma = math.sqrt((edge[channel] * (x - middle) ** 2).sum())
            rows.append(
                relative(f"spread of an edge, {blur} px, {name} [px]", blur * (1 + 0.06 * channel), sigma, 0.02)
            )
    del seed
    return rows


def noise(seed: int) -> list[Check]:
    """Variance in electrons is the signal and the square of the read noise."""
    rows = []
    levels = np.array([5e-3, 0.02, 0.1, 0.3, 0.7])
    for read in (3.0, 9.0):
        camera = Camera(0.0, (1.0, 1.0, 1.0), 0.0, (0.5, 0.5), 6000.0, read, False, None)
        got, told = [], []
        for place, level in enumerate(levels):
            light = np.full((3, 200, 300), level, np.float32)
            electrons = noisy(light * np.float32(6000.0), camera, np.random.Generator(np.random.Philox(seed + place)))
            got.append(float(electrons.var()))
            told.append(6000.0 * level + read**2)
            rows.append(
                relative(
                    f"mean electrons at {level:g} of white, read noise {read:g} e",
                    6000.0 * level,
                    electrons.mean(),
                    0.01,
                )
            )
        slope, start = np.polyfit(6000.0 * levels, got, 1)
        rows.append(relative(f"variance an electron of signal, read noise {read:g} e", 1.0, slope, 0.03))
        rows.append(absolute(f"variance in the dark, read noise {read:g} e [e²]", read**2, start, 0.15 * read**2 + 6))
    return rows


def lights_are_told_apart(seed: int) -> list[Check]:
    """S2's rule sorts every triple: brightfield where all means exceed 15, else by red against blue."""
    wrong = 0
    margins = []
    for domain in ("sim", "real"):
        for number in range(FRAMES):
            for light, picture in _drawn(domain, seed, number).images.items():
                red, green, blue = cv2.mean(picture)[:3]
                said = "bf" if min(red, green, blue) > 15 else "dfw" if red > blue else "dfb"
                wrong += int(said != light)
                margins.append(min(red, green, blue) - 15 if light == "bf" else abs(red - blue))
    return [
        exact("pictures that S2's rule calls by another light", 0, wrong),
        at_least("least distance from the rule's limits [grey]", 5.0, min(margins)),
    ]


def thresholding_fails_mildly(seed: int) -> list[Check]:
    """S2's adaptive threshold finds the package, with some of its border, as it does in S2's figures."""
    world, found = world_of("sim"), []
    for number in range(FRAMES):
        scene = draw_scene(world, seed, number)
        picture = _drawn("sim", seed, number).images["bf"]
        region = _thresholded(picture)
        truth = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillConvexPoly(truth, np.rint(scene.ic.quad(scene.half_u, scene.half_v)).astype(np.int32), 1)
        found.append(float((region & (truth > 0)).sum() / (region | (truth > 0)).sum()))
    return [
        at_least("adaptive threshold: median overlap with the package", 0.85, float(np.median(found))),
        reported("the same, least", min(found)),
        reported("the same, greatest", max(found)),
    ]


def independent_streams(seed: int) -> list[Check]:
    """Noise changes nothing but noise; domains share no numbers; another camera leaves the scene alone."""
    world = world_of("sim")
    made, clean = _drawn("sim", seed, 2), draw_device(world, seed, 2, noise=False)
    moved = int((made.parts != clean.parts).sum() + (made.defects != clean.defects).sum())
    other = draw_device(world_of("sim", "microscope.blur_px=[2,2]", "microscope.read_e=9"), seed, 2)
    moved += int((made.parts != other.parts).sum() + (made.defects != other.defects).sum())
    poses = {draw_scene(world_of(domain), seed, 2).ic.angle_deg for domain in ("sim", "real", "hard", "stress")}
    left = np.stack([_drawn("sim", seed, number).images["bf"][:200, :90, 1].astype(float) for number in (2, 3)])
    alike = float(np.corrcoef(*(one.ravel() - cv2.blur(one, (9, 9)).ravel() for one in left))[0, 1])
    die = int(((made.parts & DIE_BIT) > 0).sum())
    return [
        exact("pixels of masks that change with noise or camera", 0, moved),
        exact("domains with a pose of their own from one seed", 4, len(poses)),
        at_most("correlation of the noise of two devices", 0.1, abs(alike)),
        at_least("pixels of the die", 100_000, die),
    ]


PICTURE_VALIDATIONS = (
    light_as_told,
    point_spread,
    noise,
    lights_are_told_apart,
    thresholding_fails_mildly,
    independent_streams,
)


@lru_cache(maxsize=2 * FRAMES + 1)
def _drawn(domain: str, seed: int, number: int) -> SimulatedDevice:
    return draw_device(world_of(domain), seed, number)


def _thresholded(picture: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """S2's region of interest: the rectangle about the largest contour of the adaptive threshold."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    dark = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 151, 3)
    region = np.zeros(grey.shape, np.uint8)
    best = 0.0
    for one in (dark, 255 - dark):
        contours, _ = cv2.findContours(one, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            if cv2.contourArea(contour) <= 35_000:
                continue
            smooth = cv2.approxPolyDP(contour, 0.01 * cv2.arcLength(contour, True), True)
            rectangle = cv2.minAreaRect(smooth)
            area = rectangle[1][0] * rectangle[1][1]
            if 100_000 < area < 0.9 * grey.size and area > best:
                best = area
                region[:] = 0
                cv2.fillConvexPoly(region, np.rint(cv2.boxPoints(rectangle)).astype(np.int32), 1)
    return region > 0
