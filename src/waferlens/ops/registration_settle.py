"""Of registrations that fit, the one to believe.

Patterns that repeat have rivals that are as good: the one that is moved least is taken, and said. Lines leave the shift
along them open, a round hole the angle: that part is left as it was, and said.

numba is imported with this file: import it where it is used, not at start-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from waferlens.ops.registration_kernels import seen_by_all
from waferlens.ops.registration_peaks import repeats
from waferlens.ops.registration_pyramid import lively, onto_level
from waferlens.ops.registration_refine import Light, refine, undetermined, without
from waferlens.ops.registration_search import Candidate, Limits, Search

_HOPELESS = 0.2  # below this score there is nothing to say about repeats
_LATTICE_PX = 96  # side of the patch in which a fine lattice is looked for


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the search came to."""

    matrix: Float64[np.ndarray, "2 3"]
    score: float
    share: float
    """As in `Candidate`."""
    remark: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Loose:
    """What the images do not determine."""

    held: Float64[np.ndarray, "n n"]
    """Projector of the motion's parameters onto it."""
    words: str


def registered(
    image: np.ndarray,
    reference: np.ndarray,
    care: Bool[np.ndarray, "h w"] | None,
    motion: str,
    limits: Limits,
) -> Outcome:
    """The registration of an image to a reference: contiguous uint8, uint16 or float32, finite, neither constant."""
    search = Search(image, reference, care, motion, limits)
    if motion == "none":
        return _outcome(search.refined(Candidate(np.eye(2, 3)), search.finest, "none", steps=0, enough=0))
    found = search.found()
    if not found:
        return Outcome(search.still, 0.0, 0.0)
    return _outcome(found[0]) if found[0].score < _HOPELESS else _Choice(search).settled(found)


def _outcome(best: Candidate, remark: str = "", reason: str = "") -> Outcome:
    return Outcome(best.matrix, best.score, best.share, remark, reason)


class _Choice:
    """Between the candidates of a search."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self._compared: dict[tuple[Candidate, Candidate], bool] = {}

    def settled(self, found: list[Candidate]) -> Outcome:
        """The least moved of those as good as the best, less what nothing determines."""
        found, loose = self._determined(found)
        found = self._with_repeats(found, loose)
        equals = self._equals(found)
        best = equals[0]
        remarks, reason = [], ""
        if loose:
            remarks.append(f"nothing in the image fixes {loose.words}; that is left as it was")
        if len(equals) > 1:
            first, second = self._shift(equals[0]), self._shift(equals[1])
            said = f"the pattern repeats: the shifts (dy, dx) = {first} and {second} px fit equally well"
            remarks.append(f"{said}; the smaller was taken")
            if self.search.away(equals[1].matrix) < 1.25 * self.search.away(best.matrix) + 1:
                reason = f"{said}, and neither is clearly the smaller: state max_shift_px"
        return _outcome(best, "; ".join(remarks), reason)

    def _equals(self, found: list[Candidate]) -> list[Candidate]:
        """Those as good as the best, the least moved first; of neighbours the best."""
        found = sorted(found, key=lambda c: -c.evidence)
        found = [c for c in found if c.evidence > 0] or found[:1]  # within the limits, if any is
        equals = found[:1]
        for c in found[1:]:
            near = any(self._between(c, other) <= 4 * 2**self.search.finest for other in equals)
            if not near and c.share > 0.5 * found[0].share and self._as_good(c, found[0]):
                equals.append(c)
        return sorted(equals, key=lambda c: self.search.away(c.matrix))

    def _as_good(self, one: Candidate, best: Candidate) -> bool:
        """Whether a candidate leaves hardly more unexplained than the best, where both of them see the image.

        Only there: else a pattern moved by one period, which pushes a defect off the reference, would look better.
        """
        search = self.search
        key = (one, best)
        if key not in self._compared:
            k = min(search.finest + 1, search.coarse)
            reference = search.reference.smooth(k)
            matrices = [onto_level(c.matrix, k) for c in (one, best)]
            weight = seen_by_all(search.weights.level(k), np.stack(matrices), *reference.shape)
            image = search.image.smooth(k)
            scores = [refine(image, reference, weight, m, motion="none", steps=0, enough=0).score for m in matrices]
            left, least = (1 - score**2 for score in scores)
            # units of a pattern differ by chance, and so does what their exchange leaves
            self._compared[key] = left <= 1.25 * least + 0.005
        return self._compared[key]

    def _with_repeats(self, found: list[Candidate], loose: Loose | None) -> list[Candidate]:
        """With them those that a fine lattice puts nearer to no shift, and next to it."""
        search = self.search
        image, weight = search.image.level(search.finest), search.weights.level(search.finest)
        size = (min(_LATTICE_PX, image.shape[0]), min(_LATTICE_PX, image.shape[1]))
        y, x = lively(image, weight, size)
        vectors = repeats(image[y : y + size[0], x : x + size[1]]) * 2**search.finest
        if len(vectors) == 0:
            return found
        best = self._equals(found)[0]
        for most in (5, 20, 80):  # short vectors are known to a tenth of a pixel only, and better after a few steps
            steps = vectors @ best.matrix[:, :2].T
            moved = search.centre_shift(best.matrix)
            times = np.clip(np.rint(np.linalg.lstsq(steps.T, -moved, rcond=None)[0]), -most, most)
            if not times.any():
                break
            nearer = self._stepped(best, times @ steps, loose)
            if nearer is None or self._equals([*found, nearer])[0] is not nearer:
                break
            found = [*found, nearer]
            expected, made = times @ steps, search.centre_shift(nearer.matrix) - moved
            vectors = vectors * float(made @ expected / (expected @ expected))
            best = nearer
        steps = vectors @ best.matrix[:, :2].T
        steps = np.concatenate((steps, steps.sum(axis=0)[None], steps[:1] - steps[1:])) if len(steps) > 1 else steps
        moved = search.centre_shift(best.matrix)
        nearest = min((*steps, *-steps), key=lambda step: float(np.linalg.norm(moved + step)))
        other = self._stepped(best, nearest, loose)
        return found if other is None else [*found, other]

    def _stepped(self, candidate: Candidate, step: np.ndarray, loose: Loose | None) -> Candidate | None:
        """A candidate moved by a step of a lattice, and refined; None where a coarser level shows that nothing fits."""
        search = self.search
        matrix = candidate.matrix.copy()
        matrix[:, 2] += step
        if loose is not None:
            matrix = without(matrix, search.still, loose.held, search.motion, search.shape)
        held = None if loose is None else loose.held
        start = Candidate(matrix, light=Light(candidate.light.gain, candidate.light.offset))
        if search.coarse > search.finest:
            # what fits not at all is not worth steps: most images that look as if they repeated do not
            for steps, less in ((0, 0.4), (4, 0.1)):
                start = search.refined(start, search.finest + 1, search.motion, steps, 0.02, held=held)
                if start.score < candidate.score - less:
                    return None
        return search.refined(start, search.finest, search.motion, 8, search.enough, held=held)

    def _between(self, one: Candidate, other: Candidate) -> float:
        """Distance between where two candidates put the centre [px]"""
        return float(np.linalg.norm(self.search.centre_shift(one.matrix) - self.search.centre_shift(other.matrix)))

    def _shift(self, candidate: Candidate) -> str:
        x, y = np.round(-self.search.centre_shift(candidate.matrix), 1) + 0.0  # no -0.0
        return f"({y:.1f}, {x:.1f})"

    def _determined(self, found: list[Candidate]) -> tuple[list[Candidate], Loose | None]:
        """The candidates less the part of the motion that the images do not determine, and which part that is."""
        search = self.search
        best = found[0]
        held = None
        for k in dict.fromkeys((min(search.finest + 2, search.coarse), search.finest)):
            pixels, weight = search.image.smooth(k), search.weights.level(k)
            light = Light(best.light.gain)
            reference, matrix = search.reference.smooth(k), onto_level(best.matrix, k)
            laid = refine(pixels, reference, weight, matrix, motion="none", steps=0, enough=0, light=light)
            least = 0.03 + 10 / math.sqrt(max(weight.sum(), 1))
            held = undetermined(pixels, reference, weight, laid, search.motion, least)
            if held is None:
                return found, None
        out = []
        for candidate in found:
            matrix = without(candidate.matrix, search.still, held, search.motion, search.shape)
            start = Candidate(matrix, light=candidate.light)
            out.append(search.refined(start, search.finest, search.motion, 8, search.enough, held=held))
        out = search.rivals(out)
        if not out or out[0].score < best.score - 0.02:  # what costs correlation was determined after all
            return found, None
        return out, Loose(held, _words(held, search.motion, search.shape))


def _words(held: np.ndarray, motion: str, shape: tuple[int, int]) -> str:
    """What a projector of parameters leaves alone, in words."""
    count = round(float(np.trace(held)))
    if motion in ("similarity", "affine") or count > 2:
        return f"{count} of the {len(held)} parameters of the motion ({motion})"
    if count == 2 and motion == "shift":
        return "the shift"
    # by how far corners move: an angle is told in radians
    ways = np.linalg.svd(held)[0][:, 0] * (1, 1, *([0.5 * max(shape)] * (len(held) - 2)))
    ways /= np.linalg.norm(ways)
    x, y = ways[:2]
    if math.hypot(x, y) < 0.5:
        return "the angle"
    x, y = np.round((x, y) if round(x, 2) > 0 or (round(x, 2) == 0 and y > 0) else (-x, -y), 2) + 0.0  # no -0.0
    return f"the shift along (x, y) = ({x:.2f}, {y:.2f})" + (" and the angle" if count == 2 else "")
