"""Checks of the package simulator that need no picture: angles, masks, what a defect changes, contents.

The expectations are formulas, or what S2 tells of its images; the bounds are those of the specification.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float

from waferlens.recipe import read_model
from waferlens.recipe.package_world import PackageWorld
from waferlens.simulate.checks import Check, absolute, at_least, at_most, exact, relative, reported
from waferlens.simulate.package.device import Surface, draw_device, draw_surface, outlines
from waferlens.simulate.package.frame import box_of
from waferlens.simulate.package.light import lit, slopes
from waferlens.simulate.package.marks import draw_defects
from waferlens.simulate.package.scene import Scene, draw_scene, good_twin
from waferlens.simulate.package.surroundings import BODY_HEIGHT, paint_surroundings
from waferlens.simulate.package.wires import draw_wires

SEED_BOX = (132.0, 65.0, 581.0, 1090.0)
"""x, y, width and height of the one package S2 gives a box of [px]"""
SMALL_PX, LARGE_PX = 32.0**2, 96.0**2
"""COCO's limits of small and large boxes [px²]"""
SIZES = (0.84, 0.12, 0.05)
"""Shares of small, medium and large boxes of cracks, derived from S2's counts."""


def world_of(domain: str, *overrides: str) -> PackageWorld:
    """A shipped world with some numbers set otherwise."""
    return read_model(PackageWorld, f"package-{domain}", folder_package="worlds", overrides=overrides)


def angle_of(quad: Float[np.ndarray, "4 2"]) -> float:
    """Angle of a quad, mean of its four sides, counter-clockwise as seen [deg]"""
    tl, tr, br, bl = quad
    along = (tr - tl) + (br - bl)
    down = (bl - tl) + (br - tr)
    # a sheared quad has sides that differ; the angle is between them
    return math.degrees(
        math.atan2(-along[1], along[0]) + 0.5 * math.remainder(
            math.atan2(-down[1], down[0]) + 0.5 * math.pi - math.atan2(-along[1], along[0]), 2 * math.pi
        )
    )  # fmt: skip


def rectangle_angle(mask: Bool[np.ndarray, "h w"]) -> float:
    """Angle of the smallest rectangle about a mask, within ±45, counter-clockwise as seen [deg]"""
    ys, xs = np.nonzero(mask)
    _, _, turn = cv2.minAreaRect(cv2.convexHull(np.stack([xs, ys], axis=1).astype(np.float32)))
    return math.remainder(-turn, 90.0)


def angles(seed: int) -> list[Check]:
    """Truth against masks and quads; the upright warp; mirror images; the sign."""
    rows, miss, kept, gone, mirrored = [], [], [], [], []
    world = world_of("sim", "contents.rotate=1", "contents.good=0.3", "contents.missing=0")
    for number in range(5):
        scene = draw_scene(world, seed, number)
        body, die = outlines(scene)
        miss.append(rectangle_angle(body) - scene.ic.angle_deg)
        quad, die_quad = scene.ic.quad(scene.half_u, scene.half_v), _die_quad(scene)
        sides = 2 * scene.half_u, 2 * scene.half_v
        upright = np.array([(0, 0), (sides[0], 0), sides, (0, sides[1])], np.float32)
        to_roi = cv2.getPerspectiveTransform(quad.astype(np.float32), upright)
        warped = cv2.perspectiveTransform(np.stack([quad, die_quad]).reshape(1, -1, 2), to_roi).reshape(2, 4, 2)
        gone.append(angle_of(warped[0]))
        kept.append(angle_of(warped[1]) - scene.theta_die_deg)
        mirrored.append(rectangle_angle(die[:, ::-1]) + rectangle_angle(body[:, ::-1]) * -1 + scene.theta_die_deg)
    rows.append(at_most("package: rectangle about its mask against its angle, worst [deg]", 0.05, np.abs(miss).max()))
    rows.append(at_most("upright warp: what is left of the package's angle, worst [deg]", 0.02, np.abs(gone).max()))
    rows.append(at_most("upright warp: the die's angle against the truth, worst [deg]", 0.02, np.abs(kept).max()))
    rows.append(at_most("mirror image: the die's angle changes its sign, worst [deg]", 0.15, np.abs(mirrored).max()))
    turned = draw_scene(world_of("sim", "frame.wide_share=1"), seed, 1)
    tl, tr, *_ = turned.ic.quad(turned.half_u, turned.half_v)
    rises = float(np.sign(tl[1] - tr[1]))
    rows.append(exact("a package of positive angle: its right corner lies higher", np.sign(turned.ic.angle_deg), rises))
    return rows


def soft_border(seed: int) -> list[Check]:
    """The border's width and roughness, and that the told sides are where the border is half."""
    rows = []
    plain = world_of("sim", "body.roughness=0", "frame.turn_deg=0", "frame.wide_share=0", "clutter.dust=0")
    rough = world_of("sim", "frame.turn_deg=0", "frame.wide_share=0", "clutter.dust=0")
    widths, places, spreads = [], [], []
    for number in range(3):
        scene = draw_scene(plain, seed, number)
        profile = _left_border(scene).mean(axis=0)
        x = np.arange(len(profile), dtype=np.float64)
        low, half, high = (float(np.interp(share, profile, x)) for share in (0.1, 0.5, 0.9))
        widths.append((high - low) / scene.border_px)
        places.append(half - scene.ic.quad(scene.half_u, scene.half_v)[0, 0])
    for number in range(8):
        scene = draw_scene(rough, seed, number)
        cover = _left_border(scene)
        at = [float(np.interp(0.5, row, np.arange(len(row)))) for row in np.maximum.accumulate(cover, axis=1)]
        told = 0.25 * scene.border_px * rough.body.roughness
        spreads.append(np.std(at) / told)
    rows.append(relative("border: 10 to 90 % of the change, in w", 2 * math.log(9) / 4, float(np.mean(widths)), 0.10))
    rows.append(at_most("border: half of the change against the told side, worst [px]", 0.05, np.abs(places).max()))
    rows.append(relative("border: spread of its place along a side, in that told", 1.0, float(np.mean(spreads)), 0.15))
    return rows


def boxes_as_told(seed: int) -> list[Check]:
    """The one box that S2 gives lies among ours; the sizes of defects are S2's."""
    world = world_of("sim")
    boxes, areas = [], []
    for number in range(1000):
        scene = draw_scene(world, seed, number)
        quad = scene.ic.quad(scene.half_u, scene.half_v)
        if abs(scene.ic.angle_deg) < world.frame.turn_deg:
            boxes.append((*quad.min(axis=0), *np.ptp(quad, axis=0)))
        if scene.cracked:
            areas += _areas(scene)
    away = np.abs((np.mean(boxes, axis=0) - SEED_BOX) / np.std(boxes, axis=0))
    rows = [at_most("box of S2's package among ours, worst [standard deviations]", 2.0, float(away.max()))]
    area = np.array(areas)
    shares = (area < SMALL_PX).mean(), ((area >= SMALL_PX) & (area < LARGE_PX)).mean(), (area >= LARGE_PX).mean()
    for name, told, got, near in zip(("small", "medium", "large"), SIZES, shares, (0.05, 0.05, 0.03), strict=True):
        # the bound is on the world's share, of which so many boxes are a sample
        near += 2.0 * math.sqrt(told * (1.0 - told) / len(area))
        rows.append(absolute(f"share of {name} boxes of cracks", told, float(got), round(near, 3)))
    rows.append(reported("boxes of cracks counted", len(area)))
    return rows


def masks_and_marks(seed: int) -> list[Check]:
    """Defects lie on their dies, under wires; marks of emitters are never cracks; boxes hold their pixels."""
    off = under = wrong = loose = faint = 0
    marks = 0
    for number, (scene, surface) in enumerate(sample(seed)):
        hidden = np.zeros_like(surface.die)
        for piece in draw_wires(scene):
            hidden[piece.window] |= piece.hides
        made = draw_device(scene.world, scene.root, scene.number, noise=False) if number == 0 else None
        for place, mark in enumerate(surface.marks, 1 + scene.rotated):
            pixels = surface.owner == place
            if not mark.ignore:
                off += int((pixels & ~surface.die).sum())
                under += int((pixels & hidden).sum())
                faint += int(pixels.sum() < scene.world.cracks.least_px)
            if mark.kind == "led-mark":
                marks += 1
                wrong += int(not mark.ignore) + int((pixels & surface.die).any())
            if made is not None:
                told = made.truth.defects[place - 1]
                loose += int(told.box != tuple(map(float, box_of(pixels, scene.ic.lens.whole))))
    return [
        exact("pixels of defects off their die", 0, off),
        exact("visible pixels of defects under wires", 0, under),
        exact("defects with fewer visible pixels than are labelled", 0, faint),
        exact("boxes that are not the outer edges of their pixels", 0, loose),
        exact("marks of emitters called cracks, or on a die", 0, wrong),
        at_least("marks of emitters seen", 1, marks),
    ]


def twins(seed: int) -> list[Check]:
    """A good twin is the same device to the bit but for the defect's surroundings; strength 0 is the twin."""
    world = world_of("sim", "contents.crack=1", "contents.good=0", "contents.rotate=0", "contents.both=0")
    changed_outside = changed = 0
    for number in (1,):
        made, twin = draw_device(world, seed, number), draw_device(world, seed, number, twin=True)
        reach = _reach(draw_scene(world, seed, number))
        for light, picture in made.images.items():
            differs = (picture != twin.images[light]).any(axis=2)
            changed += int(differs.sum())
            changed_outside += int((differs & ~reach).sum())
    without = draw_device(world, seed, 1, strength=0.0)
    twin = draw_device(world, seed, 1, twin=True)
    left = sum(int((without.images[light] != twin.images[light]).sum()) for light in twin.images)
    scene = draw_scene(world_of("sim", "contents.rotate=1", "contents.crack=0", "contents.good=0"), seed, 0)
    return [
        exact("twin: pixels that differ beyond the defect's reach", 0, changed_outside),
        at_least("twin: pixels that differ", 100, changed),
        exact("defects of strength 0 against the twin: values that differ", 0, left),
        at_most("twin of a turned die: its angle [deg]", 0.3, abs(good_twin(scene).theta_die_deg)),
    ]


def darkfield_contrast(seed: int) -> list[Check]:
    """Cracks stand out more in darkfield than in brightfield, and not always alike."""
    ratios = []
    for scene, surface in sample(seed):
        slope = slopes(surface.maps.height)
        for place, mark in enumerate(surface.marks, 1 + scene.rotated):
            if mark.kind != "crack":
                continue
            seen = surface.owner[mark.window] == place
            change = []
            for light in ("bf", "dfw"):
                after, before = (
                    lit(maps, slope, light, mark.window).mean(axis=0) for maps in (surface.maps, surface.plain)
                )
                change.append(float(np.abs(after - before)[seen].mean() / before[seen].mean()))
            ratios.append(change[1] / change[0])
    return [
        at_least("relative change by a crack, darkfield over brightfield, least", 3.0, min(ratios)),
        at_least("the same, greatest over least", 2.0, max(ratios) / min(ratios)),
        reported("the same, median", float(np.median(ratios))),
    ]


def contents(seed: int) -> list[Check]:
    """How often what occurs, and what angles dies have."""
    world, hard = world_of("sim"), world_of("hard")
    scenes = [draw_scene(world, seed, number) for number in range(1500)]
    kinds = Counter(_kind(one) for one in scenes)
    mix = world.contents
    total = mix.good + mix.crack + mix.rotate + mix.both
    rows = [
        absolute(f"share of {name}", (1 - mix.missing) * share / total, kinds[name] / len(scenes), 0.035)
        for name, share in (
            ("good", mix.good),
            ("crack", mix.crack),
            ("rotate", mix.rotate),
            ("crack+rotate", mix.both),
        )
    ]
    theta = np.array([one.theta_die_deg for one in scenes])
    turned = np.array([one.rotated for one in scenes])
    present = np.array([not one.missing for one in scenes])
    rows.append(at_most("greatest angle of a good die [deg]", 0.3, np.abs(theta[present & ~turned]).max()))
    rows.append(at_least("least angle of a turned die [deg]", 0.5, np.abs(theta[turned]).min()))
    rows.append(relative("standard deviation of good dies [deg]", 0.12, theta[present & ~turned].std(), 0.10))
    rows.append(absolute("share of turned dies with a positive angle", 0.5, (theta[turned] > 0).mean(), 0.12))
    through = np.abs([draw_scene(hard, seed, number).theta_die_deg for number in range(600)])
    rows.append(absolute("hard: share of dies beyond 0.5 deg", 0.7 / 1.2, (through > 0.5).mean(), 0.06))
    rows.append(at_least("hard: dies within 0.1 deg of the limit", 60, (np.abs(through - 0.5) < 0.1).sum()))
    return rows


VALIDATIONS = (angles, soft_border, boxes_as_told, masks_and_marks, twins, darkfield_contrast, contents)


def run_validation(seed: int) -> list[Check]:
    """All checks of the simulator's geometry, contents and pictures.

    Args:
        seed: Seed of the drawn devices.
    """
    from waferlens.simulate.package.validation_picture import PICTURE_VALIDATIONS

    return [row for test in (*VALIDATIONS, *PICTURE_VALIDATIONS) for row in test(seed)]


@lru_cache(maxsize=1)
def sample(seed: int, count: int = 6) -> tuple[tuple[Scene, Surface], ...]:
    """Surfaces of cracked devices, with marks on their emitters."""
    world = world_of("sim", "contents.good=0", "contents.rotate=0", "clutter.led_mark=1", "cracks.kinds=[0.7,0.2,0.1]")
    scenes = (draw_scene(world, seed, number) for number in range(count))
    return tuple((scene, draw_surface(scene)) for scene in scenes)


def _kind(scene: Scene) -> str:
    if scene.missing:
        return "missing"
    there = (("crack", scene.cracked), ("rotate", scene.rotated))
    return "+".join(name for name, has in there if has) or "good"


def _die_quad(scene: Scene) -> Float[np.ndarray, "4 2"]:
    return scene.die.quad(scene.product.half_u, scene.product.half_v)


def _left_border(scene: Scene) -> Float[np.ndarray, "h w"]:
    """Share of body along the middle of the left side; columns from the image's edge to well inside."""
    x, y = scene.ic.pixel_of(np.array([(-scene.half_u, 0.0)]))[0]
    return paint_surroundings(scene).height[int(y) - 300 : int(y) + 300, : int(x) + 45].astype(np.float64) / BODY_HEIGHT


def _areas(scene: Scene) -> list[float]:
    """Areas of the boxes of a die's defects, whether wires cover them or not."""
    shape = scene.ic.lens.height_px, scene.ic.lens.width_px
    hidden, owner = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    areas = []
    for place, mark in enumerate(draw_defects(scene, hidden, owner), 1):
        x0, y0, x1, y1 = box_of(owner[mark.window] == place, mark.window)
        areas.append((x1 - x0) * (y1 - y0))
    return areas


def _reach(scene: Scene) -> Bool[np.ndarray, "h w"]:
    """Pixels that light changed by a defect can come to."""
    surface = draw_surface(scene)
    touched = np.zeros_like(surface.die)
    for mark in surface.marks:
        if not mark.ignore:
            touched[mark.window] |= (mark.dark > 0) | (mark.light > 0) | (mark.glow > 0)
            if mark.shift is not None:
                touched[mark.window] |= (mark.shift[0] != 0) | (mark.shift[1] != 0)
    # the kernels of the lens end at four standard deviations of the widest point spread
    side = 2 * math.ceil(4 * scene.world.microscope.blur_px[1] * 1.12) + 1
    return cv2.dilate(touched.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
