"""From coarse to fine: starts from correlation, refined level by level, rivals kept until they are beaten.

A start is judged by how much of the image it explains: -share log(1 - r²), the gain in likelihood of a Gaussian model
per pixel, over the share of the image that overlaps, or of its variance where that is less. So neither a small corner
nor an empty part that fits by chance beats the whole that fits as well.

Where the coarse images show nothing of a fine pattern, a patch of a finer level is looked for, and its fit grown to the
whole image.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from waferlens.ops.registration_kernels import covered_share
from waferlens.ops.registration_peaks import fan, peaks
from waferlens.ops.registration_pyramid import (
    Pyramid,
    Weights,
    from_level,
    lively,
    onto_level,
    turn,
)
from waferlens.ops.registration_refine import Light, refine

_FINEST_PIXELS = 420_000  # the finest level has at most so many; more adds time, hardly accuracy
_COARSE_PX = 64  # longer side of the level the search begins on
_COARSE_REFERENCE_PX = 512  # the same of a reference that is larger than the image
_SMALLEST_PX = 16  # shorter side of a level
_FAN_DEG = 2.5  # between angles tried: 1 px at the corners of the coarsest level
_START_SCORE = 0.15  # what fits no better on the coarsest level is noise
_PATCH_PX = 96
_PATCH_FAN_DEG = 1.7
_PATCH_SCORE = 0.3  # a patch that fits no better is not grown
_LEAST_OVERLAP = 0.25
_LOOK_FURTHER = 0.7  # a score below this is worth looking on finer levels
_RIVALS = 4  # carried from level to level
_RIVAL_EVIDENCE = 0.3  # of the best peak's: what has less is no rival
_FAR_SCALE = 1.25  # what stretches by more has gone astray


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a registration may go."""

    max_shift_px: float
    max_angle_deg: float


@dataclass(slots=True, eq=False)
class Candidate:
    """A registration on its way."""

    matrix: Float64[np.ndarray, "2 3"]
    """Full-size points of the image -> of the reference [px]"""
    score: float = 0.0
    share: float = 0.0
    """Of the image, or of the variance of either image, that the overlap holds [1]"""
    evidence: float = 0.0
    """-share log(1 - r²), negative where it is not plausible."""
    light: Light = field(default_factory=Light)


class Search:
    """A pair of images and what is asked of it."""

    def __init__(
        self, image: np.ndarray, reference: np.ndarray, care: np.ndarray | None, motion: str, limits: Limits
    ) -> None:
        self.shape, self.onto, self.motion, self.limits = image.shape, reference.shape, motion, limits
        self.image, self.reference, self.weights = Pyramid(image), Pyramid(reference), Weights(care, image.shape)
        smallest = min(*self.shape, *self.onto)
        self.finest = 0
        while image.size / 4**self.finest > _FINEST_PIXELS and smallest >> (self.finest + 1) >= _SMALLEST_PX:
            self.finest += 1
        self.coarse = self.finest
        while (
            max(self.shape) >> self.coarse > _COARSE_PX or max(self.onto) >> self.coarse > _COARSE_REFERENCE_PX
        ) and smallest >> (self.coarse + 1) >= _SMALLEST_PX:
            self.coarse += 1
        self.enough = 0.005 if self.finest == 0 else 0.01
        """Of a step on the finest level: what then remains is a fraction of it [px of that level]"""
        self.still = turn(0.0, self.shape, self.onto)
        """Where centre lies on centre."""

    def found(self) -> list[Candidate]:
        """What may be the registration, best first; none where nothing fits at all."""
        found = self._down(self._starts(self.coarse), self.coarse)
        if not found or found[0].score < _LOOK_FURTHER:  # a nearly empty image may still lie where it should
            unmoved = self.refined(Candidate(self.still), self.finest, "shift", steps=8, enough=0.03)
            found = self.rivals([*found, *self._down([unmoved], self.finest)])
        for k in range(self.coarse - 1, self.finest - 1, -1):
            if found and found[0].score >= _LOOK_FURTHER and found[0].evidence > 0:
                break
            more = self._down(self._patch_starts(k), k)
            found = more if more and (not found or more[0].evidence > found[0].evidence) else found
        return found

    # starts ---------------------------------------------------------------------------------------------------------

    def _starts(self, k: int) -> list[Candidate]:
        """Rivals of level k, refined there, from the correlation of the whole images."""
        motion = "shift" if self.motion == "shift" else "rigid"
        still = onto_level(self.still, k)[:, 2]
        found = peaks(
            self.image.level(k),
            self.reference.level(k),
            self.weights.level(k),
            angles_deg=[0.0] if motion == "shift" else fan(self.limits.max_angle_deg, _FAN_DEG),
            still=(float(still[1]), float(still[0])),
            max_shift=self.limits.max_shift_px / 2**k,
            least_overlap=_LEAST_OVERLAP,
            most=_RIVALS,
        )
        return self.rivals(
            [
                start
                for evidence, matrix in found
                if evidence >= _RIVAL_EVIDENCE * found[0][0]
                and (start := self.refined(Candidate(from_level(matrix, k)), k, motion, steps=10, enough=0.03)).score
                > _START_SCORE
            ]
        )

    def _patch_starts(self, k: int) -> list[Candidate]:
        """Rivals of level k, from a patch of the image that is looked for in the reference and grown."""
        image, reference, weight = self.image.level(k), self.reference.level(k), self.weights.level(k)
        h, w = (min(_PATCH_PX, n) for n in image.shape)
        y, x = lively(image, weight, (h, w))
        still = onto_level(self.still, k)[:, 2]
        reach = self.limits.max_shift_px / 2**k + _PATCH_PX // 2
        # where the patch can lie at all
        top, left = (
            int(max(0, c + s - reach)) if math.isfinite(reach) else 0 for c, s in ((y, still[1]), (x, still[0]))
        )
        bottom, right = (
            int(min(n, c + s + size + reach)) if math.isfinite(reach) else n
            for c, s, size, n in ((y, still[1], h, reference.shape[0]), (x, still[0], w, reference.shape[1]))
        )
        if bottom - top < _SMALLEST_PX or right - left < _SMALLEST_PX:
            return []
        motion = "shift" if self.motion == "shift" else "rigid"
        found = peaks(
            image[y : y + h, x : x + w],
            reference[top:bottom, left:right],
            weight[y : y + h, x : x + w],
            angles_deg=[0.0] if motion == "shift" else fan(self.limits.max_angle_deg, _PATCH_FAN_DEG),
            still=(y + float(still[1]) - top, x + float(still[0]) - left),
            max_shift=reach,
            least_overlap=0.6,
            most=_RIVALS,
        )
        out = []
        for evidence, matrix in found:
            if evidence < _RIVAL_EVIDENCE * found[0][0]:
                continue
            # from points of the patch and of the window to points of the level
            matrix = matrix.copy()
            matrix[:, 2] += (left, top) - matrix[:, :2] @ (x, y)
            candidate = Candidate(from_level(matrix, k))
            size = 1
            while size * max(h, w) < 2 * max(image.shape):
                part = _grown((y, x), (h, w), size, image.shape)
                candidate = self.refined(candidate, k, motion, steps=8, enough=0.03, part=part)
                if candidate.score < _PATCH_SCORE:
                    break
                size *= 2
            else:
                out.append(candidate)
        return self.rivals(out)

    # refinement -----------------------------------------------------------------------------------------------------

    def _down(self, rivals: list[Candidate], start: int) -> list[Candidate]:
        """The rivals of level `start` at the finest level, best first."""
        for k in range(max(start - 1, self.finest), self.finest - 1, -1):
            if self.motion == "shift" and len(rivals) == 1 and k > self.finest + 1:
                continue  # a shift is known to a tenth of a pixel, of whatever level, and needs no steps between
            # a stretch is looked for once the image is large enough to tell it from a shift
            few = max(self.shape) >> k < 2 * _COARSE_PX and k > self.finest
            motion = "rigid" if few and self.motion != "shift" else self.motion
            enough = 0.02 if k > self.finest else self.enough
            rivals = self.rivals([self._followed(rival, k, motion, enough) for rival in rivals])
        return rivals

    def _followed(self, rival: Candidate, k: int, motion: str, enough: float) -> Candidate:
        """A rival on the next level; by a simpler motion where too little is in the image for what is asked."""
        best = self.refined(rival, k, motion, steps=12, enough=enough)
        for simpler in ("rigid", "shift"):
            if best.evidence >= 0.8 * rival.evidence or motion in ("shift", simpler):
                break
            other = self.refined(rival, k, simpler, steps=12, enough=enough)
            best = max(best, other, key=lambda c: c.evidence)
        return best

    def refined(
        self,
        candidate: Candidate,
        k: int,
        motion: str,
        steps: int,
        enough: float,
        part: tuple[slice, slice] | None = None,
        held: np.ndarray | None = None,
    ) -> Candidate:
        """A candidate refined on level k, by a part of the image or by all of it."""
        image, weight = self.image.smooth(k), self.weights.level(k)
        matrix = onto_level(candidate.matrix, k)
        corner = np.zeros(2)
        if part is not None:
            image, weight = np.ascontiguousarray(image[part]), np.ascontiguousarray(weight[part])
            corner[:] = part[1].start, part[0].start
            matrix[:, 2] += matrix[:, :2] @ corner
        found = refine(
            image,
            self.reference.smooth(k),
            weight,
            matrix,
            motion=motion,
            steps=steps,
            enough=enough,
            light=candidate.light,
            held=held,
            cubic=k == self.finest and part is None,
        )
        matrix = found.matrix
        matrix[:, 2] -= matrix[:, :2] @ corner
        matrix = from_level(matrix, k)
        overlap = covered_share(matrix, *self.shape, *self.onto)
        share = overlap
        for pyramid, variance in zip((self.image, self.reference), found.variances, strict=True):
            share = min(share, overlap * variance / max(pyramid.variance(k), 1e-30))
        evidence = -share * math.log(max(1 - found.score**2, 1e-12)) if found.score > 0 else 0.0
        if overlap < _LEAST_OVERLAP or not self._plausible(matrix):
            evidence -= 1e6
        return Candidate(matrix, found.score, share, evidence, found.light)

    def _plausible(self, matrix: np.ndarray) -> bool:
        (a, b), (c, d) = matrix[:, :2]
        area = a * d - b * c
        return (
            self.away(matrix, ord_=math.inf) <= self.limits.max_shift_px + 0.5 * 2**self.finest
            and abs(math.degrees(math.atan2(c - b, a + d))) <= self.limits.max_angle_deg + 0.5
            and _FAR_SCALE**-2 <= area <= _FAR_SCALE**2
        )

    def centre_shift(self, matrix: np.ndarray) -> Float64[np.ndarray, " 2"]:
        """How far (x, y) the centre is moved in the reference [px]"""
        return (matrix - self.still) @ (0.5 * (self.shape[1] - 1), 0.5 * (self.shape[0] - 1), 1.0)

    def away(self, matrix: np.ndarray, ord_: float = 2) -> float:
        """How far the centre is moved [px]"""
        return float(np.linalg.norm(self.centre_shift(matrix), ord_))

    # rivals ---------------------------------------------------------------------------------------------------------

    def rivals(self, candidates: list[Candidate]) -> list[Candidate]:
        """The distinct ones among the candidates that may still win, best first."""
        candidates = [c for c in candidates if np.isfinite(c.matrix).all() and c.score > 0]
        candidates.sort(key=lambda c: -c.evidence)
        out: list[Candidate] = []
        for candidate in candidates:
            if out and candidate.evidence < _RIVAL_EVIDENCE * out[0].evidence:
                break
            if all(self._apart(candidate, other) > 0.02 * max(self.shape) ** 0.5 * 2**self.finest + 1 for other in out):
                out.append(candidate)
        if len(out) > _RIVALS:  # a defect at the border makes shifts that push it off look better: the least is kept
            last = min(out[_RIVALS - 1 :], key=lambda c: self.away(c.matrix))
            out = [*out[: _RIVALS - 1], last]
        return out

    def _apart(self, one: Candidate, other: Candidate) -> float:
        """Largest distance between where two candidates put a corner [px]"""
        h, w = self.shape
        corners = np.array([[0, w - 1, 0, w - 1], [0, 0, h - 1, h - 1], [1, 1, 1, 1]])
        return float(np.abs((one.matrix - other.matrix) @ corners).max())


def _grown(corner: tuple[int, int], size: tuple[int, int], times: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    """A patch grown about its centre, cut to the image."""
    out = []
    for at, length, n in zip(corner, size, shape, strict=True):
        middle, half = at + 0.5 * length, 0.5 * length * times
        out.append(slice(max(0, int(middle - half)), min(n, int(middle + half))))
    return out[0], out[1]
