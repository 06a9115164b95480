"""Fields of one product: the same array of holes again and again, each picture with its own process and acquisition.

A field is rows x columns of the world's cells. Its pose (stage shift and rotation) moves the holes themselves, never
a bitmap: nothing is resampled, so the noise is white in the picture and no interpolation tells a good part from a
defective one. Every number comes from the four streams of (seed, role, index); defects have a stream of their own,
so that the same field without them is a draw away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numba
import numpy as np
from jaxtyping import Float, UInt8, UInt16

from waferlens.errors import UsageError
from waferlens.recipe.hole_world import HoleWorld, Normal
from waferlens.simulate.hole.acquire import Instrument, _one_pole, _poisson, beam_and_scan, draw_instrument
from waferlens.simulate.hole.geometry import (
    CONTOUR_POINTS,
    PIT_REFERENCE_NM,
    REFERENCE_EXPONENT,
    _profile,
    contour_roughness,
    gaussian_field,
    super_ellipse_area,
)
from waferlens.simulate.hole.signal import Material, draw_material, electron_signal
from waferlens.simulate.streams import Stream, stream, uniform

MARGIN_PX = 16
"""Array drawn beyond the picture on each side, so that blur, rim and scan at its edge see what is really there [px]"""
FAR_MARGIN_PX = 34
"""The same where the pose may cut a hole at the picture's edge: then its floor sees as far as the horizon [px]"""
CLEAR_PX = 6.0
"""The pose that leaves every hole whole [px]"""
MOST_PIXELS = 16 * 2**20
UNCHANGED = 1e-5
"""What a defect adds below this share of the plateau's signal (a thousandth of a grey) counts as nothing."""
SIXTEEN_BITS = 257
"""Grey of a 16-bit picture for one grey of an 8-bit one: white stays white."""


class Role(IntEnum):
    """What a picture of a set is for; disjoint streams."""

    REFERENCE = 0
    GOOD = 1
    DEFECTIVE = 2


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """How a field is laid out and how much its pictures differ."""

    rows: int = 3
    """Cells along y."""
    columns: int = 4
    """Cells along x."""
    shift_px: float = 3.0
    """Greatest stage shift along x and along y [px]"""
    angle_deg: float = 0.3
    """Greatest rotation to either side [deg]"""
    bits: int = 8
    """8 or 16; 16 keeps the camera's fractions of a grey."""
    process: float = 0.5
    """Share of the world's hole-to-hole spread of size, place, rotation and floor; its other ranges are drawn once, for
    the product."""
    gain_std: float = 0.01
    """Relative spread of the gain between pictures."""
    offset_std: float = 1.0
    """Spread of the dark level between pictures [grey of 8 bits]"""
    focus_std: float = 0.03
    """Relative spread of the beam's width between pictures."""

    def check(self, world: HoleWorld) -> None:
        """Refuses what cannot be drawn, or not be told apart.

        Raises:
            UsageError: says which option, and what it may be.
        """
        for name, cells in (("--rows", self.rows), ("--columns", self.columns)):
            if cells < 1:
                raise UsageError(f"{name} {cells}: a field has at least one cell each way")
        if self.rows * self.columns * world.height_px * world.width_px > MOST_PIXELS:
            raise UsageError(
                f"--rows {self.rows} --columns {self.columns}: more than {MOST_PIXELS // 2**20} Mpx of "
                f"{world.width_px}x{world.height_px} px cells; take fewer"
            )
        half = min(world.height_px, world.width_px) / 2
        if not 0 <= self.shift_px < half:
            raise UsageError(
                f"--shift-px {self.shift_px:g}: from 0 to below {half:g}, half a cell; an array moved by more "
                "looks like one moved the other way"
            )
        if not 0 <= self.angle_deg <= 5:
            raise UsageError(f"--angle-deg {self.angle_deg:g}: from 0 to 5")
        if self.bits not in (8, 16):
            raise UsageError(f"--bits {self.bits}: 8 or 16")
        for name in ("process", "gain_std", "offset_std", "focus_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)}: a spread is not negative")

    @property
    def scale(self) -> int:
        """Grey of the picture for one grey of 8 bits."""
        return SIXTEEN_BITS if self.bits == 16 else 1


@dataclass(frozen=True, slots=True)
class Product:
    """The design and the line it is made on: what all pictures of a set share."""

    world: HoleWorld
    spec: FieldSpec
    seed: int
    plateau_nm: float
    half_width_x: float
    half_width_y: float
    """Half openings, rescaled for the exponent [px]"""
    exponent: float
    wall: float
    corner: float
    bow: float
    roughness_length: float
    roughness_exponent: float
    floor_length: float
    material: Material
    instrument: Instrument

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a picture [px]"""
        return self.spec.rows * self.world.height_px, self.spec.columns * self.world.width_px

    @property
    def cuts_holes(self) -> bool:
        """Whether a pose may cut a hole at the picture's edge, and show one of beyond it."""
        return self.spec.shift_px + math.radians(self.spec.angle_deg) * math.hypot(*self.shape) / 2 > CLEAR_PX

    @property
    def margin(self) -> int:
        """Array drawn beyond the picture [px]"""
        return FAR_MARGIN_PX if self.cuts_holes else MARGIN_PX

    def stream(self, stream_id: Stream, *sample: int) -> np.random.Generator:
        """A stream of this product; disjoint from those of the world's own data sets."""
        return stream(self.seed, f"{self.world.name}/field", stream_id, *sample)


def draw_product(world: HoleWorld, spec: FieldSpec, seed: int) -> Product:
    """The product of a seed.

    Raises:
        UsageError: the spec cannot be drawn.
    """
    spec.check(world)
    geometry = world.geometry
    rng = stream(seed, f"{world.name}/field", Stream.GEOMETRY)
    exponent = uniform(rng, geometry.exponent)
    rescale = math.sqrt(super_ellipse_area(REFERENCE_EXPONENT) / super_ellipse_area(exponent))
    plateau = world.plateaus[int(rng.integers(len(world.plateaus)))]
    return Product(
        world, spec, seed,
        plateau_nm=plateau if world.plateau_range is None else uniform(rng, world.plateau_range),
        half_width_x=geometry.half_width_x.mean * rescale,
        half_width_y=geometry.half_width_y.mean * rescale,
        exponent=exponent,
        wall=uniform(rng, geometry.wall_width),
        corner=uniform(rng, geometry.corner_rounding),
        bow=uniform(rng, geometry.bow),
        roughness_length=uniform(rng, geometry.roughness_length),
        roughness_exponent=uniform(rng, geometry.roughness_exponent),
        floor_length=uniform(rng, geometry.floor_roughness_length),
        material=draw_material(world, stream(seed, f"{world.name}/field", Stream.MATERIAL)),
        instrument=draw_instrument(world, stream(seed, f"{world.name}/field", Stream.INSTRUMENT)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the stage stood: the design turned about the picture's centre, then moved."""

    dx: float
    """Of the picture's content to the right [px]"""
    dy: float
    """Downwards [px]"""
    angle_deg: float
    """Counter-clockwise as seen from above [deg]"""

    def moved(self, x: float, y: float) -> tuple[float, float]:
        """A point of the design, from its centre, in the picture, from the picture's centre [px]"""
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        return cos * x + sin * y + self.dx, cos * y - sin * x + self.dy

    def matrix(self, shape: tuple[int, int]) -> list[list[float]]:
        """2 x 3, takes a point (x, y) of the picture to the same point of the picture without a pose."""
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        turn = [[cos, -sin], [sin, cos]]
        return [
            [*row, c - row[0] * (cx + self.dx) - row[1] * (cy + self.dy)] for row, c in zip(turn, (cx, cy), strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """One hole of a field, in the picture's pixels."""

    row: int
    column: int
    """Its cell; -1 and `rows` or `columns` are neighbours beyond the field."""
    x: float
    y: float
    """Its centre [px]"""
    turn: float
    """Its rotation from the x axis to the y axis of the array [rad]"""
    half_width_x: float
    half_width_y: float
    floor_nm: float
    """Level of the floor above the reference [nm]"""
    pit: tuple[float, float, float, float, float]
    """Depth [nm], place from the centre, semi-axes [px]"""
    roughness: Float[np.ndarray, "points"]
    """Displacement of the contour [px]"""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The drawn piece of the array: the picture and its margin."""

    profile: Float[np.ndarray, "y x"]
    """0 on the plateau, 1 on the floor, between them the wall."""
    floor: Float[np.ndarray, "y x"]
    """Height of the floor [nm]; what it would be where there is no hole"""
    top: Float[np.ndarray, "y x"]
    """Roughness of the plateau [nm]"""
    deepest: Float[np.ndarray, "y x"]
    """Depth of the deepest point of the hole a pixel belongs to [nm]"""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field before its picture is taken."""

    product: Product
    role: Role
    index: int
    pose: Pose
    holes: tuple[Hole, ...]
    surface: Surface
    signal: Float[np.ndarray, "y x"]
    """Electrons relative to the plateau, with the margin."""
    instrument: Instrument

    def scanned(self, signal: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "h w"]:
        """A signal after beam, scan and shading, without the margin; the scan is the same at every call."""
        rng = self.product.stream(Stream.INSTRUMENT, self.role, self.index, 1)
        margin, (h, w) = self.product.margin, self.product.shape
        return beam_and_scan(signal, self.instrument, rng)[margin : margin + h, margin : margin + w]

    def greys(self, ideals: Sequence[Float[np.ndarray, "h w"]], *, noise: bool = True) -> list[np.ndarray]:
        """What the camera makes of scanned signals, before rounding; all are given the same noise draws.

        A pixel's noise is a function of the draws and of its own signal, so pictures differ only where their signals
        do (or, with a video lag or streaks, right of there). The first is the good part: its black level holds for all.

        Args:
            ideals: After `scanned`.
            noise: False gives the noise-free pictures.

        Returns:
            Grey of 8 bits, clipped to 0 .. 255, not rounded.
        """
        setting = self.instrument
        h, w = self.product.shape
        rng = self.product.stream(Stream.NOISE, self.role, self.index)
        key = rng.integers(2**64, dtype=np.uint64)
        if noise:
            primaries = _poisson(setting.dose, rng.random((h, w)))
            row_gain = 1.0 + setting.row_gain * rng.standard_normal((h, 1))
            read = setting.read_noise * rng.standard_normal((h, w))
        out, level = [], None
        for ideal in ideals:
            x = ideal
            if noise:
                x = _electrons(primaries, setting.yield_plateau * ideal, key) / (setting.dose * setting.yield_plateau)
            if setting.video_lag:
                x = _one_pole(x, setting.video_lag)
            if setting.streak:
                trail = _one_pole(x, setting.streak_length)
                level = trail.mean() if level is None else level
                x = x - setting.streak * (trail - level)
            if noise and setting.row_gain:
                x = x * row_gain
            bright = np.maximum(x, 0.0)
            grey = setting.offset + setting.gain * (bright if setting.gamma == 1.0 else bright**setting.gamma)
            out.append(np.clip(grey + read if noise else grey, 0.0, 255.0))
        return out

    def digitised(self, grey: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
        """Grey in whole numbers of the picture's own scale."""
        spec = self.product.spec
        return np.rint(grey * spec.scale).astype(np.uint16 if spec.bits == 16 else np.uint8)


def draw_field(product: Product, role: Role, index: int) -> Field:
    """One field of a product, without defects; a function of the product, the role and the index."""
    spec, world = product.spec, product.world
    rng = product.stream(Stream.GEOMETRY, role, index)
    # drawn even where it is not used, so that all the other draws are the same with and without a pose
    dx, dy, turn = 2.0 * rng.random(3) - 1.0
    still = role is Role.REFERENCE
    pose = Pose(0.0, 0.0, 0.0) if still else Pose(spec.shift_px * dx, spec.shift_px * dy, spec.angle_deg * turn)
    holes = _draw_holes(product, pose, rng)
    surface = _lay_out(product, holes, rng)

    rng = product.stream(Stream.INSTRUMENT, role, index)
    setting, (gain, offset, focus) = product.instrument, rng.standard_normal(3)
    focused = max(0.5, 1.0 + spec.focus_std * focus)
    setting = replace(
        setting,
        gain=setting.gain * max(0.5, 1.0 + spec.gain_std * gain),
        offset=setting.offset + spec.offset_std * offset,
        beam_x=setting.beam_x * focused,
        beam_y=setting.beam_y * focused,
        drift=world.instrument.drift * min(1.0, world.nuisance / 0.2) * (2.0 * rng.random() - 1.0),
    )
    return Field(product, role, index, pose, holes, surface, surface_signal(product, surface, setting), setting)


def _draw_holes(product: Product, pose: Pose, rng: np.random.Generator) -> tuple[Hole, ...]:
    """The holes of a field and of the ring of cells around it."""
    spec, world, geometry = product.spec, product.world, product.world.geometry
    share, process = spec.process, world.process
    common = rng.standard_normal(2)
    if process is None:
        shift = share * geometry.half_width_x.std * common[0]
        level = geometry.floor.mean
    else:
        shift = process.site_cd_std * common[0]
        level = process.depth_below_plateau - process.site_depth_std * common[1]
    nominal = math.sqrt(product.half_width_x * product.half_width_y)
    cx, cy = (product.shape[1] - 1) / 2, (product.shape[0] - 1) / 2

    def drawn(row: int, column: int) -> Hole:
        size_x, size_y, off_x, off_y, turn, depth = rng.standard_normal(6)
        a = product.half_width_x + shift + share * geometry.half_width_x.std * size_x
        b = product.half_width_y + shift + share * geometry.half_width_y.std * size_y
        x, y = pose.moved(
            (column - (spec.columns - 1) / 2) * world.width_px + _at(geometry.offset, share * off_x),
            (row - (spec.rows - 1) / 2) * world.height_px + _at(geometry.offset, share * off_y),
        )
        angle = math.radians(_at(geometry.rotation, share * turn) - pose.angle_deg)
        if process is None:
            floor = level + share * geometry.floor.std * depth
        else:
            deeper = process.arde_nm_per_px * (math.sqrt(a * b) - nominal)
            floor = level - share * process.hole_depth_std * depth - deeper
        has_pit, pit_depth = rng.random() < geometry.pit_probability, uniform(rng, geometry.pit_depth)
        px, py = 0.5 * a * (2 * rng.random() - 1), 0.5 * b * (2 * rng.random() - 1)
        pit = (pit_depth * has_pit, px, py, rng.uniform(4, 11), rng.uniform(4, 11))
        perimeter = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))
        spectrum = (geometry.roughness_std, product.roughness_length, product.roughness_exponent, perimeter)
        return Hole(
            row, column, cx + x, cy + y, angle, a, b, floor, pit, contour_roughness(rng, *spectrum, CONTOUR_POINTS // 2)
        )

    own = {(row, column): drawn(row, column) for row in range(spec.rows) for column in range(spec.columns)}
    ring = [
        (row, column)
        for row in range(-1, spec.rows + 1)
        for column in range(-1, spec.columns + 1)
        if (row, column) not in own
    ]
    if product.cuts_holes:
        return (*own.values(), *(drawn(row, column) for row, column in ring))
    beyond = []
    still = replace(pose, dx=0.0, dy=0.0)
    for row, column in ring:
        # Only the rims of its neighbours reach into a picture that cuts none: there the field repeats itself, moved by
        # whole pixels, which saves drawing more holes than it has.
        one = own[row % spec.rows, column % spec.columns]
        x, y = still.moved((column - one.column) * world.width_px, (row - one.row) * world.height_px)
        beyond.append(replace(one, row=row, column=column, x=one.x + round(x), y=one.y + round(y)))
    return (*own.values(), *beyond)


def _at(spec: Normal, draw: float) -> float:
    return spec.mean + spec.std * draw


def hole_patch(product: Product, hole: Hole) -> tuple[int, int, Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """A hole for itself.

    Returns:
        Left column and top row on the canvas, wall profile, and squared relative radius.
    """
    cos, sin = math.cos(hole.turn), math.sin(hole.turn)
    a, b = hole.half_width_x, hole.half_width_y
    reach = float(np.abs(hole.roughness).max()) + 2.0
    half_x, half_y = (math.ceil(a * abs(p) + b * abs(q) + reach) for p, q in ((cos, sin), (sin, cos)))
    cx, cy = hole.x + product.margin, hole.y + product.margin
    left, top = math.floor(cx) - half_x, math.floor(cy) - half_y
    # The patch is wider than the hole, so that its periodic boundary is never met.
    profile, radius2, _ = _profile(
        2 * half_y + 2, 2 * half_x + 2, cx - left, cy - top, cos, sin, a, b,
        product.exponent, hole.roughness, product.wall, product.corner, 0.0,
    )  # fmt: skip
    return left, top, profile, radius2


def on_canvas(
    shape: tuple[int, int], left: int, top: int, size: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch lies on a canvas, and which part of the patch that is; empty slices where it lies beyond."""
    spans = []
    for start, length, whole in ((top, size[0], shape[0]), (left, size[1], shape[1])):
        first, last = min(max(start, 0), whole), min(max(start + length, 0), whole)
        spans.append((slice(first, last), slice(first - start, last - start)))
    (rows, from_rows), (columns, from_columns) = spans
    return (rows, columns), (from_rows, from_columns)


def _lay_out(product: Product, holes: Sequence[Hole], rng: np.random.Generator) -> Surface:
    """Paints the holes on the canvas."""
    geometry, margin = product.world.geometry, product.margin
    shape = (product.shape[0] + 2 * margin, product.shape[1] + 2 * margin)
    middle = float(np.mean([hole.floor_nm for hole in holes]))
    profile, floor = np.zeros(shape), np.full(shape, middle)
    deepest = np.full(shape, product.plateau_nm - middle)
    rough = gaussian_field(rng, shape, geometry.floor_roughness.mean, product.floor_length)
    top = np.zeros(shape)
    if geometry.top_roughness_std:
        top = gaussian_field(rng, shape, geometry.top_roughness_std, 2.5)
    patches: dict[int, tuple[float, float, np.ndarray, np.ndarray]] = {}
    for hole in holes:
        # a hole of beyond may be one of the field's, moved: they have their roughness in common
        if id(hole.roughness) not in patches:
            left, above, part, radius2 = hole_patch(product, hole)
            ground = hole.floor_nm + product.bow * (np.minimum(radius2, 1.0) - 0.25)
            depth, px, py, pa, pb = hole.pit
            if depth:
                y, x = np.ogrid[: part.shape[0], : part.shape[1]]
                px, py = px + hole.x + margin - left, py + hole.y + margin - above
                pit = np.exp(-0.5 * ((x - px) / pa) ** 2) * np.exp(-0.5 * ((y - py) / pb) ** 2)
                ground -= depth * (product.plateau_nm / PIT_REFERENCE_NM) ** 2 * pit
            patches[id(hole.roughness)] = hole.x - left, hole.y - above, part, ground
        from_left, from_above, part, ground = patches[id(hole.roughness)]
        here, there = on_canvas(shape, round(hole.x - from_left), round(hole.y - from_above), part.shape)
        part, ground = part[there], ground[there]
        inside = part > 0.0
        np.maximum(profile[here], part, out=profile[here])
        np.copyto(floor[here], ground, where=inside)
        lowest = np.min(ground + rough[here], initial=math.inf, where=part > 0.98)
        if lowest < math.inf:
            np.copyto(deepest[here], product.plateau_nm - lowest, where=inside)
    return Surface(profile, floor + rough, top, deepest)


def surface_signal(product: Product, surface: Surface, setting: Instrument) -> Float[np.ndarray, "y x"]:
    """Electrons relative to the plateau, before beam and camera.

    What the floor's material gives is told from the depth of the pixel's own hole, so that a change of one hole leaves
    the others alone.
    """
    plateau = product.plateau_nm
    z = plateau - (plateau - surface.floor) * surface.profile + (1.0 - surface.profile) * surface.top
    z = np.clip(z, 0.0, 255.0)
    signal = electron_signal(
        z,
        plateau,
        replace(product.material, floor_yield=1.0),
        product.world.pixel_nm,
        asymmetry=setting.asymmetry,
        asymmetry_deg=setting.asymmetry_deg,
    )
    share = np.clip(((plateau - z) / surface.deepest - 0.8) / 0.2, 0.0, 1.0)
    return signal * (1.0 + (product.material.floor_yield - 1.0) * share * share * (3.0 - 2.0 * share))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _uniform(state):  # type: ignore[no-untyped-def]
    """The next state and a number in [0, 1) of a pixel's own stream.

    Source: Steele, Lea & Flood, OOPSLA 2014 (SplitMix64).
    """
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return state, np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _electrons(primaries, per_primary, key):  # type: ignore[no-untyped-def]
    """Poisson numbers of a mean of their own, each pixel from a stream of its own: what happens at one pixel takes
    no number from another, and equal means give equal numbers.

    Source: Hörmann, Insurance: Mathematics and Economics 12 (1993) 39 (transformed rejection); below a mean of 10,
    inversion by sequential search.
    """
    out = np.empty(primaries.shape)
    flat, count, each = out.ravel(), primaries.ravel(), per_primary.ravel()
    for i in range(flat.size):
        mean = count[i] * each[i]
        state = key + np.uint64(i) * np.uint64(0xD1342543DE82EF95)
        k = 0.0
        if mean < 10.0:
            state, u = _uniform(state)
            term = np.exp(-mean)
            total = term
            while u > total and k < 100.0:
                k += 1.0
                term *= mean / k
                total += term
            flat[i] = k
            continue
        spread = 0.931 + 2.53 * np.sqrt(mean)
        a = -0.059 + 0.02483 * spread
        squeeze = 0.9277 - 3.6224 / (spread - 2.0)
        scale = 1.1239 + 1.1328 / (spread - 3.4)
        log_mean = np.log(mean)
        while True:
            state, u = _uniform(state)
            state, v = _uniform(state)
            u -= 0.5
            edge = 0.5 - abs(u)
            k = np.floor((2.0 * a / edge + spread) * u + mean + 0.43)
            if edge >= 0.07 and v <= squeeze:
                break
            if k < 0.0 or (edge < 0.013 and v > edge):
                continue
            if np.log(v * scale / (a / (edge * edge) + spread)) <= k * log_mean - mean - math.lgamma(k + 1.0):
                break
        flat[i] = k
    return out
