"""Which sections a recipe has: its station says."""

from __future__ import annotations

import difflib

from waferlens.errors import Fault, RecipeError
from waferlens.recipe.golden import GoldenRecipe
from waferlens.recipe.hole import HoleRecipe
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.package_roi import KINDS, TRAINED, RoiRecipe
from waferlens.recipe.sections import Recipe
from waferlens.recipe.wafer import WaferRecipe
from waferlens.recipe.yamltree import Node

STATIONS = ("hole", "golden", "wafer", "package")
"""The stations that have recipes."""


def station_model(tree: Node, faults: list[Fault]) -> type[Recipe]:
    """The model of the station a tree names; a misspelt station is judged as the one that was meant.

    Raises:
        RecipeError: it names none that is known; nothing else of it can be judged then.
    """
    said = tree.value.get("station")
    if said is None:
        raise RecipeError([*faults, Fault(tree.where, f"station: is missing; one of {', '.join(STATIONS)}")])
    near = difflib.get_close_matches(str(said.value), STATIONS, n=1, cutoff=0.5)
    match near:
        case ["hole"]:
            return HoleRecipe
        case ["golden"]:
            return GoldenRecipe
        case ["wafer"]:
            return WaferRecipe
        case ["package"]:
            return RoiRecipe if _is_roi(tree) else PackageRecipe
        case _:
            what = f"station = {said.plain()}: unknown station; one of {', '.join(STATIONS)}"
            raise RecipeError([*faults, Fault(said.where, what)])


def _is_roi(tree: Node) -> bool:
    """Whether `model.kind` says, or nearly says, that nothing in it is trained here."""
    model = tree.value.get("model")
    kind = model.value.get("kind") if model is not None and isinstance(model.value, dict) else None
    if kind is None:
        return False
    near = difflib.get_close_matches(str(kind.value), (*KINDS, *TRAINED), n=1, cutoff=0.6)
    return bool(near) and near[0] in KINDS
