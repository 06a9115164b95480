"""What is planted in a field: defects as changes of the electron signal, before beam, scan and camera.

Every defect has a size (equivalent diameter: the circle of its area) and a contrast, both of the object itself, before
the beam blurs it. What the blurred, noise-free picture shows of it is measured: peak, mask, box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.simulate.hole.field import UNCHANGED, Field, Hole, hole_patch, on_canvas, surface_signal
from waferlens.simulate.hole.geometry import super_ellipse_area
from waferlens.simulate.streams import Stream

TRIES = 32
"""Places tried for what belongs on the plateau; then the best of them is taken."""
EDGE_PX = 0.6
"""Half the way over which an object's edge falls off [px]"""
RIM_PX = 6.0
"""How far shadows and rims of an object reach beyond it [px]"""
GROOVE_WALL_PX = 3.0
"""Width of the wall of a bridge's groove [px]"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of defect and what of the asked ranges it can be."""

    name: str
    meaning: str
    least_px: float = 0.0
    most_px: float = math.inf
    """Sizes it comes in [px]"""
    light: bool = True
    dark: bool = True
    """Whether it can be brighter, or darker, than what it replaces."""


KINDS = (
    Kind("particle", "a bright soft body with a shadow on one side", dark=False),
    Kind("residue", "a film in or beside a hole, lighter or darker"),
    Kind("missing", "a contact that is closed, half of the time wholly, else in part", dark=False),
    Kind("bridge", "a groove that joins two neighbours", least_px=5.0, light=False),
    Kind("pinhole", "a void in the plateau", most_px=10.0, light=False),
    Kind("scratch", "a thin line over the plateau, with a bright and a dark side", least_px=4.0),
)
"""In the order of their category numbers, from 1."""
KIND_NAMES = tuple(kind.name for kind in KINDS)


@dataclass(frozen=True, slots=True)
class DefectSpec:
    """Which defects are planted."""

    kinds: tuple[str, ...] = KIND_NAMES
    size_px: tuple[float, float] = (2.0, 16.0)
    """Drawn log-uniformly, within what the kind can be; a missing hole has its hole's size [px]"""
    contrast_grey: tuple[float, float] = (6.0, 80.0)
    """Drawn log-uniformly; the sign is drawn where the kind has both [grey of 8 bits]"""
    count: int = 1
    """Defects in each defective picture."""
    margin_px: float = 4.0
    """Between a defect and the edge of the picture [px]"""

    def check(self, cells: int) -> None:
        """Refuses what cannot be planted.

        Args:
            cells: Cells of a field.

        Raises:
            UsageError: says what, and what it may be.
        """
        if not self.kinds:
            raise UsageError(f"no kind of defect is asked for; one or more of {', '.join(KIND_NAMES)}")
        for name in self.kinds:
            if name not in KIND_NAMES:
                raise UsageError(f"defect '{name}' is unknown; one of {', '.join(KIND_NAMES)}")
        if "bridge" in self.kinds and cells < 2:
            raise UsageError("a bridge joins two holes: give --rows or --columns at least 2, or leave it out")
        for name, unit, (low, high) in (("size_px", "px", self.size_px), ("contrast_grey", "grey", self.contrast_grey)):
            if not 0 < low <= high < math.inf:
                raise UsageError(f"{name} runs from low to high, above 0 [{unit}]; got {low:g} to {high:g}")
        if self.count < 1:
            raise UsageError(f"count {self.count}: a defective picture has at least one defect")


@dataclass(frozen=True, slots=True)
class Defect:
    """One planted defect, as drawn."""

    kind: str
    x: float
    y: float
    """Its centre [px]"""
    size_px: float
    """Equivalent diameter of the object [px]"""
    contrast_grey: float
    """Change of grey by the object before the beam, signed [grey of 8 bits]"""


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A defect and what the noise-free picture shows of it."""

    defect: Defect
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1, outer edges of the mask's pixels [px]"""
    mask: Bool[np.ndarray, "h w"]
    """Where the noise-free grey changed by more than half its greatest change."""
    peak_grey: float
    """The greatest change of the noise-free grey, signed [grey of 8 bits]"""
    mean_grey: float
    """Its mean over the mask [grey of 8 bits]"""

    @property
    def area_px(self) -> int:
        """Pixels of the mask [px²]"""
        return int(self.mask.sum())


def plant(field: Field, spec: DefectSpec, only: Sequence[str] | None = None) -> list[tuple[Defect, np.ndarray]]:
    """Draws the defects of a field.

    Args:
        field: A field without defects.
        spec: Which defects.
        only: Their kinds, one a defect; drawn from the spec's if None.

    Returns:
        Each defect and what it adds to the field's signal, with the margin.
    """
    planted = []
    for number in range(spec.count):
        rng = field.product.stream(Stream.GEOMETRY, field.role, field.index, 1 + number)
        drawn = int(rng.integers(len(spec.kinds)))
        kind = KINDS[KIND_NAMES.index(spec.kinds[drawn] if only is None else only[number])]
        low, high = (min(max(end, kind.least_px), kind.most_px) for end in spec.size_px)
        size = low * (high / low) ** rng.random()
        contrast = spec.contrast_grey[0] * (spec.contrast_grey[1] / spec.contrast_grey[0]) ** rng.random()
        dark = rng.random() < 0.5 if kind.light and kind.dark else kind.dark
        planted.append(_MAKERS[kind.name](field, spec, rng, size, -contrast if dark else contrast))
    return planted


def measure(
    field: Field, good: Float[np.ndarray, "h w"], alone: Sequence[tuple[Defect, Float[np.ndarray, "h w"]]]
) -> tuple[Planted, ...]:
    """What the noise-free picture shows of defects.

    Args:
        field: The field they are planted in.
        good: Its scanned signal.
        alone: Each defect and the scanned signal with it alone.
    """
    shown = field.greys([good, *(ideal for _, ideal in alone)], noise=False)
    found = []
    for (defect, _), grey in zip(alone, shown[1:], strict=True):
        change = grey - shown[0]
        peak = float(change.flat[np.abs(change).argmax()])
        mask = np.abs(change) > abs(peak) / 2
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if ys.size:
            box = (xs[0] - 0.5, ys[0] - 0.5, xs[-1] + 0.5, ys[-1] + 0.5)
        else:  # nothing to be seen, as of what is lighter than white
            box = (defect.x, defect.y, defect.x, defect.y)
        mean = float(change[mask].mean()) if ys.size else 0.0
        found.append(Planted(defect, tuple(map(float, box)), mask, peak, mean))
    return tuple(found)


def scanned_with(
    field: Field, good: Float[np.ndarray, "h w"], added: Float[np.ndarray, "y x"]
) -> Float[np.ndarray, "h w"]:
    """The scanned signal with something added; exactly the good one where that changes nothing worth telling."""
    changed = field.scanned(field.signal + added)
    return np.where(np.abs(changed - good) < UNCHANGED, good, changed)


Made = tuple[Defect, np.ndarray]
T = TypeVar("T")


class _Window:
    """The surroundings of a point of the picture on the canvas."""

    def __init__(self, field: Field, x: float, y: float, reach: float) -> None:
        cx, cy = x + field.product.margin, y + field.product.margin
        around = math.ceil(reach + RIM_PX)
        left, top = math.floor(cx) - around, math.floor(cy) - around
        self.here, _ = on_canvas(field.signal.shape, left, top, (2 * around + 2, 2 * around + 2))
        rows, columns = self.here
        self.dy, self.dx = np.mgrid[rows, columns] - np.array([cy, cx])[:, None, None]
        self.flat = 1.0 - field.surface.profile[self.here]
        self.signal = field.signal[self.here]


def _particle(field: Field, spec: DefectSpec, rng: np.random.Generator, size: float, contrast: float) -> Made:
    outline = _Outline(rng, size, roughness=0.06, stretch=0.12)
    x, y = _place(field, spec, rng, size / 2)
    light = 2 * math.pi * rng.random()
    window = _Window(field, x, y, outline.reach)
    cover, rho, r = outline.on(window)
    body = cover * (0.8 + 0.2 * np.minimum(rho, 1.0) ** 2)
    ring = np.exp(-0.5 * ((r - size / 2 - 1.5) / 1.3) ** 2) * (1.0 - cover)
    shape = body - 0.35 * ring * (0.5 + 0.5 * np.cos(np.arctan2(window.dy, window.dx) - light))
    return _added(field, Defect("particle", x, y, size, contrast), window, shape)


def _residue(field: Field, spec: DefectSpec, rng: np.random.Generator, size: float, contrast: float) -> Made:
    outline = _Outline(rng, size, roughness=0.2, stretch=0.35)
    x, y = _place(field, spec, rng, 0.75 * size)
    window = _Window(field, x, y, outline.reach)
    cover, rho, _ = outline.on(window)
    # A hole's floor is nearly black; a film there can only be lighter.
    there = field.instrument.gain * float((window.signal * cover).sum() / cover.sum())
    if there < 1.5 * -contrast:
        contrast = -contrast
    film = cover * (0.85 + 0.15 * np.minimum(rho, 1.0) ** 4)
    return _added(field, Defect("residue", x, y, size, contrast), window, film)


def _pinhole(field: Field, spec: DefectSpec, rng: np.random.Generator, size: float, contrast: float) -> Made:
    outline = _Outline(rng, size, roughness=0.04, stretch=0.08)

    def at(x: float, y: float) -> tuple[_Window, np.ndarray, float]:
        window = _Window(field, x, y, outline.reach)
        cover, _, r = outline.on(window)
        rim = 0.25 * np.exp(-0.5 * ((r - size / 2 - 1.2) / 0.9) ** 2) * (1.0 - cover)
        return window, (cover - rim) * window.flat, float((cover * window.flat).sum() / cover.sum())

    x, y, window, shape = _on_plateau(field, spec, rng, size / 2, 0.95, at)
    return _added(field, Defect("pinhole", x, y, size, contrast), window, shape)


def _scratch(field: Field, spec: DefectSpec, rng: np.random.Generator, size: float, contrast: float) -> Made:
    area = math.pi * size**2 / 4
    length = min(area / rng.uniform(1.2, 2.2), 0.8 * min(field.product.shape))
    width, turn, bend = area / length, math.pi * rng.random(), rng.uniform(-0.5, 0.5) / length

    def at(x: float, y: float) -> tuple[_Window, np.ndarray, float]:
        window = _Window(field, x, y, 0.6 * length + width)
        along = math.cos(turn) * window.dx + math.sin(turn) * window.dy
        across = math.cos(turn) * window.dy - math.sin(turn) * window.dx - bend * (along**2 - length**2 / 12)
        ends = _soft((length / 2 - np.abs(along)) / 2)
        cover = _soft(width / 2 - np.abs(across)) * ends
        side = 0.3 * np.exp(-0.5 * ((across - width / 2 - 1.0) / 0.8) ** 2) * ends * (1.0 - cover)
        return window, (cover - side) * window.flat, float((cover * window.flat).sum() / max(cover.sum(), 1e-9))

    reach = max(abs(math.cos(turn)), abs(math.sin(turn))) * length / 2
    x, y, window, shape = _on_plateau(field, spec, rng, reach, 0.5, at)
    return _added(field, Defect("scratch", x, y, size, contrast), window, shape)


def _missing(field: Field, spec: DefectSpec, rng: np.random.Generator, size: float, contrast: float) -> Made:
    product, surface = field.product, field.surface
    hole = _chosen(_own(field), rng)
    wholly = rng.random() < 0.5
    left, top, part, _ = hole_patch(product, hole)
    here, there = on_canvas(surface.profile.shape, left, top, part.shape)
    profile = surface.profile.copy()
    profile[here] = np.maximum(profile[here] - part[there], 0.0)
    change = surface_signal(product, replace(surface, profile=profile), field.instrument) - field.signal
    floor = np.zeros_like(profile, bool)
    floor[here] = part[there] > 0.98
    full = float(np.median(change[floor])) * _grey_a_signal(field)
    share = 1.0 if wholly else min(1.0, contrast / full)
    area = 4 * hole.half_width_x * hole.half_width_y * super_ellipse_area(product.exponent)
    size = math.sqrt(4 * area / math.pi)
    return Defect("missing", hole.x, hole.y, size, share * full), _local(share * change)


def _bridge(field: Field, spec: DefectSpec, rng: np.random.Generator, size: float, contrast: float) -> Made:
    product, surface, margin = field.product, field.surface, field.product.margin
    own = {(hole.row, hole.column): hole for hole in _own(field)}
    pairs = [
        (hole, own[row + down, column + right])
        for (row, column), hole in own.items()
        for down, right in ((0, 1), (1, 0))
        if (row + down, column + right) in own
    ]
    one, other = _chosen(pairs, rng)
    step = math.hypot(other.x - one.x, other.y - one.y)
    ux, uy = (other.x - one.x) / step, (other.y - one.y) / step
    # the gap, from the profile along the line of centres
    places = np.arange(0.0, step, 0.25)
    line = surface.profile[
        np.rint(one.y + margin + uy * places).astype(int), np.rint(one.x + margin + ux * places).astype(int)
    ]
    open_ = places[line < 0.5]
    start, end = (float(open_[0]), float(open_[-1])) if open_.size else (0.4 * step, 0.6 * step)
    gap, middle = max(end - start, 1.0), (start + end) / 2
    width = min(math.pi * size**2 / 4 / gap, 1.2 * min(one.half_width_x, one.half_width_y))
    x, y = one.x + ux * middle, one.y + uy * middle
    bend = rng.uniform(-0.15, 0.15)
    dy, dx = np.mgrid[: field.signal.shape[0], : field.signal.shape[1]] - np.array([y, x])[:, None, None] - margin
    along, across = ux * dx + uy * dy, ux * dy - uy * dx
    flare = 1.0 + 0.3 * np.minimum((2 * along / gap) ** 2, 4.0)
    wall = min(GROOVE_WALL_PX, max(width, 1.0))
    inside = (np.abs(across - bend * along) - width * flare / 2) / wall
    groove = np.clip(0.5 - inside, 0.0, 1.0) * (np.abs(along) < gap / 2 + product.wall)
    profile = np.maximum(surface.profile, groove)
    change = surface_signal(product, replace(surface, profile=profile), field.instrument) - field.signal
    near = groove * (np.abs(along) < max(0.2 * gap, 1.0))
    core = near >= 0.98 * near.max()
    full = float(np.median(change[core])) * _grey_a_signal(field)
    share = min(1.0, contrast / full) if full < 0 else 1.0
    return Defect("bridge", x, y, math.sqrt(4 * width * gap / math.pi), share * full), _local(share * change)


_MAKERS: dict[str, Callable[[Field, DefectSpec, np.random.Generator, float, float], Made]] = {
    "particle": _particle,
    "residue": _residue,
    "missing": _missing,
    "bridge": _bridge,
    "pinhole": _pinhole,
    "scratch": _scratch,
}


class _Outline:
    """A closed outline about a centre, of a given area: an ellipse with a few waves on it."""

    def __init__(self, rng: np.random.Generator, size: float, roughness: float, stretch: float) -> None:
        modes = np.arange(2, 7)
        self.radius = size / 2
        self.waves = roughness * rng.standard_normal((2, modes.size)) / modes[None]
        self.stretch, self.turn = math.exp(stretch * rng.standard_normal()), math.pi * rng.random()
        phi = 2 * np.pi * np.arange(256) / 256
        waves = self._waves(phi)
        self.waves_area = float(np.sqrt(np.mean(waves**2)))
        self.reach = self.radius * float(waves.max()) / self.waves_area * max(self.stretch, 1.0 / self.stretch)

    def _waves(self, phi: np.ndarray) -> np.ndarray:
        total = np.ones_like(phi)
        for mode, (c, s) in enumerate(self.waves.T, start=2):
            total += c * np.cos(mode * phi) + s * np.sin(mode * phi)
        return np.maximum(total, 0.3)

    def on(self, window: _Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cover 0 .. 1, radius relative to the outline, and distance from its centre [px]"""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        u = (cos * window.dx + sin * window.dy) / self.stretch
        v = (cos * window.dy - sin * window.dx) * self.stretch
        outline = self.radius * self._waves(np.arctan2(v, u)) / self.waves_area
        r = np.hypot(u, v)
        return _soft(outline - r), r / outline, np.hypot(window.dx, window.dy)


def _soft(inside: np.ndarray) -> np.ndarray:
    """0 outside, 1 inside, a smooth step over the edge; `inside` is the distance inwards [px]"""
    q = np.clip(0.5 + inside / (2 * EDGE_PX), 0.0, 1.0)
    return q * q * (3.0 - 2.0 * q)


def _place(field: Field, spec: DefectSpec, rng: np.random.Generator, reach: float) -> tuple[float, float]:
    """A place whose surroundings of `reach` px lie in the picture, with the margin."""
    h, w = field.product.shape
    edges = [min(spec.margin_px + reach, (size - 1) / 2) for size in (w, h)]
    x, y = (edge + (size - 1 - 2 * edge) * rng.random() for edge, size in zip(edges, (w, h), strict=True))
    return float(x), float(y)


def _on_plateau(
    field: Field,
    spec: DefectSpec,
    rng: np.random.Generator,
    reach: float,
    enough: float,
    at: Callable[[float, float], tuple[_Window, np.ndarray, float]],
) -> tuple[float, float, _Window, np.ndarray]:
    """The first place that leaves enough of a defect on the plateau, else the best of those tried."""
    best: tuple[float, float, _Window, np.ndarray] | None = None
    most = -1.0
    for _ in range(TRIES):
        x, y = _place(field, spec, rng, reach)
        window, shape, share = at(x, y)
        if share > most:
            best, most = (x, y, window, shape), share
        if share >= enough:
            break
    assert best is not None
    return best


def _own(field: Field) -> list[Hole]:
    """The holes of the field's own cells."""
    spec = field.product.spec
    return [hole for hole in field.holes if 0 <= hole.row < spec.rows and 0 <= hole.column < spec.columns]


def _chosen(things: Sequence[T], rng: np.random.Generator) -> T:
    return things[int(rng.integers(len(things)))]


def _grey_a_signal(field: Field) -> float:
    """Grey for a unit of signal, about the plateau [grey of 8 bits]"""
    return field.instrument.gain * field.instrument.gamma


def _added(field: Field, defect: Defect, window: _Window, shape: np.ndarray) -> Made:
    added = np.zeros_like(field.signal)
    greatest = max(float(np.abs(shape).max()), 1e-9)  # below 1 where pixels sample a small object beside its middle
    added[window.here] = shape * (defect.contrast_grey / _grey_a_signal(field) / greatest)
    return defect, added


def _local(change: np.ndarray) -> np.ndarray:
    """A change of the signal without the rounding of the transforms all over the canvas."""
    return np.where(np.abs(change) < 1e-7, 0.0, change)
