"""Reference planes and forms of height maps, and the points that do not belong to them.

A map is `h w` with NaN, infinity or `valid=False` where nothing was measured; such points never take part. Positions
are counted in pixels from the centre of the map, x to the right and y **down** the rows, because centred coordinates
keep the normal equations well conditioned. What cannot be determined (fewer than three points, points on one line) is
NaN.

Sources: ISO 25178-2:2021 (F-operation); Rousseeuw & Leroy, Robust Regression and Outlier Detection, 1987 (least
median of squares, reweighted least squares); Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993 (MAD and its
fall-back).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

OUTLIER_SIGMA = 5.0
"""A point farther from the robust plane than this many robust standard deviations is an outlier"""
_FIT_POINTS = 2**20  # enough for a plane: of larger maps a sample is fitted, and every point is judged
_SAMPLE = 20_000
_TRIPLES = 300


@dataclass(frozen=True, slots=True)
class Plane:
    """z = centre + slope_x * (x - xc) + slope_y * (y - yc), with (xc, yc) the middle of the map."""

    centre: float
    """Height of the plane in the middle of the map [unit of the heights]"""
    slope_x: float
    """Rise towards the right [unit of the heights / px]"""
    slope_y: float
    """Rise down the rows [unit of the heights / px]"""

    @property
    def known(self) -> bool:
        """Whether the points determined it."""
        return math.isfinite(self.centre + self.slope_x + self.slope_y)

    def over(self, shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
        """The plane's heights over a map of this shape."""
        x, y = centred_axes(shape)
        return (self.centre + self.slope_y * y)[:, None] + (self.slope_x * x)[None, :]


UNKNOWN = Plane(math.nan, math.nan, math.nan)
"""What a fit answers when the points determine no plane."""


@dataclass(frozen=True, slots=True, eq=False)
class RobustPlane:
    """A plane that spikes, holes and up to half of the points cannot pull, and who was left out."""

    plane: Plane
    scale: float
    """Robust standard deviation about the plane [unit of the heights]"""
    inliers: Bool[np.ndarray, "h w"]
    """Valid points within `OUTLIER_SIGMA` robust standard deviations"""


def centred_axes(shape: tuple[int, int]) -> tuple[Float[np.ndarray, " w"], Float[np.ndarray, " h"]]:
    """Pixel coordinates x and y counted from the middle of the map [px]."""
    h, w = shape
    return np.arange(w) - (w - 1) / 2, np.arange(h) - (h - 1) / 2


def known_points(
    heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Where a height may be used: finite, and valid where a mask says so."""
    finite = np.isfinite(heights)
    return finite if valid is None else finite & valid


def polynomial_form(
    heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None, *, order: int = 2
) -> Float[np.ndarray, "h w"]:
    """The least-squares polynomial of total degree `order` over the whole map; NaN where undetermined.

    The normal equations are moments of the map, and moments are two small matrix products, so no row of the design
    matrix is ever built. Coordinates run from -1 to 1, which keeps the condition number small for low orders.
    """
    terms = [(p, q) for q in range(order + 1) for p in range(order + 1 - q)]
    coefficients = _least_squares(heights, valid, terms)
    powers_x, powers_y = _powers(heights.shape, order)
    table = np.zeros((order + 1, order + 1))
    for (p, q), coefficient in zip(terms, coefficients, strict=True):
        table[q, p] = coefficient
    return powers_y.T @ table @ powers_x


def fit_plane(heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None) -> Plane:
    """The least-squares plane through the valid points."""
    at_centre, along_x, along_y = _least_squares(heights, valid, [(0, 0), (1, 0), (0, 1)])
    half_x, half_y = _half_extent(heights.shape)
    return Plane(float(at_centre), float(along_x / half_x), float(along_y / half_y))


def fit_plane_through(
    heights: Float[np.ndarray, "h w"],
    points: list[tuple[float, float]],
    valid: Bool[np.ndarray, "h w"] | None = None,
    *,
    radius: float = 2.0,
) -> Plane:
    """The plane through three places of the map, the height of each being the median of its patch.

    Args:
        heights: the map.
        points: three places (x, y), (0, 0) being the first pixel [px]
        valid: which points may be used.
        radius: radius of the patch round each place [px]

    Raises:
        ValueError: not three places, a place outside the map, or a patch without a valid point.
    """
    if len(points) != 3:
        raise ValueError(f"a plane needs three points, got {len(points)}")
    h, w = heights.shape
    known = known_points(heights, valid)
    xc, yc = (w - 1) / 2, (h - 1) / 2
    rows, levels = [], []
    for x, y in points:
        if not (0 <= x <= w - 1 and 0 <= y <= h - 1):
            raise ValueError(f"point ({x:g}, {y:g}) lies outside the map of {w} x {h} px")
        patch = _patch(heights, known, x, y, radius)
        if patch.size == 0:
            raise ValueError(f"no valid point within {radius:g} px of ({x:g}, {y:g}); choose another point")
        rows.append((1.0, x - xc, y - yc))
        levels.append(float(np.median(patch)))
    design = np.array(rows)
    if np.linalg.matrix_rank(design) < 3:
        return UNKNOWN
    centre, slope_x, slope_y = np.linalg.solve(design, np.array(levels))
    return Plane(float(centre), float(slope_x), float(slope_y))


def three_points(
    known: Bool[np.ndarray, "h w"], *, reach: float = 0.8, radius: float = 2.0
) -> list[tuple[float, float]]:
    """Three places 120° apart round the middle of the valid area, at `reach` of the way to its edge.

    Chosen from the valid area and not from the frame, because a wafer or a chip rarely fills its frame. Fewer than
    three are returned where a ray meets no valid area.
    """
    if not known.any():
        return []
    h, w = known.shape
    rows, columns = known.any(axis=1).nonzero()[0], known.any(axis=0).nonzero()[0]
    weight = known.sum()
    middle_x = float(known.sum(axis=0) @ np.arange(w) / weight)
    middle_y = float(known.sum(axis=1) @ np.arange(h) / weight)
    longest = math.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)
    places = []
    for degrees in (90, 210, 330):
        dx, dy = math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
        steps = np.arange(0, longest, 0.5)
        x, y = middle_x + steps * dx, middle_y + steps * dy
        inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
        x, y = x[inside], y[inside]
        on_valid = known[np.rint(y).astype(int), np.rint(x).astype(int)].nonzero()[0]
        if on_valid.size == 0:
            continue
        # Walk back from the wished place to the nearest one that stands on valid ground.
        wished = on_valid[-1] * reach
        at = on_valid[np.argmin(np.abs(on_valid - wished))]
        places.append((float(np.rint(x[at])), float(np.rint(y[at]))))
    return places


def fit_plane_robust(
    heights: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"] | None = None,
    *,
    threshold: float = OUTLIER_SIGMA,
    seed: int = 0,
) -> RobustPlane:
    """Least median of squares to find the plane most points lie on, then least squares over the points near it.

    The second step is repeated until it leaves out the same points twice. The draw of trial triples has a fixed seed:
    the same map always gives the same plane.
    """
    known = known_points(heights, valid)
    unknown = RobustPlane(UNKNOWN, math.nan, known)
    places = np.flatnonzero(known)
    rng = np.random.default_rng(seed)
    if places.size > _FIT_POINTS:
        places = rng.choice(places, _FIT_POINTS, replace=False)
    h, w = heights.shape
    x, y = places % w - (w - 1) / 2, places // w - (h - 1) / 2
    z = heights.reshape(-1)[places].astype(np.float64)
    plane = _least_median_of_squares(x, y, z, rng)
    if not plane.known:
        return unknown
    inside, allowed, scale = None, 0.0, math.nan
    for _ in range(50):
        residual = z - plane.centre - plane.slope_x * x - plane.slope_y * y
        scale = robust_sigma(residual)
        # A plane met exactly leaves rounding errors as residuals; those are no outliers.
        allowed = max(threshold * scale, 1e-9 * float(np.ptp(z)))
        within = np.abs(residual) <= allowed
        if inside is not None and np.array_equal(within, inside):
            break
        inside = within
        design = np.stack((np.ones(int(inside.sum())), x[inside], y[inside]), axis=1)
        normal = design.T @ design
        if np.linalg.matrix_rank(normal, hermitian=True) < 3:
            return unknown
        offset = float(z[inside].mean())
        solution = np.linalg.solve(normal, design.T @ (z[inside] - offset))
        plane = Plane(float(solution[0]) + offset, float(solution[1]), float(solution[2]))
    with np.errstate(invalid="ignore"):
        inliers = known & (np.abs(heights - plane.over(heights.shape)) <= allowed)
    return RobustPlane(plane, scale, inliers)


def within_percentiles(
    heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None, *, percent: float
) -> Bool[np.ndarray, "h w"]:
    """Valid points strictly between the `percent` and the `100 - percent` percentile of the valid heights."""
    known = known_points(heights, valid)
    if not known.any():
        return known
    low, high = np.percentile(heights[known], (percent, 100 - percent))
    return known & (heights > low) & (heights < high)


def robust_sigma(residual: Float[np.ndarray, " n"]) -> float:
    """1.4826 times the median absolute deviation: the standard deviation, were the middle half Gaussian.

    Where more than half of the values are equal the median says 0 and the mean absolute deviation takes its place.
    """
    deviation = np.abs(residual - np.median(residual))
    mad = float(np.median(deviation))
    return 1.4826 * mad if mad > 0 else 1.2533 * float(deviation.mean())


def _least_squares(
    heights: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None, terms: list[tuple[int, int]]
) -> Float[np.ndarray, " k"]:
    """Coefficients of x^p y^q, coordinates -1..1; NaN where the points do not determine them."""
    known = known_points(heights, valid)
    if int(known.sum()) < len(terms):
        return np.full(len(terms), math.nan)
    order = max(p + q for p, q in terms)
    powers_x, powers_y = _powers(heights.shape, 2 * order)
    # The offset of a map can be 10^5 times its relief: taken off first, it costs no digits.
    offset = float(heights[known].mean(dtype=np.float64))
    relief = np.where(known, heights.astype(np.float64, copy=False) - offset, 0.0)
    area = powers_y @ known.astype(np.float64) @ powers_x.T
    weighted = powers_y[: order + 1] @ relief @ powers_x[: order + 1].T
    normal = np.array([[area[q + s, p + r] for r, s in terms] for p, q in terms])
    if np.linalg.matrix_rank(normal, hermitian=True) < len(terms):
        return np.full(len(terms), math.nan)
    solution = np.linalg.solve(normal, np.array([weighted[q, p] for p, q in terms]))
    solution[terms.index((0, 0))] += offset
    return solution


def _powers(shape: tuple[int, int], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers 0..order of the coordinates scaled to -1..1, one row each."""
    x, y = centred_axes(shape)
    half_x, half_y = _half_extent(shape)
    exponents = np.arange(order + 1)[:, None]
    return (x / half_x)[None, :] ** exponents, (y / half_y)[None, :] ** exponents


def _half_extent(shape: tuple[int, int]) -> tuple[float, float]:
    h, w = shape
    return max((w - 1) / 2, 0.5), max((h - 1) / 2, 0.5)


def _patch(heights: np.ndarray, known: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    h, w = heights.shape
    x0, x1 = max(0, math.floor(x - radius)), min(w, math.ceil(x + radius) + 1)
    y0, y1 = max(0, math.floor(y - radius)), min(h, math.ceil(y + radius) + 1)
    rows, columns = np.mgrid[y0:y1, x0:x1]
    near = (np.hypot(columns - x, rows - y) <= radius) & known[y0:y1, x0:x1]
    return heights[y0:y1, x0:x1][near]


def _least_median_of_squares(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> Plane:
    """The plane through three points with the smallest median residual, over random triples of a sample."""
    if x.size < 3:
        return UNKNOWN
    if x.size > _SAMPLE:
        chosen = rng.choice(x.size, _SAMPLE, replace=False)
        x, y, z = x[chosen], y[chosen], z[chosen]
    best, smallest = UNKNOWN, math.inf
    for _ in range(_TRIPLES):
        corner = rng.integers(0, x.size, 3)
        design = np.stack((np.ones(3), x[corner], y[corner]), axis=1)
        # Twice the area of the triangle: three points on one line determine nothing.
        if abs(np.linalg.det(design)) < 0.5:
            continue
        centre, slope_x, slope_y = np.linalg.solve(design, z[corner])
        median = float(np.median(np.abs(z - centre - slope_x * x - slope_y * y)))
        if median < smallest:
            best, smallest = Plane(float(centre), float(slope_x), float(slope_y)), median
    return best
