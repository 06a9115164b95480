"""Ways to find a package in an image, with networks or without, that all answer alike.

Networks run as bundles. What they tell is rough: a box lies around a turned package, and a mask zig-zags by the size
of its prototypes' pixels. So their box or mask takes the place of the dark body in `roi-edges`, and straight lines are
fitted to the borders, unless that is declined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from waferlens.bundle.files import Bundle, open_bundle, shipped
from waferlens.bundle.package import PackageSession
from waferlens.bundle.sam import SamSession, boxes_of, sam_of
from waferlens.errors import BundleError, UsageError
from waferlens.ops.roi_edges import EdgesSettings, refined, roi_body, roi_edges, upright_roi
from waferlens.ops.roi_opencv import OpencvSettings, roi_opencv, wrong_light
from waferlens.ops.roi_record import CROP_PX, Roi, cut_sides, homography_of, no_roi, ordered
from waferlens.prepare.package_findings import Detected, detected
from waferlens.recipe import PackageRecipe, Recipe, RoiRecipe, load_recipe
from waferlens.recipe.package_roi import BoxSam, EdgesRoi, OpencvRoi

METHODS = ("opencv", "edges", "yolov5n", "yolov5n-seg", "yolov5s-seg", "yolov5n-sam")
"""As they are called; the recipe of each is `roi-` and its name."""
PACKAGE = "package"
"""Class of the detectors' boxes that are packages."""
LINES = ("out_px", "in_px", "trim_px", "steep_px", "least_used")
"""What of `roi-edges` can be set where its lines are fitted to what a network tells; the rest says how a body is looked
for, which the network does."""
_SECOND = 0.35  # of the best box's area, from which another one beside it is a second chip
_AROUND = 0.08  # of a box's sides: how much of the board around it is looked at with it
_THREADS = 2  # of a network; images are looked at one after the other
_AT_EDGE_PX = 2.0  # how near to an edge of the image a box ends there


class Finder(Protocol):
    """A method, ready to be used on images."""

    @property
    def name(self) -> str:
        """As it is called in results."""

    def find(
        self, image: UInt8[np.ndarray, "h w 3"], *, light: str | None = None, size_px: tuple[int, int] = CROP_PX
    ) -> Roi:
        """The package in an image, or why there is none.

        Args:
            image: red, green, blue [grey]
            light: `bf`, `dfw` or `dfb` if it is known; an image of another light is refused.
            size_px: width and height of the upright crop [px]
        """


@dataclass(frozen=True, slots=True)
class OpencvFinder:
    """`roi-opencv`."""

    settings: OpencvSettings
    name: str = "opencv"

    def find(self, image: np.ndarray, *, light: str | None = None, size_px: tuple[int, int] = CROP_PX) -> Roi:
        return roi_opencv(image, light=light, size_px=size_px, settings=self.settings)


@dataclass(frozen=True, slots=True)
class EdgesFinder:
    """`roi-edges`."""

    settings: EdgesSettings
    name: str = "edges"

    def find(self, image: np.ndarray, *, light: str | None = None, size_px: tuple[int, int] = CROP_PX) -> Roi:
        return roi_edges(image, light=light, size_px=size_px, settings=self.settings)


@dataclass(frozen=True, slots=True)
class NetworkFinder:
    """A detector of packages, with its own masks, those of a Segment Anything network, or none."""

    name: str
    boxes: PackageSession
    least_score: float
    """From which a box is a package"""
    sam: SamSession | None = None
    margin: float = 0.0
    """By how much the prompt is wider than the box on each side, as a share of it"""
    refine: bool = True
    """Fit straight lines along the borders of what the network tells"""
    lines: EdgesSettings | None = None
    """How they are fitted, of which `LINES` can be set; by default if None"""

    def find(self, image: np.ndarray, *, light: str | None = None, size_px: tuple[int, int] = CROP_PX) -> Roi:
        wrong = wrong_light(image, light)
        if not wrong and light is not None and light not in self.boxes.lights:
            wrong = f"taken in light {light}; the bundle knows {', '.join(self.boxes.lights)}"
        if wrong:
            return no_roi(self.name, wrong, size_px)
        found = detected(self.boxes, [image], least=self.least_score)[0]
        places = [place for place, kind in enumerate(found.kinds) if kind == _class_of(self.boxes)]
        if not places:
            reason = f"no chip: the network draws no box with a score of {self.least_score:g} or more"
            return no_roi(self.name, reason, size_px)
        best = places[0]
        told = {"method": self.name, "network_score": float(found.scores[best])}
        box = found.boxes[best]
        quad = ordered(_corners(box), size_px)
        if others := _beside(found.boxes[places]):
            areas = ", ".join(f"{one:,.0f}" for one in others)
            reason = f"{len(others)} chips: boxes of {areas} px²; show one"
            return Roi(quad=quad, homography=homography_of(quad, size_px), size_px=size_px, score=0.0, reason=reason,
                       **told)  # fmt: skip
        if self.sam is None and not self.boxes.tells_masks:
            return replace(self._boxed(image, box, quad, light, size_px), **told)
        mask = self._mask(image, found, best)
        rough = roi_body(image, light=light, mask=mask, size_px=size_px)
        if rough.found and self.refine:
            rough = refined(image, rough, light=light, settings=self.lines).roi
        return replace(rough, **told)

    def _boxed(
        self,
        image: np.ndarray,
        box: Float[np.ndarray, "4"],
        quad: np.ndarray,
        light: str | None,
        size_px: tuple[int, int],
    ) -> Roi:
        """The package in a box, by its body; or the box itself."""
        if self.refine:
            around = _AROUND * float(max(box[2] - box[0], box[3] - box[1]))
            wider = _wider(box, around, around)
            return roi_edges(image, light=light, box=wider, size_px=size_px, settings=self.lines)
        rough = upright_roi(image, quad, 1.0, size_px)
        cut = cut_sides(quad, image.shape, margin_px=_AT_EDGE_PX)
        return replace(rough, reason=f"the chip is cut by the {' and '.join(cut)} edge of the image" if cut else "")

    def _mask(self, image: np.ndarray, found: Detected, place: int) -> Bool[np.ndarray, "h w"]:
        """Pixels of the package in the image."""
        box = found.boxes[place]
        if self.sam is not None:
            wide, high = self.margin * (box[2] - box[0]), self.margin * (box[3] - box[1])
            return self.sam.mask(image, _wider(box, wide, high))[0]
        masks = found.in_input.masks
        assert masks is not None
        h, w = image.shape[:2]
        shown = cv2.warpPerspective(
            masks[place].astype(np.float32),
            found.placement.matrix,
            (w, h),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return shown > 0.5


def finder(
    method: str | Path | None = None,
    *,
    bundle: str | Path | None = None,
    refine: bool | None = None,
    settings: Sequence[str] = (),
) -> Finder:
    """A method by its name, its recipe or its bundle.

    Args:
        method: one of `METHODS`, or the name or file of a recipe; if None the bundle's own, and `edges` without one.
        bundle: of the network; where None, the shipped one of that name.
        refine: fit straight lines to what a network tells, which is done if None.
        settings: `a.b=c`, written over a recipe that needs no network; with one, over `roi-edges`, by which lines are
            fitted to what the network tells.

    Raises:
        UsageError: there is no such method, a network has no bundle, or an option means nothing to it.
        RecipeError: the recipe has faults.
        BundleError: the bundle finds no packages.
    """
    recipe = None if method is None and bundle is not None else _recipe(method or "edges")
    if recipe is None or _is_network(recipe):
        return _network(recipe, bundle, refine is not False, settings)
    recipe = _recipe(method or "edges", settings)
    for option, given in (("--bundle", bundle), ("--refine", refine)):
        if given is not None:
            raise UsageError(f"{option} means nothing to {recipe.name}: there is no network in it")
    assert isinstance(recipe, RoiRecipe)
    told = recipe.model.model_dump(exclude={"kind"})
    match recipe.model:
        case OpencvRoi():
            return OpencvFinder(OpencvSettings(**told))
        case EdgesRoi():
            return EdgesFinder(EdgesSettings(**told))
        case _:
            raise AssertionError(recipe.model)


def _recipe(method: str | Path, settings: Sequence[str] = ()) -> Recipe:
    recipe = load_recipe(f"roi-{method}" if method in METHODS else method, settings)
    if not isinstance(recipe, RoiRecipe) and not (isinstance(recipe, PackageRecipe) and recipe.input.region == "image"):
        raise UsageError(f"{recipe.name} finds no packages; methods are {', '.join(METHODS)}")
    return recipe


def _is_network(recipe: Recipe) -> bool:
    return not isinstance(recipe, RoiRecipe) or isinstance(recipe.model, BoxSam)


def _network(recipe: Recipe | None, bundle: str | Path | None, refine: bool, settings: Sequence[str]) -> NetworkFinder:
    lines = _lines(settings, refine)
    if bundle is None:
        assert recipe is not None
        if recipe.name not in shipped():
            how = "train and export it" if isinstance(recipe, PackageRecipe) else "export its boxes with --sam"
            raise UsageError(f"{recipe.name} is a network and none is shipped: {how}, and name the bundle: --bundle")
        bundle = recipe.name
    opened = open_bundle(bundle)
    told = opened.recipe
    if told.get("station") != "package":
        raise BundleError(f"{opened.path}: its recipe is of station {told.get('station')}, not package")
    name = str(told["name"]).removeprefix("roi-")
    is_pair = (told.get("model") or {}).get("kind") == "box-sam"
    boxes = boxes_of(opened) if is_pair else opened
    least = float(boxes.recipe["findings"]["score"])
    made = NetworkFinder(name, PackageSession(boxes, _THREADS), least, refine=refine, lines=lines)
    if is_pair:
        made = replace(made, sam=sam_of(opened, _THREADS), margin=float(told["model"]["margin"]))
    if made.boxes.region != "image":
        raise BundleError(f"{opened.path}: looks at upright packages, and finds {', '.join(made.boxes.classes)}")
    _class_of(made.boxes, opened)
    if recipe is not None:
        _same(recipe, made, opened)
    return made


def _lines(settings: Sequence[str], refine: bool) -> EdgesSettings:
    """How lines are fitted to what a network tells: as `roi-edges` says, with these settings written over it.

    Raises:
        UsageError: a setting is of the network, or no lines are fitted.
        RecipeError: a value cannot be.
    """
    known = [f"model.{name}" for name in LINES]
    for setting in settings:
        if setting.partition("=")[0].strip() not in known:
            raise UsageError(
                f"{setting}: a network runs as its bundle was made; with one, set how lines are fitted to what it "
                f"tells: {', '.join(known)}"
            )
        if not refine:
            raise UsageError(f"{setting}: says how lines are fitted, and --no-refine fits none; leave one of both out")
    model = load_recipe("roi-edges", settings).model  # type: ignore[attr-defined]
    return EdgesSettings(**model.model_dump(exclude={"kind"}))


def _same(recipe: Recipe, made: NetworkFinder, bundle: Bundle) -> None:
    """Refuses a bundle of another method than the one that is said.

    Raises:
        UsageError: it is one.
    """
    if isinstance(recipe, PackageRecipe):
        wanted = "masks" if getattr(recipe.model, "masks", False) else "boxes"
    else:
        wanted = "masks of SAM"
    got = "masks of SAM" if made.sam is not None else "masks" if made.boxes.tells_masks else "boxes"
    known = [f"roi-{method}" for method in METHODS]
    if wanted != got or (bundle.recipe["name"] in known and bundle.recipe["name"] != recipe.name):
        raise UsageError(
            f"{bundle.path}: is a bundle of {bundle.recipe['name']}, which tells {got}; {recipe.name} tells {wanted}"
        )


def _class_of(session: PackageSession, bundle: Bundle | None = None) -> str:
    """The class that is a package.

    Raises:
        BundleError: none is.
    """
    if PACKAGE in session.classes:
        return PACKAGE
    if len(session.classes) == 1:
        return session.classes[0]
    where = "" if bundle is None else f"{bundle.path}: "
    raise BundleError(f"{where}finds {', '.join(session.classes)}; none of them is called {PACKAGE}")


def _beside(boxes: Float[np.ndarray, "n 4"]) -> list[float]:
    """Areas of the boxes where several chips are seen: the best one, and large ones whose middle lies outside of it."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    x, y = boxes[:, 0::2].mean(axis=1), boxes[:, 1::2].mean(axis=1)
    x0, y0, x1, y1 = boxes[0]
    outside = ~((x > x0) & (x < x1) & (y > y0) & (y < y1)) & (areas > _SECOND * areas[0])
    return [float(areas[0]), *areas[outside].tolist()] if outside.any() else []


def _wider(box: Float[np.ndarray, "4"], x: float, y: float) -> Float[np.ndarray, "4"]:
    return np.asarray(box, np.float64) + np.array([-x, -y, x, y])


def _corners(box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4 2"]:
    x0, y0, x1, y1 = (float(one) for one in box)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
