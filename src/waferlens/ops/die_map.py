"""The map of dies: which sites of the lattice lie in an image, where, whether a die is on them, and how high.

Pixels that are die make pieces, pieces make rectangles, and the rectangles' edges make a lattice: pitch, width of a die
and phase of each axis by least absolute deviations, wherever enough edges are seen. Each site that the lattice puts
into the image is then judged by the pixels on it. Sites that the image cuts are parts of dies; where no edge tells how
large a die is, its box ends at the border of the image.

Classes of pixels say most. Without them a height of half the product's lowest die parts dies from carrier, and a site
without a die is known only from its neighbours: it has to lie between two sites of its row or of its column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from waferlens.errors import UsageError
from waferlens.ops.die_lattice import SAME_EDGE_UM, Axis, Box, Piece, bands, fit_axis, rectangles
from waferlens.ops.die_levels import CLEAR_UM, inner_pixels, measured_die
from waferlens.ops.sub_pixel_edges import EdgeFit, EdgeLine, refine_edges
from waferlens.records import Die, Product

State = Literal["present", "missing", "unsure"]

LEAST_PART_UM = 100.0
"""A part of a site that is narrower than this in the image decides nothing [um]"""
SURE = 0.8
"""Mean probability, or share of the pixels, from which a site is present or missing"""


@dataclass(frozen=True, slots=True)
class DieMap:
    """The sites of an image, in rows from the top and from the left."""

    dies: tuple[Die, ...]
    reasons: tuple[str, ...]
    """Of each site why it is unsure, or how a missing one was inferred; empty where its pixels say so."""
    x: Axis | None
    """None where fewer edges are seen than tell it."""
    y: Axis | None
    edges: tuple[tuple[EdgeFit | None, EdgeFit | None, EdgeFit | None, EdgeFit | None], ...] | None
    """Of each site its edges x0 y0 x1 y1 as the image shows them; None where an edge lies outside; None for all where
    no image was given."""

    @property
    def pitch_x_um(self) -> float | None:
        """[um]"""
        return None if self.x is None else self.x.pitch_um

    @property
    def pitch_y_um(self) -> float | None:
        """[um]"""
        return None if self.y is None else self.y.pitch_um

    def count(self, state: State) -> int:
        """How many sites are in a state."""
        return sum(die.state == state for die in self.dies)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a site, as a table holds it."""
        rows = []
        for number, (die, reason) in enumerate(zip(self.dies, self.reasons, strict=True)):
            row: dict[str, Any] = {"site": number}
            row |= dict(zip(("x0_um", "y0_um", "x1_um", "y1_um"), die.box_um, strict=True))
            row |= {"state": die.state, "top_um": die.top_um, "levels": len(die.levels)}
            fits = (None,) * 4 if self.edges is None else self.edges[number]
            for name, fit in zip(("x0", "y0", "x1", "y1"), fits, strict=True):
                row[f"{name}_sigma_um"] = fit.sigma_um if fit is not None and fit.found else None
            row["reason"] = reason
            rows.append(row)
        return rows

    def as_json(self) -> dict[str, Any]:
        """The map as a dictionary that JSON can hold."""
        sites = [asdict(die) | {"reason": reason} for die, reason in zip(self.dies, self.reasons, strict=True)]
        for row, site in zip(self.rows(), sites, strict=True):
            site["edge_sigma_um"] = [row[f"{name}_sigma_um"] for name in ("x0", "y0", "x1", "y1")]
        axes = {name: None if axis is None else asdict(axis) for name, axis in (("x", self.x), ("y", self.y))}
        return {"lattice": axes, "sites": sites}


def die_map(
    height_um: Float[np.ndarray, "h w"],
    classes: Float[np.ndarray, "3 h w"] | None,
    image: Float[np.ndarray, "h w"] | None,
    pitch_um: float,
    *,
    product: Product | None = None,
    least_part_um: float = LEAST_PART_UM,
    sure: float = SURE,
    rim_um: float | None = None,
    focus_um: float | Float[np.ndarray, " w"] | None = None,
    na: float | None = None,
    wavelength_um: float = 0.55,
    black: float = 0.0,
) -> DieMap:
    """Finds the sites of a field, a swath or a whole wafer.

    Args:
        height_um: above the carrier, NaN where not known [um]
        classes: probabilities of die, street and missing of each pixel
        image: of the same grid, in proportion to the light; refines the edges of present dies [grey]
        pitch_um: distance of neighbouring pixels [um]
        product: the nominal stack; needed where there are no classes
        least_part_um: parts of sites that are narrower in the image stay unsure [um]
        sure: mean probability, or share of the pixels, from which a site is present or missing
        rim_um: width of the dark rim of the dies' walls, if it is known (`sub_pixel_edges`) [um]
        focus_um: height of the plane of focus, of the image or of each column; with na it tells the blur of each edge,
            which makes edges surer [um]
        na: numerical aperture of the objective
        wavelength_um: of the light [um]
        black: grey of no light, glare included [grey]

    Raises:
        UsageError: shapes differ, a number is out of range, focus comes without na or na without focus, or there is
            neither a class map nor a product.
    """
    _require(height_um, classes, image, pitch_um, product, sure)
    h, w = height_um.shape
    blur = None
    if focus_um is not None or na is not None:
        blur = _blur(focus_um, na, wavelength_um, w)
    extent = (w * pitch_um, h * pitch_um)
    die, missing, known = _kinds(height_um, classes, product)
    pieces = rectangles(die >= 0.5, pitch_um, False)
    if missing is not None:
        pieces += rectangles(missing >= 0.5, pitch_um, True)
    axes = [fit_axis(pieces, axis, extent[axis]) for axis in (0, 1)]
    columns, rows = (bands(pieces, axes[axis], axis, extent[axis]) for axis in (0, 1))
    sites: list[tuple[int, int, Box, State, str]] = []
    for row, (y0, y1) in rows:
        for column, (x0, x1) in columns:
            box = (x0, y0, x1, y1)
            state, reason = _judged(box, (die, missing, known), pitch_um, (h, w), least_part_um, sure)
            sites.append((row, column, box, state, reason))
    sites = _between(sites, missing is not None, axes)
    dies, reasons = [], []
    for _, _, box, state, reason in sites:
        die_record = Die(box, state)
        if state == "present":
            own = _own_box(box, pieces)
            die_record, doubt = measured_die(height_um, own, pitch_um, product)
            reason = reason or doubt
        dies.append(die_record)
        reasons.append(reason)
    edges = None
    if image is not None:
        dies, edges = _refined(dies, image, pitch_um, blur, rim_um, black)
    return DieMap(tuple(dies), tuple(reasons), axes[0], axes[1], edges)


def _require(
    height_um: np.ndarray,
    classes: np.ndarray | None,
    image: np.ndarray | None,
    pitch_um: float,
    product: Product | None,
    sure: float,
) -> None:
    if height_um.ndim != 2 or 0 in height_um.shape:
        raise UsageError(f"height_um has shape {height_um.shape}; a map has rows and columns")
    if classes is not None and classes.shape != (3, *height_um.shape):
        raise UsageError(f"classes has shape {classes.shape}; expected {(3, *height_um.shape)}: die, street, missing")
    if image is not None and image.shape != height_um.shape:
        raise UsageError(f"image has shape {image.shape}, height_um {height_um.shape}; they must be of one grid")
    if not (math.isfinite(pitch_um) and pitch_um > 0):
        raise UsageError(f"pitch_um = {pitch_um:g} must be positive")
    if not 0.5 < sure <= 1:
        raise UsageError(f"sure = {sure:g} must be more than a half and at most 1")
    if classes is None and product is None:
        raise UsageError("without classes the thickness of a die tells it from the carrier: give classes or a product")


def _kinds(
    height_um: np.ndarray, classes: np.ndarray | None, product: Product | None
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"] | None, Bool[np.ndarray, "h w"]]:
    """Probability of die, of missing if it is told, and where anything is known."""
    if classes is not None:
        known = np.isfinite(classes[0]) & np.isfinite(classes[2])
        die, missing = classes[0], classes[2]
        if not known.all():
            die, missing = np.where(known, die, 0), np.where(known, missing, 0)
        return die, missing, known
    assert product is not None  # _require has seen to it
    known = np.isfinite(height_um)
    with np.errstate(invalid="ignore"):
        return (height_um > 0.5 * product.die_thickness_um).astype(np.float32), None, known


def _judged(
    box: Box,
    planes: tuple[np.ndarray, np.ndarray | None, np.ndarray],
    pitch_um: float,
    shape: tuple[int, int],
    least_um: float,
    sure: float,
) -> tuple[State, str]:
    """Whether a die is on a site, by its pixels alone."""
    extent = (shape[1] * pitch_um, shape[0] * pitch_um)
    seen = [min(box[axis + 2], extent[axis]) - max(box[axis], 0.0) for axis in (0, 1)]
    if min(seen) < least_um:
        return "unsure", f"only {max(0.0, min(seen)):.0f} um of it lie in the image; {least_um:g} are needed"
    x0, y0, x1, y1 = inner_pixels(box, pitch_um, shape, CLEAR_UM)
    area = max(0, x1 - x0) * max(0, y1 - y0)
    if area == 0:
        return "unsure", "no pixel lies wholly inside it"

    window = (slice(y0, y1), slice(x0, x1))
    die, known = planes[0][window], planes[2][window]
    missing = None if planes[1] is None else planes[1][window]
    told = int(np.count_nonzero(known))
    if told < 0.5 * area:
        return "unsure", f"{100 * (1 - told / area):.0f} % of it is not known"
    share = float(die.sum(dtype=np.float64)) / told
    if share >= sure:
        return "present", ""
    if missing is None:
        if share <= 1 - sure:
            return "missing", ""
        return "unsure", f"{100 * share:.0f} % of it is as high as a die"
    bare = float(missing.sum(dtype=np.float64)) / told
    if bare >= sure:
        return "missing", ""
    return "unsure", f"probability of a die {share:.2f}, of a missing one {bare:.2f}; {sure:g} is needed"


def _between(
    sites: list[tuple[int, int, Box, State, str]], told: bool, axes: list[Axis | None]
) -> list[tuple[int, int, Box, State, str]]:
    """Bare sites that their neighbours prove, and not those beyond the last die of a row and column."""
    here = np.array([(row, column) for row, column, *_ in sites]).reshape(-1, 2)
    shown = np.array([site[3] == "present" or (told and site[3] == "missing") for site in sites], bool)
    by_row, by_column = _ends(here[shown], 0), _ends(here[shown], 1)
    kept = []
    for site in sites:
        row, column, box, state, reason = site
        low, high = by_row.get(row, (math.inf, -math.inf))
        top, bottom = by_column.get(column, (math.inf, -math.inf))
        inner = low < column < high or top < row < bottom
        if told:
            bare = state == "unsure" and reason.startswith("probability of a die 0.0")
            if bare and not inner:
                continue  # off the wafer, or beyond the last die: no pixel says it is a site
            if bare and None not in axes:
                kept.append((row, column, box, "missing", "no die on it, and it lies between others of the lattice"))
                continue
            kept.append(site)
        elif state != "missing":
            kept.append(site)
        elif inner:
            kept.append((row, column, box, state, "bare, and it lies between others of the lattice"))
    return kept


def _ends(places: np.ndarray, axis: int) -> dict[int, tuple[float, float]]:
    """The first and the last place of each row, or of each column."""
    ends: dict[int, tuple[float, float]] = {}
    for place in places:
        line, at = int(place[axis]), float(place[1 - axis])
        low, high = ends.get(line, (at, at))
        ends[line] = (min(low, at), max(high, at))
    return ends


def _own_box(box: Box, pieces: Sequence[Piece]) -> Box:
    """The box of a die by its own edges where it shows them; dies are jittered about their lattice."""
    own = list(box)
    for piece in pieces:
        if piece.missing:
            continue
        middle = (0.5 * (piece.box[0] + piece.box[2]), 0.5 * (piece.box[1] + piece.box[3]))
        if not (box[0] < middle[0] < box[2] and box[1] < middle[1] < box[3]):
            continue
        for edge in range(4):
            if not piece.cut[edge] and abs(piece.box[edge] - box[edge]) < SAME_EDGE_UM:
                own[edge] = piece.box[edge]
    return (own[0], own[1], own[2], own[3])


def _blur(
    focus_um: float | np.ndarray | None, na: float | None, wavelength_um: float, columns: int
) -> tuple[Float[np.ndarray, " w"], float, float]:
    """Focus of each column, blur a height away from it, and blur in focus."""
    if focus_um is None or na is None:
        raise UsageError("the blur of edges needs both focus_um and na; give the other one, or neither")
    if not 0 < na < 1:
        raise UsageError(f"na = {na:g} must lie between 0 and 1, in air")
    focus = np.broadcast_to(np.asarray(focus_um, np.float64), (columns,))
    return focus, 0.5 * math.tan(math.asin(na)), 0.21 * wavelength_um / na


def _away(die: Die, edge: int, blur: tuple[Float[np.ndarray, " w"], float, float], pitch_um: float) -> float | None:
    """Blur across an edge of a die, whose lowest level ends there [um]"""
    focus, share, waves = blur
    if not die.levels:
        return None
    column = slice(None) if edge % 2 else min(len(focus) - 1, max(0, int(die.box_um[edge] / pitch_um)))
    plane = float(np.nanmedian(focus[column])) if np.isfinite(focus[column]).any() else math.nan
    return math.hypot(share * (die.levels[0][4] - plane), waves) if math.isfinite(plane) else None


def _refined(
    dies: Sequence[Die],
    image: np.ndarray,
    pitch_um: float,
    blur: tuple[Float[np.ndarray, " w"], float, float] | None,
    rim_um: float | None,
    black: float,
) -> tuple[list[Die], tuple[tuple[EdgeFit | None, EdgeFit | None, EdgeFit | None, EdgeFit | None], ...]]:
    """Present dies with their outer edges as the image shows them."""
    h, w = image.shape
    extent = (w * pitch_um, h * pitch_um)
    lines, owners = [], []
    for number, die in enumerate(dies):
        if die.state != "present":
            continue
        for edge in range(4):
            axis = edge % 2
            at = die.box_um[edge]
            if not pitch_um < at < extent[axis] - pitch_um:
                continue
            low, high = die.box_um[1 - axis], die.box_um[3 - axis]
            away = None if blur is None else _away(die, edge, blur, pitch_um)
            name: Literal["x", "y"] = "x" if axis == 0 else "y"
            lines.append(EdgeLine(name, at, low + 3 * CLEAR_UM, high - 3 * CLEAR_UM, edge < 2, away))
            owners.append((number, edge))
    found: list[list[EdgeFit | None]] = [[None] * 4 for _ in dies]
    for (number, edge), fit in zip(
        owners, refine_edges(image, lines, pitch_um, rim_um=rim_um, black=black), strict=True
    ):
        found[number][edge] = fit
    refined = []
    for die, fits in zip(dies, found, strict=True):
        box = [fit.at_um if fit is not None and fit.found else at for fit, at in zip(fits, die.box_um, strict=True)]
        new: Box = (box[0], box[1], box[2], box[3])
        levels = die.levels
        if levels and levels[0][:4] == die.box_um:
            levels = ((*new, levels[0][4]), *levels[1:])
        refined.append(replace(die, box_um=new, levels=levels))
    return refined, tuple((one[0], one[1], one[2], one[3]) for one in found)
