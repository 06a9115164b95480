"""Bond wires with their balls and wedges, and dirt on top: what hides a defect, and what it is hidden by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from waferlens.simulate.package.frame import Window, is_empty, ramp
from waferlens.simulate.package.maps import Maps
from waferlens.simulate.package.scene import WIRES, Scene
from waferlens.simulate.package.strokes import stroke
from waferlens.simulate.package.surroundings import GOLD
from waferlens.simulate.streams import Stream, stream

HALF_PX, CORE_PX = 2.6, 1.0
"""Half widths of a wire and of the light on its crest [px]"""
BALL_PX, WEDGE_PX = 8.0, 13.0
"""Radii of the bonds [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Something laid over the surface."""

    window: Window
    cover: Float32[np.ndarray, "h w"]
    colour: Float32[np.ndarray, "3 h w"]
    scatter: Float32[np.ndarray, "h w"]
    rise: Float32[np.ndarray, "h w"]
    """What it adds to the height [px]"""

    def lay(self, maps: Maps) -> None:
        """Lays it."""
        maps.lay(self.window, self.cover, self.colour, self.scatter)
        maps.height[self.window] += self.rise

    @property
    def hides(self) -> Bool[np.ndarray, "h w"]:
        """Pixels of its window that it covers by more than half."""
        return self.cover > 0.5


def draw_wires(scene: Scene) -> list[Piece]:
    """The wires of a device, their bonds included."""
    if scene.missing:
        return []
    rng = stream(scene.root, scene.world.name, Stream.GEOMETRY, scene.number, WIRES)
    scale = scene.ic.scale
    pieces: list[Piece] = []
    for pad, lead in zip(scene.product.pads, scene.product.leads, strict=True):
        off, bow, round_ = rng.normal(0, 1.2, 4), rng.normal(0, 5.0), rng.uniform(0.92, 1.08, 2)
        start = scene.die.pixel_of(np.array([pad]) + off[:2])[0]
        end = scene.leads.pixel_of(np.array([lead]) + off[2:])[0]
        way = end - start
        across = np.array([-way[1], way[0]]) / max(float(np.hypot(*way)), 1e-9)
        middle = 0.5 * (start + end) + bow * scale * across
        t = np.linspace(0, 1, 40)[:, np.newaxis]
        points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        pieces.append(_disc(scene, end, WEDGE_PX * round_[0] * scale, squeezed=0.8, toward=way))
        wire = stroke([(points, np.full(40, HALF_PX * scale))], 1.0, scene.ic.lens)
        pieces.append(_wire(wire.window, wire.cover, wire.away_px))
        pieces.append(_disc(scene, start, BALL_PX * round_[1] * scale))
    return [piece for piece in pieces if not is_empty(piece.window)]


def _wire(window: Window, cover: Float32[np.ndarray, "h w"], away: Float32[np.ndarray, "h w"]) -> Piece:
    """A cylinder: bright along its crest, dark where it falls off."""
    crest = ramp((CORE_PX + 0.4 - away) / 1.2)
    light = np.float32(0.38) + np.float32(0.62) * crest
    colour = np.array(GOLD, np.float32)[:, np.newaxis, np.newaxis] * light
    return Piece(window, cover, colour, np.float32(0.030) + np.float32(0.06) * crest, np.zeros_like(cover))


def _disc(
    scene: Scene, at: np.ndarray, radius: float, squeezed: float = 1.0, toward: np.ndarray | None = None
) -> Piece:
    """A bond: a flattened ball, or the foot of a wedge that is longer along the wire."""
    lens = scene.ic.lens
    reach = radius + 2.0
    x0, x1 = (int(one) for one in np.clip((at[0] - reach, at[0] + reach + 1), 0, lens.width_px))
    y0, y1 = (int(one) for one in np.clip((at[1] - reach, at[1] + reach + 1), 0, lens.height_px))
    window = (slice(y0, y1), slice(x0, x1))
    x = np.arange(x0, x1, dtype=np.float32) - np.float32(at[0])
    y = np.arange(y0, y1, dtype=np.float32)[:, np.newaxis] - np.float32(at[1])
    if toward is not None:
        cos, sin = (toward / max(float(np.hypot(*toward)), 1e-9)).astype(np.float32)
        x, y = x * cos + y * sin, (y * cos - x * sin) / np.float32(squeezed)
    away = np.hypot(x, y)
    cover = ramp(np.float32(radius) - away)
    share = away / np.float32(radius)
    ring = np.exp(-np.square((share - 0.55) / np.float32(0.07)))
    light = np.float32(1.0) - np.float32(0.22) * np.clip(share, 0, 1) ** 4 - np.float32(0.10) * ring
    colour = np.array(GOLD, np.float32)[:, np.newaxis, np.newaxis] * light
    rim = np.exp(-np.square((share - 0.92) / 0.10))
    return Piece(window, cover, colour, np.float32(0.020) + np.float32(0.045) * rim, np.float32(1.6) * cover)
